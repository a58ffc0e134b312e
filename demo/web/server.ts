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
import type { ServerReport } from "./events.ts";

type Tell = (report: ServerReport) => void;

/**
 * Serves one connection.
 *
 * @param psks Whose keys open the inner lock; null to do without it.
 */
export async function serve(
  pair: StreamPair,
  psks: PskMap | null,
  tell: Tell,
): Promise<void> {
  try {
    const stream: Stream = psks
      ? await acceptChannel(pair, { psk: psks })
      : withoutLock(pair);
    tell({ type: "accepted", identity: stream.identity ?? null });
    await upperCase(tapped(stream, tell), new AbortController().signal);
  } catch (error) {
    const code = error instanceof ChannelError ? error.code : "error";
    const message = error instanceof Error ? error.message : `${error}`;
    tell({ type: "failed", code, message });
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

/** The same stream; what passes its ends is told. */
function tapped(stream: Stream, tell: Tell): Channel {
  const answers = tap((text) => tell({ type: "answered", text }));
  const closed = answers.readable.pipeTo(stream.writable)
    .then(() => stream.closed);
  closed.catch(() => {
    // Whoever reads or writes is told, too.
  });
  const got = tap(
    (text) => tell({ type: "got", text }),
    () => tell({ type: "ended" }),
  );
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
