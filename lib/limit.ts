/**
 * The time limit of a set-up, and its cancellation.
 *
 * @module
 */

import { ChannelError } from "./errors.ts";

/** A handshake that takes longer has failed, in milliseconds. */
export const HANDSHAKE_TIMEOUT = 10_000;

/**
 * Runs a part of the set-up within the handshake's time limit and signal.
 *
 * @param work Is given a signal that tells it to stop, and is not waited for
 * once it has been told.
 */
export async function withLimit<T>(
  options: { handshakeTimeout?: number; signal?: AbortSignal },
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { handshakeTimeout = HANDSHAKE_TIMEOUT, signal } = options;
  signal?.throwIfAborted();
  const limit = new AbortController();
  const aborted = Promise.withResolvers<never>();
  limit.signal.addEventListener(
    "abort",
    () => aborted.reject(limit.signal.reason),
  );
  const onAbort = () => limit.abort(signal!.reason);
  signal?.addEventListener("abort", onAbort);
  const timer = setTimeout(() => {
    const seconds = handshakeTimeout / 1000;
    limit.abort(
      new ChannelError(
        "timeout",
        `The peer did not finish the handshake within ${seconds} s`,
      ),
    );
  }, handshakeTimeout);
  try {
    return await Promise.race([work(limit.signal), aborted.promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}
