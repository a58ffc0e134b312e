/**
 * The platform's own WebSocket as what a channel runs over: a browser's, or a
 * runtime's.
 *
 * @module
 */

import { CLOCK } from "./lock/clock.ts";
import { closedFor } from "./carrier/close_codes.ts";
import { ChannelError } from "./lock/errors.ts";
import { withQuietResolvers } from "./lock/runtime.ts";

/** How far a page may fall behind its WebSocket by default, in bytes. */
const MAX_BUFFERED = 16 * 1024 * 1024;

/** A write waits while more than this is not sent yet, in bytes. */
const HIGH_WATER_MARK = 1024 * 1024;

/** No event says that data was sent: how often to look, in milliseconds. */
const POLL_INTERVAL = 5;

/** The close code of an end that was meant (RFC 6455, section 7.4.1). */
const NORMAL_CLOSURE = 1000;

/** What stands for a Close without a code, and for none at all (in Deno, 0). */
const NO_CODES = [1005, 1006];

/** Of `readyState`. */
const OPEN = 1;

/** The part of a `WebSocket` that {@linkcode webSocketPair} uses. */
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
   * How many received bytes may wait to be read. If more come, the WebSocket is
   * closed.
   *
   * @default {16777216}
   */
  maxBuffered?: number;
}

/**
 * Makes a pair of streams from a WebSocket, for {@linkcode connectChannel} in a
 * browser. The WebSocket may still be connecting: the first write waits for it.
 *
 * A platform's WebSocket has limits that no code above it can lift:
 *
 * - It cannot slow the peer down. Unread data stays in memory, up to
 *   `maxBuffered`; beyond that, both streams fail with `limit`.
 * - It delivers messages whole, so a message that is too long uses its memory
 *   before it can be refused. Do not run a server on this where anybody may
 *   connect.
 * - It does not say why it could not connect.
 *
 * A text message is an error, and so is a Close whose code tells of a fault. If
 * the peer closes otherwise, or the connection breaks, `readable` ends; a channel
 * on top takes that for a cut, unless the channel had ended.
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
 * @throws {ChannelError} Both streams fail, with `cut` if the WebSocket cannot be
 * opened or is closed for a fault, `protocol` if a text message comes, `limit` if too much does.
 */
export function webSocketPair(
  socket: WebSocketLike,
  { maxBuffered = MAX_BUFFERED }: WebSocketPairOptions = {},
): {
  readable: ReadableStream<Uint8Array>;
  writable: WritableStream<Uint8Array<ArrayBuffer>>;
} {
  socket.binaryType = "arraybuffer";
  const opened = withQuietResolvers<void>();
  let isOpen = false;
  const open = () => {
    isOpen = true;
    opened.resolve();
  };
  if (socket.readyState === OPEN) open();
  else if (socket.readyState > OPEN) opened.reject(failed());
  socket.addEventListener("open", open);

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
      // A WebSocket that is closing drops data silently.
      if (socket.readyState !== OPEN) {
        throw new ChannelError("cut", "The WebSocket is closed");
      }
      // A view of shared memory, which this is not, could not be sent.
      socket.send(chunk as Uint8Array<ArrayBuffer>);
      while (socket.bufferedAmount > HIGH_WATER_MARK && !isOver) {
        await new Promise<void>((resolve) =>
          CLOCK.after(POLL_INTERVAL, resolve)
        );
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
  // Of one that was open, the close that follows says more.
  socket.addEventListener("error", () => {
    if (!isOpen) fail(failed());
  });
  socket.addEventListener("close", (event) => {
    const { code = 0, reason = "" } = event as Partial<CloseEvent>;
    const isFault = code > NORMAL_CLOSURE && !NO_CODES.includes(code);
    if (isFault && isOpen) fail(closedFor(code, reason));
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
