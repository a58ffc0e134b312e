/**
 * What a channel runs over: any reliable, ordered pair of byte streams.
 *
 * @module
 */

/**
 * One end of a connection, with the methods of `Deno.Conn` that a channel uses: a `Deno.TlsConn` or a
 * `Deno.TcpConn` is one as it stands.
 */
export interface Transport {
  /**
   * Reads up to `p.length` bytes into `p`. Gives their number, or null at the
   * end.
   */
  read(p: Uint8Array): Promise<number | null>;
  /**
   * Writes some of `p`, and does not keep it. Gives the number of bytes written.
   */
  write(p: Uint8Array): Promise<number>;
  /** Ends this side's direction; the other may go on. */
  closeWrite(): Promise<void>;
  /** Closes both directions at once. */
  close(): void;
  /** The peer's address, where there is one. */
  readonly remoteAddr?: Addr;
  /** This side's address, where there is one. */
  readonly localAddr?: Addr;
}

/** An address, in the shape of `Deno.Addr`. */
export interface Addr {
  /** `tcp`, `unix` and the like. */
  readonly transport: string;
  /** The IP address, if there is a port. */
  readonly hostname?: string;
  /** The port. */
  readonly port?: number;
  /** The path, if it is a Unix socket. */
  readonly path?: string | null;
}

/**
 * A pair of Web streams, such as those of a `WebSocketStream` or of two
 * `TransformStream`s. What is read must be bytes: text is an error.
 */
export interface StreamPair {
  /** What the peer sends. */
  readonly readable: { getReader(): StreamReader };
  /** What goes to the peer. */
  readonly writable: { getWriter(): StreamWriter };
}

/**
 * What is used of a `ReadableStreamDefaultReader`: a platform's own, or one that
 * `node:stream/web` has made.
 */
export interface StreamReader {
  /** Gives the next chunk. */
  read(): Promise<{ done: boolean; value?: unknown }>;
  /** Wants no more. */
  cancel(reason?: unknown): Promise<void>;
}

/** What is used of a `WritableStreamDefaultWriter`. */
export interface StreamWriter {
  /** Resolves when the stream takes more. */
  write(chunk: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Ends the stream. */
  close(): Promise<void>;
  /** Gives the stream up. */
  abort(reason?: unknown): Promise<void>;
}

/**
 * Makes a {@linkcode Transport} of either; one passes through as it is.
 *
 * @throws {TypeError} If it is neither, such as a socket of Node's.
 */
export function toTransport(duplex: Transport | StreamPair): Transport {
  if ("pipe" in duplex) {
    throw new TypeError(
      "A stream of Node's is no transport: wrap it with Duplex.toWeb() of " +
        "node:stream",
    );
  }
  if ("read" in duplex) return duplex;
  if (duplex.readable && duplex.writable) return new StreamTransport(duplex);
  throw new TypeError("A transport has read() and write(), or two streams");
}

class StreamTransport implements Transport {
  readonly #reader: StreamReader;
  readonly #writer: StreamWriter;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(pair: StreamPair) {
    this.#reader = pair.readable.getReader();
    this.#writer = pair.writable.getWriter();
  }

  async read(p: Uint8Array): Promise<number | null> {
    while (this.#rest.length === 0) {
      const { done, value } = await this.#reader.read();
      if (done) return null;
      this.#rest = toBytes(value);
    }
    const part = this.#rest.subarray(0, p.length);
    p.set(part);
    this.#rest = this.#rest.subarray(part.length);
    return part.length;
  }

  async write(p: Uint8Array): Promise<number> {
    // The stream may keep what it is given; `p` is the caller's again.
    await this.#writer.write(new Uint8Array(p));
    return p.length;
  }

  async closeWrite(): Promise<void> {
    await this.#writer.close();
  }

  close(): void {
    this.#reader.cancel().catch(() => {});
    this.#writer.abort().catch(() => {});
  }
}

/**
 * The bytes of any `BufferSource`, not copied.
 *
 * @throws {TypeError} If it is something else, or its bytes have been
 * transferred.
 */
export function toBytes(source: unknown): Uint8Array {
  try {
    // A buffer of another realm, such as a frame's, is one here too.
    const { buffer, byteOffset, byteLength } = ArrayBuffer.isView(source)
      ? source
      : new DataView(source as ArrayBuffer);
    return new Uint8Array(buffer, byteOffset, byteLength);
  } catch (cause) {
    const what = source === null ? "null" : typeof source;
    const message = `Cannot use ${what}: only bytes make a stream`;
    throw new TypeError(message, { cause });
  }
}

/** Writes all of `p`: a `Deno.Conn` may take a part. */
export async function writeAll(
  transport: Pick<Transport, "write">,
  p: Uint8Array,
): Promise<void> {
  while (p.length > 0) {
    const count = await transport.write(p);
    if (count === p.length) return;
    p = p.subarray(count);
  }
}

/** Closes a transport that may be closed already. */
export function closeQuietly(transport: Pick<Transport, "close">): void {
  try {
    transport.close();
  } catch {
    // It was.
  }
}
