/** In-memory connections for tests, whole or split as the test wants. */

export const KEY = "0f".repeat(32);
export const PSK = `default:${KEY}\nalice:${"a1".repeat(32)}\n`;

type Chunk = Uint8Array<ArrayBuffer>;

/** A `StreamPair` whose chunks are bytes. */
export interface End {
  readonly readable: ReadableStream<Chunk>;
  readonly writable: WritableStream<Chunk>;
}

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
): [End, End] {
  const stream = (wire: Wire) =>
    new TransformStream<Chunk, Chunk>({
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
