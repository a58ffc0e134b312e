/**
 * The server behind the box: it sends text back in upper case, and tells what it
 * got.
 *
 * @module
 */

import { upperCase } from "../../handlers/upper_case.ts";
import {
  acceptChannel,
  type Channel,
  ChannelError,
  type PskMap,
  type StreamPair,
} from "../../lib/mod.ts";

/** Whoever watches the server. */
export interface Watcher {
  /** A client is taken, by this identity if there was a proof. */
  accepted(identity: string | null): void;
  got(text: string): void;
  answered(text: string): void;
  /** The client has said all, as far as the server knows. */
  ended(): void;
  failed(code: string, message: string): void;
}

/**
 * Serves one connection.
 *
 * @param psks Whose keys open the inner lock; null to do without it.
 */
export async function serve(
  pair: StreamPair,
  psks: PskMap | null,
  watcher: Watcher,
): Promise<void> {
  try {
    const stream: Stream = psks
      ? await acceptChannel(pair, { psk: psks })
      : withoutLock(pair);
    watcher.accepted(stream.identity ?? null);
    await upperCase(tapped(stream, watcher), new AbortController().signal);
  } catch (error) {
    const code = error instanceof ChannelError ? error.code : "error";
    watcher.failed(code, error instanceof Error ? error.message : `${error}`);
  }
}

/** What the handler uses of a channel. */
type Stream =
  & Pick<Channel, "readable" | "writable" | "closed">
  & Partial<Pick<Channel, "identity">>;

function withoutLock({ readable, writable }: StreamPair): Stream {
  return {
    readable: readable as Channel["readable"],
    writable: writable as Channel["writable"],
    closed: Promise.resolve(),
  };
}

/** The same stream, with the watcher at both its ends. */
function tapped(stream: Stream, watcher: Watcher): Channel {
  const answers = tap((text) => watcher.answered(text));
  const closed = answers.readable.pipeTo(stream.writable)
    .then(() => stream.closed);
  closed.catch(() => {
    // Whoever reads or writes is told, too.
  });
  const got = tap((text) => watcher.got(text), () => watcher.ended());
  return {
    readable: stream.readable.pipeThrough(got),
    writable: answers.writable,
    closed,
  } as Stream as Channel;
}

function tap(show: (text: string) => void, end?: () => void) {
  const decoder = new TextDecoder();
  return new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
    transform(chunk, controller) {
      show(decoder.decode(chunk, { stream: true }));
      controller.enqueue(chunk);
    },
    flush: () => end?.(),
  });
}
