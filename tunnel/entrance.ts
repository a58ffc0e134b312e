/**
 * The client's end of a tunnel: each local caller gets a channel of its own.
 *
 * @module
 */

import type { Channel } from "../lib/mod.ts";
import { relay, Source } from "./relay.ts";
import { type Report, type Reserve, Unreachable } from "./reserve.ts";
import type { Resettable } from "./resettable.ts";

/** How long a caller waits for a server that is away, in milliseconds. */
const PATIENCE = 10_000;

/** What an entrance needs of those who make sessions. */
export type Sessions = Pick<Reserve, "take">;

/**
 * Carries a local caller to its end, over a session of the server's.
 *
 * @param report Is told why a caller broke. A server that cannot be reached has
 * been told of already.
 * @param signal Resets the caller. Whoever gives it knows: it is not reported.
 */
export async function carry(
  plain: Resettable,
  sessions: Sessions,
  report: Report,
  signal: AbortSignal,
): Promise<void> {
  const name = "The local caller";
  const fromPlain = new Source(plain);
  const deadline = performance.now() + PATIENCE;
  try {
    for (const isRetry of [false, true]) {
      const patience = Math.max(0, deadline - performance.now());
      const channel = await sessions.take(patience, signal, isRetry);
      const fromChannel = new Source(channel);
      const isLost = await isLostBefore(channel, fromPlain, fromChannel);
      if (isLost && !isRetry) continue;
      const ends = { channel, plain, name, fromPlain, fromChannel };
      return await relay(ends, signal);
    }
  } catch (error) {
    plain.reset();
    if (signal.aborted || error instanceof Unreachable) return;
    report((error as Error).message);
  }
}

/**
 * Begins the stream. True if the session is lost before either side has said
 * anything: one in reserve may have been dead without anybody knowing, and a new
 * one serves the caller as well.
 */
async function isLostBefore(
  channel: Channel,
  fromPlain: Source,
  fromChannel: Source,
): Promise<boolean> {
  // A caller that breaks has said something too: the relay will hear it.
  const spoken = fromPlain.peek().then(() => false, () => false);
  const answered = fromChannel.peek().then(() => false, () => true);
  try {
    await channel.open();
    return await Promise.race([spoken, answered]);
  } catch {
    return true;
  }
}
