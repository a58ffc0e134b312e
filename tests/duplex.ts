/** In-memory connections for tests, whole or split as the test wants. */

import type { StreamPair } from "../lib/mod.ts";

export const KEY = "0f".repeat(32);
export const PSK = `default:${KEY}\nalice:${"a1".repeat(32)}\n`;

type Chunk = Uint8Array<ArrayBuffer>;

/** What a wire does to the bytes that pass, chunk by chunk. */
export type Wire = (chunk: Chunk) => Iterable<Chunk>;

export const whole: Wire = (chunk) => [chunk];

/** Cuts each chunk into pieces of `size` bytes. */
export function pieces(size: number): Wire {
  return function* (chunk) {
    for (let i = 0; i < chunk.length; i += size) {
      yield chunk.slice(i, i + size);
    }
  };
}

/** The two ends of a connection. */
export function duplex(
  up: Wire = whole,
  down: Wire = whole,
): [StreamPair, StreamPair] {
  const stream = (wire: Wire) =>
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        for (const piece of wire(chunk.slice())) controller.enqueue(piece);
      },
    });
  const [toServer, toClient] = [stream(up), stream(down)];
  return [
    { readable: toClient.readable, writable: toServer.writable },
    { readable: toServer.readable, writable: toClient.writable },
  ];
}

/** A raw peer: says what a test wants, frame by frame or not at all. */
export class RawPeer {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  #buffer: number[] = [];

  constructor(pair: StreamPair) {
    this.#reader = pair.readable.getReader();
    this.#writer = pair.writable.getWriter();
    this.#writer.closed.catch(() => {});
    this.#reader.closed.catch(() => {});
  }

  /** The next frame's bytes; undefined once the other side has closed. */
  async readFrame(): Promise<Chunk | undefined> {
    const header = await this.#take(2);
    return header && await this.#take(header[0]! << 8 | header[1]!);
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#writer.write(bytes);
  }

  async close(): Promise<void> {
    await this.#writer.close();
  }

  async #take(length: number): Promise<Chunk | undefined> {
    while (this.#buffer.length < length) {
      try {
        const { done, value } = await this.#reader.read();
        if (done) return undefined;
        for (const byte of value) this.#buffer.push(byte);
      } catch {
        return undefined;
      }
    }
    return new Uint8Array(this.#buffer.splice(0, length));
  }
}

/** Sees each timer's time, and holds those of one time for the test to fire. */
export function watchTimers(holds?: number) {
  const { setTimeout } = globalThis;
  const times: number[] = [];
  const held: (() => void)[] = [];
  globalThis.setTimeout = ((callback: () => void, time: number) => {
    times.push(time);
    if (time !== holds) return setTimeout(callback, time);
    held.push(callback);
    return 0;
  }) as typeof setTimeout;
  return {
    times,
    held,
    [Symbol.dispose]: () => {
      globalThis.setTimeout = setTimeout;
    },
  };
}
