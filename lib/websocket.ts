/**
 * The platform's own WebSocket as what a channel runs over: a browser's, or a
 * runtime's.
 *
 * @module
 */

import { ChannelError } from "./errors.ts";
import type { StreamPair } from "./transport.ts";

/** What a page may fall behind its WebSocket, unless told otherwise, in bytes. */
const MAX_BUFFERED = 16 * 1024 * 1024;

/** With so much not sent yet, a write waits, in bytes. */
const HIGH_WATER_MARK = 1024 * 1024;

/** No event tells that it was sent: one looks so often, in milliseconds. */
const POLL_INTERVAL = 5;

/** The close code of an end that was meant (RFC 6455, section 7.4.1). */
const NORMAL_CLOSURE = 1000;

/** Of `readyState`. */
const OPEN = 1;

/** What of a `WebSocket` {@linkcode webSocketPair} uses. */
export interface WebSocketLike {
  /** How binary messages are given; it is set to `arraybuffer`. */
  binaryType: string;
  /** 0 connecting, 1 open, 2 closing, 3 closed. */
  readonly readyState: number;
  /** How much is not sent yet, in bytes. */
  readonly bufferedAmount: number;
  /** Sends a binary message. */
  send(data: Uint8Array<ArrayBuffer>): void;
  /** Begins the closing handshake. */
  close(code?: number): void;
  /** Registers for an event. */
  addEventListener(
    type: "open" | "message" | "error" | "close",
    listener: (event: Event) => void,
  ): void;
}

/** What {@linkcode webSocketPair} takes. */
export interface WebSocketPairOptions {
  /**
   * How much may have come and not been read, in bytes. If more comes, the
   * WebSocket is closed.
   *
   * @default {16777216}
   */
  maxBuffered?: number;
}

/**
 * Makes streams of a WebSocket, for {@linkcode connectChannel} in a browser. It
 * may be connecting still: the first write waits for it.
 *
 * A platform's WebSocket has limits that no code above it can lift:
 *
 * - It cannot slow the peer down. What comes and is not read stays in memory, up
 *   to `maxBuffered`; beyond that both streams fail with `limit`.
 * - A message comes whole. Of one that is too long its memory is used before
 *   anything can be said against it: run no server on this, where anybody may
 *   connect.
 * - It does not tell why it could not connect.
 *
 * A text message is an error. A close by the peer is the end of `readable`, and
 * what a channel on top makes of it is a cut, unless the channel had ended.
 *
 * @example Connect from a page
 * ```ts
 * import { connectChannel } from "@innerlock/innerlock";
 * import { webSocketPair } from "@innerlock/innerlock/websocket";
 *
 * export async function connectFromPage(psk: string) {
 *   const socket = new WebSocket("wss://server.example/innerlock");
 *   return await connectChannel(webSocketPair(socket), { psk });
 * }
 * ```
 *
 * @throws {ChannelError} Both streams fail, with `cut` if the WebSocket fails,
 * `protocol` if a text message comes, `limit` if too much does.
 */
export function webSocketPair(
  socket: WebSocketLike,
  { maxBuffered = MAX_BUFFERED }: WebSocketPairOptions = {},
): StreamPair {
  socket.binaryType = "arraybuffer";
  const opened = Promise.withResolvers<void>();
  opened.promise.catch(() => {});
  if (socket.readyState === OPEN) opened.resolve();
  else if (socket.readyState > OPEN) opened.reject(failed());
  socket.addEventListener("open", () => opened.resolve());

  let reading: ReadableStreamDefaultController<Uint8Array>;
  let writing: WritableStreamDefaultController;
  let isOver = false;
  const fail = (error: ChannelError) => {
    if (isOver) return;
    isOver = true;
    reading.error(error);
    writing.error(error);
    opened.reject(error);
    socket.close();
  };

  const readable = new ReadableStream<Uint8Array>({
    start: (controller) => {
      reading = controller;
    },
    cancel: () => fail(new ChannelError("aborted", "The reader cancelled")),
  }, new ByteLengthQueuingStrategy({ highWaterMark: maxBuffered }));

  const writable = new WritableStream<Uint8Array>({
    start: (controller) => {
      writing = controller;
    },
    write: async (chunk) => {
      await opened.promise;
      // What is given to one that is closing is dropped without a word.
      if (socket.readyState !== OPEN) {
        throw new ChannelError("cut", "The WebSocket is closed");
      }
      // A view of shared memory, which this is not, could not be sent.
      socket.send(chunk as Uint8Array<ArrayBuffer>);
      while (socket.bufferedAmount > HIGH_WATER_MARK && !isOver) {
        await new Promise((resolve) => setTimeout(resolve, POLL_INTERVAL));
      }
    },
    close: async () => {
      await opened.promise;
      socket.close(NORMAL_CLOSURE);
    },
    abort: () => fail(new ChannelError("aborted", "The writer aborted")),
  });

  socket.addEventListener("message", (event) => {
    const { data } = event as MessageEvent;
    if (isOver) return;
    if (!(data instanceof ArrayBuffer)) {
      fail(new ChannelError("protocol", "The peer sent a text message"));
      return;
    }
    if (data.byteLength > (reading.desiredSize ?? 0)) {
      const what = `more than ${maxBuffered} bytes that nobody has read`;
      fail(new ChannelError("limit", `The peer sent ${what}`));
      return;
    }
    if (data.byteLength > 0) reading.enqueue(new Uint8Array(data));
  });
  socket.addEventListener("error", () => fail(failed()));
  socket.addEventListener("close", () => {
    if (isOver) return;
    isOver = true;
    opened.reject(failed());
    reading.close();
    writing.error(new ChannelError("cut", "The WebSocket is closed"));
  });
  return { readable, writable };
}

function failed(): ChannelError {
  return new ChannelError("cut", "The WebSocket failed");
}
