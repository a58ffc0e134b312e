/**
 * The client's end of a tunnel: each local caller gets a channel of its own.
 *
 * @module
 */

import { abortable } from "@std/async/abortable";
import type { Channel } from "../lib/mod.ts";
import { broken, relay, Source } from "./relay.ts";
import { type Report, type Reserve, Unreachable } from "./reserve.ts";
import type { Resettable } from "./resettable.ts";

/** How long a caller waits for a server that is away, in milliseconds. */
const PATIENCE = 10_000;

/** What an entrance needs of a reserve. */
export type Sessions = Pick<Reserve, "take">;

/** The two sides of a caller, each being read. */
interface Sides {
  fromPlain: Source;
  channel: Channel;
  fromChannel: Source;
}

/**
 * Carries a local caller over a session with the server, until it ends.
 *
 * @param report Is told why a caller broke. The reserve has already reported a
 * server that cannot be reached.
 * @param signal Resets the caller. This is not reported.
 */
export async function carry(
  plain: Resettable,
  sessions: Sessions,
  report: Report,
  signal: AbortSignal,
): Promise<void> {
  const name = "The local caller";
  const fromPlain = new Source(plain);
  const gone = new AbortController();
  // Its data waits for the session, but a break is noticed at once.
  fromPlain.peek().catch((error) => gone.abort(broken(name, error)));
  try {
    const stop = AbortSignal.any([signal, gone.signal]);
    const sides = await begin(sessions, fromPlain, stop);
    await relay({ plain, name, ...sides }, signal);
  } catch (error) {
    plain.reset();
    if (signal.aborted || error instanceof Unreachable) return;
    report((error as Error).message);
  }
}

/**
 * Begins the stream over a session in reserve. That session may already be dead.
 * If it is lost before either side has said anything, a new one serves the
 * caller just as well.
 */
async function begin(
  sessions: Sessions,
  fromPlain: Source,
  signal: AbortSignal,
): Promise<Sides> {
  const deadline = performance.now() + PATIENCE;
  const take = async (isFresh: boolean) => {
    const patience = Math.max(0, deadline - performance.now());
    const channel = await sessions.take(patience, signal, isFresh);
    const fromChannel = new Source(channel);
    // If it cannot begin, the reader is told why.
    await channel.open().catch(() => {});
    return { fromPlain, channel, fromChannel };
  };
  const sides = await take(false);
  try {
    if (await abortable(isInUse(sides), signal)) return sides;
  } catch (error) {
    sides.channel.abort(error);
    throw error;
  }
  return await take(true);
}

/**
 * Waits until either side says something; false if the session is lost first.
 */
async function isInUse({ fromPlain, fromChannel }: Sides): Promise<boolean> {
  return await Promise.race([
    fromPlain.peek().then(() => true),
    fromChannel.peek().then(() => true, () => false),
  ]);
}
