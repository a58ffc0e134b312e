/**
 * Callers of this machine: where they come in, for both programs' `--listen`.
 *
 * @module
 */

import type { Channel } from "../lib/mod.ts";
import { Caller, type CarryOptions } from "../tunnel/caller.ts";
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
interface CarryCallersOptions extends Omit<CarryOptions, "signal" | "taken"> {
  /** Gets those that are carried, and has places for them. */
  live: Live;
  /** Follows a caller whom the peer has taken, until it is carried. */
  follow?: (call: Call, carried: Promise<void>) => Promise<void>;
}

/** Listens where callers come in; its errors are written for people. */
export async function openEntrance(
  address: Address,
  options: PlainListenOptions,
): Promise<PlainListener> {
  try {
    return await listenPlain(address, options);
  } catch (error) {
    const message = `${messageOf(error)}; choose another with --listen`;
    throw cannotListen(message, (error as Error).cause);
  }
}

/** Carries callers until their entrance is closed; they may go on then. */
export async function carryCallers(
  entrance: PlainListener,
  { live, follow, ...options }: CarryCallersOptions,
): Promise<void> {
  while (true) {
    while (live.free === 0) await live.left;
    const caller = await entrance.accept();
    if (!caller) return;
    // Another entrance may have taken the last room meanwhile.
    while (live.free === 0) await live.left;
    if (entrance.isClosed) return caller.reset();
    live.add(async (signal) => {
      let call: Call | undefined;
      let following: Promise<void> | undefined;
      const carried = new Caller(caller, {
        ...options,
        signal,
        taken: (channel) => {
          if (call) call.channel = channel;
          else following = follow?.(call = { channel }, carried);
        },
      }).carry();
      await carried;
      await following;
    });
  }
}
