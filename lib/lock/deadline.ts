/**
 * The deadline of a set-up, and its cancellation.
 *
 * @module
 */

import { CLOCK, type Clock } from "./clock.ts";
import { ChannelError } from "./errors.ts";
import { withResolvers } from "./runtime.ts";
import { closeQuietly, type Transport } from "./transport.ts";

/** The time limit of a handshake, in milliseconds. */
export const HANDSHAKE_TIMEOUT = 10_000;

/**
 * Runs a set-up, all its steps together, until its deadline or its signal.
 *
 * @param options The clock stands in for time in tests.
 * @param work Gets a signal that tells it to stop, perhaps from the start. Once
 * it is told to, it is not waited for.
 * @param abandon Gets the result of work that came too late.
 * @throws {ChannelError} `timeout` at the deadline, or what the signal says.
 */
export async function withDeadline<T>(
  options: {
    handshakeTimeout?: number;
    signal?: AbortSignal | undefined;
    clock?: Clock;
  },
  work: (signal: AbortSignal) => Promise<T>,
  abandon: (late: T) => void = () => {},
): Promise<T> {
  const { handshakeTimeout = HANDSHAKE_TIMEOUT, signal } = options;
  const { clock = CLOCK } = options;
  const stop = new AbortController();
  const stopped = withResolvers<never>();
  stop.signal.addEventListener(
    "abort",
    () => stopped.reject(stop.signal.reason),
  );
  const onAbort = () => stop.abort(signal!.reason);
  if (signal?.aborted) onAbort();
  signal?.addEventListener("abort", onAbort);
  const timer = clock.after(handshakeTimeout, () => {
    const seconds = handshakeTimeout / 1000;
    stop.abort(
      new ChannelError(
        "timeout",
        `The peer did not finish the handshake within ${seconds} s`,
      ),
    );
  });
  let working: Promise<T> | undefined;
  try {
    working = work(stop.signal);
    return await Promise.race([working, stopped.promise]);
  } catch (error) {
    working?.then(abandon, () => {});
    throw error;
  } finally {
    clock.clear(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}

/**
 * Runs a step of the set-up on a transport. If the step fails, or is told to
 * stop, the transport is closed: that also ends what the step waits for.
 */
export async function orClose<T>(
  transport: Pick<Transport, "close">,
  signal: AbortSignal | undefined,
  step: () => Promise<T>,
): Promise<T> {
  const stop = () => closeQuietly(transport);
  signal?.addEventListener("abort", stop);
  try {
    signal?.throwIfAborted();
    const result = await step();
    signal?.throwIfAborted();
    return result;
  } catch (error) {
    stop();
    // If the signal closed the transport, the signal is the reason.
    throw signal?.aborted ? signal.reason : error;
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}
