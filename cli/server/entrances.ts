/**
 * `server --listen`: callers of this machine, for what clients expose.
 *
 * @module
 */

import type { Listener, ListenerCredentials } from "../../lib/deno.ts";
import {
  findPsk,
  IDENTITY_FORM,
  isIdentity,
  takePsks,
} from "../../lib/lock/psk.ts";
import type { Channel } from "../../lib/mod.ts";
import { type Address, format, parseAddress } from "../../tunnel/address.ts";
import { Offered } from "../../tunnel/offered.ts";
import type { PlainListener } from "../../tunnel/plain.ts";
import { Unreachable } from "../../tunnel/reserve.ts";
import { UsageError } from "../advice/errors.ts";
import { complaintOf, Complaints } from "../complaints.ts";
import { carryCallers, openEntrance } from "../entrance.ts";
import type { Args } from "../main.ts";
import type { Clients } from "./clients.ts";
import type { Log } from "./log.ts";

/** Where callers come in, and to what client's offers they are carried. */
export interface Door {
  address: Address;
  identity: string;
}

/** The doors that the flags name. */
export function readDoors(args: Args): Door[] {
  return args.texts("listen").map((text) => {
    const [, where = "", identity] = /^([^=]*)=(.+)$/.exec(text) ?? [];
    const address = parseAddress(where, "127.0.0.1");
    if (!address || identity === undefined) {
      throw new UsageError(
        "--listen takes [HOST:]PORT=NAME[@SERVICE] or " +
          `unix:/path=NAME[@SERVICE], not ${text}`,
      );
    }
    if (isIdentity(identity)) return { address, identity };
    throw new UsageError(
      `--listen takes ${IDENTITY_FORM} behind its =, not ${identity}`,
    );
  });
}

/** Carries callers of this machine to clients, each door to one identity. */
export class Entrances {
  readonly #doors: Door[];
  readonly #clients: Clients;
  readonly #log: Log;
  readonly #offered: Map<string, Offered>;
  readonly #complaints: Complaints;
  readonly #entrances: PlainListener[] = [];
  readonly #carrying: Promise<void>[] = [];
  #isClosed = false;

  /**
   * Opens none yet.
   *
   * @param clients Those that are carried count as such, and are logged there.
   */
  constructor(
    doors: Door[],
    listener: Pick<Listener, "open">,
    clients: Clients,
    log: Log,
  ) {
    this.#doors = doors;
    this.#clients = clients;
    this.#log = log;
    this.#complaints = new Complaints((message) => log("caller", message));
    this.#offered = new Map(doors.map(({ identity }) => [
      identity,
      new Offered({
        identity,
        open: (signal) =>
          listener.open(identity, { signal, standby: true }).catch((error) => {
            if (!(error instanceof Deno.errors.BadResource)) throw error;
            throw new Unreachable("The server is stopping");
          }),
        report: (message) => log("offer", message, { identity }),
      }),
    ]));
  }

  /** Whether a client may offer something: this identity, to the letter. */
  takes(identity: string): boolean {
    return this.#offered.has(identity);
  }

  /** A client has offered one of those. */
  add(channel: Channel): void {
    this.#offered.get(channel.identity)?.add(channel);
  }

  /** Warns of doors for which no client has a key. */
  checkKeys({ psk }: ListenerCredentials): void {
    const psks = takePsks(psk);
    for (const identity of this.#offered.keys()) {
      if (findPsk(identity, psks)) continue;
      const message = `no client has a key for ${identity}; make one with ` +
        `'deno task certs --invite ${identity}'`;
      this.#log("warning", message, { identity });
    }
  }

  /**
   * Begins to take callers.
   *
   * @throws {Error} If an address cannot be listened on.
   */
  async open(): Promise<void> {
    for (const { address, identity } of this.#doors) {
      const entrance = await openEntrance(address, {
        onShortage: () =>
          this.#log("limit", "out of file descriptors: callers wait", {
            limit: "descriptors",
          }),
      });
      // The server stops before it has begun.
      if (this.#isClosed) return await entrance.close();
      const caller = format(entrance.address);
      const message = `callers at ${caller} are carried to ${identity}`;
      this.#log("listen", message, { caller, identity });
      this.#entrances.push(entrance);
      this.#carrying.push(carryCallers(entrance, {
        sessions: this.#offered.get(identity)!,
        peer: "client",
        report: (error) => this.#complaints.add(...complaintOf(error)),
        live: this.#clients.live,
        follow: async (call, carried) => {
          // What became of the session is the reason in the log.
          const over = carried.then(() => call.channel.closed);
          await this.#clients.follow(call, over, caller);
        },
      }));
    }
  }

  /** Takes no more callers; those that have a session may go on. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const offered of this.#offered.values()) offered.close();
    await Promise.all(this.#entrances.map((entrance) => entrance.close()));
    await Promise.all(this.#carrying);
  }

  /** Tells what has been counted so far. */
  tellRest(): void {
    this.#complaints.tellRest();
  }
}
