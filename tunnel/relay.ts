/**
 * Carries a plain connection over a channel.
 *
 * @module
 */

import { abortable } from "@std/async/abortable";
import { type Channel, ChannelError } from "../lib/mod.ts";
import type { Resettable } from "./resettable.ts";
import { Source } from "./source.ts";

/** What the failure of a plain end is for the peer. */
export type PlainFailure = "backend" | "aborted";

/** A plain end broke its connection. */
export function broken(
  { name, failure }: Pick<Ends, "name" | "failure">,
  cause: unknown,
): ChannelError {
  const why = cause instanceof Error ? cause.message : String(cause);
  const message = `${name} broke the connection: ${why}`;
  return new ChannelError(failure, message, { cause });
}

/** What is carried, and by what it is told. */
export interface Ends {
  channel: Channel;
  plain: Resettable;
  /** What the plain end is called, for errors. */
  name: string;
  /** What the peer is told if the plain end breaks. */
  failure: PlainFailure;
  /** What the plain end says, where it is being read already. */
  fromPlain?: Source;
}

/**
 * Carries both directions between a channel and a plain connection, until both
 * have ended.
 *
 * Each direction ends by itself. If either side breaks, the other is broken too:
 * a channel is aborted, a connection is reset, so that no cut passes for an end.
 *
 * @param signal Breaks both. To abort the channel does the same only while it
 * is open: it may have ended while the connection still has to take the last of it.
 * @throws {ChannelError} If either broke.
 */
export async function relay(ends: Ends, signal: AbortSignal): Promise<void> {
  try {
    await carryBoth(ends, signal);
    ends.plain.close();
  } catch (error) {
    ends.channel.abort(error);
    ends.plain.reset();
    throw error;
  }
}

/** The same, but both are left as they are. */
export async function carryBoth(
  ends: Ends,
  signal: AbortSignal,
): Promise<void> {
  const { channel, plain } = ends;
  const { fromPlain = new Source(plain) } = ends;
  const fromChannel = new Source(channel);
  let isOver = false;
  const up = async () => {
    while (true) {
      let bytes: Uint8Array | null;
      try {
        bytes = fromPlain.again ?? fromPlain.took(await fromPlain.read());
      } catch (cause) {
        throw broken(ends, cause);
      }
      if (!bytes) break;
      await channel.write(bytes);
      // What comes next may be another's by now.
      if (isOver) return;
      const full = fromPlain.drop();
      if (full) await full;
    }
    await channel.closeWrite();
  };
  const down = async () => {
    while (true) {
      let bytes = fromChannel.took(await fromChannel.read());
      try {
        if (!bytes) return await plain.closeWrite();
        while (bytes.length > 0) {
          bytes = bytes.subarray(await plain.write(bytes));
        }
      } catch (cause) {
        throw broken(ends, cause);
      }
      fromChannel.drop();
    }
  };
  try {
    await abortable(Promise.all([up(), down(), channel.closed]), signal);
  } finally {
    isOver = true;
  }
}
