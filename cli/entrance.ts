/**
 * Callers of this machine: where they come in, for both programs' `--listen`.
 *
 * @module
 */

import type { Channel } from "../lib/mod.ts";
import { carry, type CarryOptions } from "../tunnel/caller.ts";
import type { Address } from "../tunnel/address.ts";
import {
  listenPlain,
  type PlainListener,
  type PlainListenOptions,
} from "../tunnel/plain.ts";
import { messageOf } from "./advice/errors.ts";
import { cannotListen } from "./advice/system_errors.ts";
import type { Live } from "./live.ts";

/** A caller who is carried, or a client who is served. */
export interface Call {
  /** By what session; by another, if that is lost before anything was said. */
  channel: Channel;
}

/** How callers are carried. */
export interface EntranceOptions
  extends Omit<CarryOptions, "signal" | "taken"> {
  /** Gets those that are carried, and has places for them. */
  live: Live;
  /** Follows a caller whom the peer has taken, until it is carried. */
  follow?: (call: Call, carried: Promise<void>) => Promise<void>;
  /** Why those that are left in the end are cut. */
  reason?: Error;
}

/** An address at which callers come in. */
export class Entrance {
  readonly #listener: PlainListener;
  #isClosed = false;

  private constructor(listener: PlainListener) {
    this.#listener = listener;
  }

  /** Listens there; its errors are written for people. */
  static async open(
    address: Address,
    options: PlainListenOptions,
  ): Promise<Entrance> {
    try {
      return new Entrance(await listenPlain(address, options));
    } catch (error) {
      const message = `${messageOf(error)}; choose another with --listen`;
      throw cannotListen(message, (error as Error).cause);
    }
  }

  /** Where it is, with the port that was taken. */
  get address(): Address {
    return this.#listener.address;
  }

  /** Carries callers until it is closed. */
  async carry(
    { live, follow, reason, ...options }: EntranceOptions,
  ): Promise<void> {
    while (true) {
      while (live.free === 0) await live.left;
      const caller = await this.#listener.accept();
      if (!caller) return;
      // Another entrance may have taken the last room meanwhile.
      while (live.free === 0) await live.left;
      if (this.#isClosed) return caller.reset();
      const stop = new AbortController();
      let call: Call | undefined;
      let following: Promise<void> | undefined;
      const carried = carry(caller, {
        ...options,
        signal: stop.signal,
        taken: (channel) => {
          if (call) call.channel = channel;
          else following = follow?.(call = { channel }, carried);
        },
      });
      live.add(carried.then(() => following), () => stop.abort(reason));
    }
  }

  /** Takes no more callers; those that are being carried may go on. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#listener.close();
  }
}
