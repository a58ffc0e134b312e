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

/** What an entrance needs of those who make sessions. */
export type Sessions = Pick<Reserve, "take">;

/** The two sides of a caller, each being read. */
interface Sides {
  fromPlain: Source;
  channel: Channel;
  fromChannel: Source;
}

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
  const gone = new AbortController();
  // What it says waits for the session; that it breaks need not.
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
 * Begins the stream over a session in reserve. Such a one may be dead without
 * anybody knowing: if it is lost before either side has said anything, a new one
 * serves the caller as well.
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
    // Whoever reads it is told why it cannot begin.
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

/** Waits until either side says something; false if the session is lost before. */
async function isInUse({ fromPlain, fromChannel }: Sides): Promise<boolean> {
  return await Promise.race([
    fromPlain.peek().then(() => true),
    fromChannel.peek().then(() => true, () => false),
  ]);
}
