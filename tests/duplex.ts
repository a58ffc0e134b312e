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

/** Sees each timer's time, and holds those of one time until the test fires them. */
export function watchTimers(holds?: number) {
  const { setTimeout, clearTimeout } = globalThis;
  const times: number[] = [];
  const held = new Map<unknown, () => void>();
  globalThis.setTimeout = ((callback: () => void, time: number) => {
    times.push(time);
    if (time !== holds) return setTimeout(callback, time);
    const timer = {};
    held.set(timer, callback);
    return timer;
  }) as typeof setTimeout;
  globalThis.clearTimeout = (timer) => {
    if (!held.delete(timer)) clearTimeout(timer);
  };
  return {
    times,
    /** How many are held that have not been cleared. */
    get count(): number {
      return held.size;
    },
    fire(): void {
      for (const [timer, callback] of [...held]) {
        held.delete(timer);
        callback();
      }
    },
    [Symbol.dispose]: () =>
      Object.assign(globalThis, { setTimeout, clearTimeout }),
  };
}

/** Sees WebCrypto's calls, which go on when nobody waits for them any more. */
export function watchCrypto() {
  const { subtle } = crypto;
  const { encrypt, decrypt } = subtle;
  const calls: Promise<ArrayBuffer>[] = [];
  const watched = (crypt: typeof encrypt): typeof encrypt => (...args) => {
    const call = crypt.apply(subtle, args);
    calls.push(call);
    return call;
  };
  Object.assign(subtle, {
    encrypt: watched(encrypt),
    decrypt: watched(decrypt),
  });
  return {
    /** Resolves when all that have begun are over. */
    over: () => Promise.allSettled(calls),
    [Symbol.dispose]: () => Object.assign(subtle, { encrypt, decrypt }),
  };
}
