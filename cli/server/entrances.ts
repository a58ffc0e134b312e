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
import { type Channel, ChannelError } from "../../lib/mod.ts";
import { type Address, format, parseAddress } from "../../tunnel/address.ts";
import { carry, type Sessions } from "../../tunnel/caller.ts";
import { Offered } from "../../tunnel/offered.ts";
import { listenPlain, type PlainListener } from "../../tunnel/plain.ts";
import { Unreachable } from "../../tunnel/reserve.ts";
import { messageOf, UsageError } from "../advice/errors.ts";
import { mayPass } from "../advice/system_errors.ts";
import { complaintOf, Complaints } from "../complaints.ts";
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

/** What {@linkcode Entrances} needs. */
export interface EntrancesOptions {
  listener: Listener;
  /** Those that are carried count as clients, and are logged as such. */
  clients: Clients;
  log: Log;
  /** How many clients and callers there may be at a time. */
  max: number;
}

/** Carries callers of this machine to clients, each door to one identity. */
export class Entrances {
  readonly #doors: Door[];
  readonly #options: EntrancesOptions;
  readonly #offered: Map<string, Offered>;
  readonly #complaints: Complaints;
  readonly #listeners: PlainListener[] = [];
  readonly #accepting: Promise<void>[] = [];
  #isStopping = false;

  /** Opens none yet. */
  constructor(doors: Door[], options: EntrancesOptions) {
    const { listener, log } = options;
    this.#doors = doors;
    this.#options = options;
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
      this.#options.log("warning", message, { identity });
    }
  }

  /**
   * Begins to take callers.
   *
   * @throws {UsageError} If an address cannot be listened on.
   */
  async open(): Promise<void> {
    for (const door of this.#doors) {
      const listener = await this.#listen(door);
      this.#listeners.push(listener);
      this.#accepting.push(this.#accept(door, listener));
    }
  }

  /** Takes no more callers; those that have a session may go on. */
  async close(): Promise<void> {
    this.#isStopping = true;
    for (const offered of this.#offered.values()) offered.close();
    await Promise.all(this.#listeners.map((listener) => listener.close()));
    await Promise.all(this.#accepting);
  }

  /** Tells what has been counted so far. */
  tellRest(): void {
    this.#complaints.tellRest();
  }

  /** What an identity offers; what begins is logged with where its caller came. */
  #sessions(identity: string, caller: string): Sessions {
    const offered = this.#offered.get(identity)!;
    return {
      take: async (patience, signal) => {
        const channel = await offered.take(patience, signal);
        const { clients } = this.#options;
        channel.opened.then(
          () => clients.follow(channel, channel.closed, caller),
          () => {},
        );
        return channel;
      },
      forsake: (silence) => offered.forsake(silence),
    };
  }

  async #listen({ address, identity }: Door): Promise<PlainListener> {
    const { log } = this.#options;
    try {
      const listener = await listenPlain(address, {
        onShortage: () =>
          log("limit", "out of file descriptors: callers wait", {
            limit: "descriptors",
          }),
      });
      const caller = format(listener.address);
      const message = `callers at ${caller} are carried to ${identity}`;
      log("listen", message, { caller, identity });
      return listener;
    } catch (error) {
      const { cause } = error as Error;
      const message = `${messageOf(error)}; choose another with --listen`;
      throw mayPass(cause) ? new Error(message) : new UsageError(message);
    }
  }

  async #accept({ identity }: Door, listener: PlainListener): Promise<void> {
    const { clients: { live }, max } = this.#options;
    while (true) {
      while (live.size >= max) await live.left;
      const caller = await listener.accept();
      if (!caller) return;
      while (live.size >= max) await live.left;
      if (this.#isStopping) return caller.reset();
      const stop = new AbortController();
      const work = carry(caller, {
        sessions: this.#sessions(identity, format(listener.address)),
        peer: "client",
        report: (error) => this.#complaints.add(...complaintOf(error)),
        signal: stop.signal,
      });
      live.add(
        work,
        () => stop.abort(new ChannelError("stopping", "The server stopped")),
      );
    }
  }
}
