/**
 * A secure channel over any duplex: the inner lock.
 *
 * @module
 */

import { orClose, withDeadline } from "./deadline.ts";
import { ChannelError } from "./errors.ts";
import { type HandshakeResult, initiate, respond } from "./handshake.ts";
import { type PskMap, pskOf, serviceOf, toPskMap } from "./psk.ts";
import { type Role, Session } from "./session.ts";
import { type FrameTrace, Tracer } from "./trace.ts";
import {
  type Addr,
  type StreamPair,
  toBytes,
  toTransport,
  type Transport,
} from "./transport.ts";

/** What both sides of a channel take. */
export interface ChannelOptions {
  /** The text of a key file, or what {@linkcode parsePsk} made of it. */
  psk: string | PskMap;
  /** A time limit for the whole handshake, in milliseconds. @default {10000} */
  handshakeTimeout?: number;
  /**
   * A peer that has been silent for so long is pinged, and one that stays silent
   * for as long again is given up, in milliseconds; 0 for never. So is one that
   * does not close after both ends, whatever this says: at the latest after 144
   * times as long, even if it pings.
   *
   * @default {25000}
   */
  idleTimeout?: number;
  /** Gives the handshake up, and the transport with it. */
  signal?: AbortSignal;
  /**
   * Is shown each frame, plaintext included: to learn, not to log. What it throws
   * ends nothing: it becomes an `error` event of `globalThis`, where the runtime
   * has `ErrorEvent` (browsers, Deno).
   */
  trace?: (frame: FrameTrace) => void;
}

/** What the client's side of a channel takes. */
export interface ClientOptions extends ChannelOptions {
  /**
   * Whose key to use. What follows the last `@` is the service that the server
   * is asked for: `alice@db`.
   *
   * @default {"default"}
   */
  identity?: string;
  /**
   * Leaves the stream to begin at {@linkcode Channel.open}: until then the server
   * hands the channel to nobody, and keeps it proved and idle.
   *
   * @default {false}
   */
  standby?: boolean;
}

/**
 * Makes a channel as the client, over a transport that is connected.
 *
 * Whatever happens, the transport now belongs to the channel. The server's
 * possession of the key is proved when this resolves.
 *
 * @example Both sides, without a network
 * ```ts
 * import { acceptChannel, connectChannel } from "@innerlock/innerlock";
 *
 * const psk = `default:${"0f".repeat(32)}`;
 * const up = new TransformStream<Uint8Array, Uint8Array>();
 * const down = new TransformStream<Uint8Array, Uint8Array>();
 * const [client, server] = await Promise.all([
 *   connectChannel({ readable: down.readable, writable: up.writable }, { psk }),
 *   acceptChannel({ readable: up.readable, writable: down.writable }, { psk }),
 * ]);
 * server.readable.pipeTo(server.writable);
 * const writer = client.writable.getWriter();
 * writer.write(new TextEncoder().encode("hello"));
 * writer.close();
 * const reply = await new Response(client.readable).text();
 * if (reply !== "hello") throw new Error(reply);
 * ```
 *
 * @throws {ChannelError} `refused`, `protocol`, `cut` or `timeout`.
 * @throws {TypeError} If the key file has no such identity.
 * @throws {SyntaxError} If the key file's text is malformed.
 */
export async function connectChannel(
  duplex: Transport | StreamPair,
  options: ClientOptions,
): Promise<Channel> {
  const transport = toTransport(duplex);
  return await withDeadline(
    options,
    (signal) => initiateChannel(transport, options, signal),
    (late) => late.abort(),
  );
}

/** {@linkcode connectChannel} without a deadline of its own. */
export async function initiateChannel(
  transport: Transport,
  options: ClientOptions,
  signal?: AbortSignal,
): Promise<Channel> {
  const { identity = "default", psk } = options;
  return await shakeHands(
    transport,
    options,
    "client",
    // Not before all that closes the transport stands.
    async (tracer) =>
      await initiate(transport, pskOf(identity, psk), identity, tracer),
    signal,
  );
}

/**
 * Makes a channel as the server, over a transport that has been accepted.
 *
 * Whatever happens, the transport now belongs to the channel. The client's
 * possession of the key, and that it is there now, are proved when this
 * resolves, and its stream has begun. {@linkcode connectChannel} has an example.
 *
 * A client may prove itself and keep the stream in reserve. The time limit is
 * for the proof; the signal gives up the wait for the stream too.
 *
 * @throws {ChannelError} `refused`, `protocol`, `cut` or `timeout`.
 * @throws {SyntaxError} If the key file's text is malformed.
 * @throws {DOMException} `AbortError`, or the signal's reason, once it is given.
 */
export async function acceptChannel(
  duplex: Transport | StreamPair,
  options: ChannelOptions,
): Promise<Channel> {
  const transport = toTransport(duplex);
  const channel = await withDeadline(
    options,
    (signal) => respondChannel(transport, options, signal),
    (late) => late.abort(),
  );
  const { signal } = options;
  const close = () => channel.abort(signal?.reason);
  await orClose({ close }, signal, () => channel.opened);
  return channel;
}

/**
 * {@linkcode acceptChannel} without a deadline of its own, up to the proof: the
 * stream begins when `opened` resolves.
 */
export async function respondChannel(
  transport: Transport,
  options: ChannelOptions & { remoteAddr?: Addr },
  signal?: AbortSignal,
): Promise<Channel> {
  return await shakeHands(
    transport,
    options,
    "server",
    async (tracer) => await respond(transport, toPskMap(options.psk), tracer),
    signal,
  );
}

async function shakeHands(
  transport: Transport,
  options: ChannelOptions & { remoteAddr?: Addr; standby?: boolean },
  role: Role,
  handshake: (tracer: Tracer) => Promise<HandshakeResult>,
  signal?: AbortSignal,
): Promise<Channel> {
  return await orClose(transport, signal, async () => {
    const result = await handshake(new Tracer(options.trace));
    const { idleTimeout, standby = false } = options;
    const session = new Session(transport, result, role, idleTimeout);
    // In the same turn, so that it shares the write of the client's ping.
    if (role === "client" && !standby) session.open();
    return new Channel({ ...addrsOf(transport), ...options }, session, result);
  });
}

function addrsOf({ remoteAddr, localAddr }: Transport) {
  return {
    ...(remoteAddr && { remoteAddr }),
    ...(localAddr && { localAddr }),
  };
}

/** How much a read of `readable` asks for, in bytes, as Deno's own do. */
const CHUNK_LENGTH = 65_536;

/**
 * A duplex stream of bytes to a peer that holds the same key, in the shape of
 * `Deno.Conn`. It can carry another channel.
 *
 * Each direction ends by itself: `closeWrite()`, or `writable.close()`, tells the
 * peer, authentically, that there is no more; `read()` gives null, and `readable`
 * ends, only when the peer has said so. A connection that closes otherwise is an
 * error in both directions, never an end. After both ends the connection is
 * closed.
 *
 * Errors are {@linkcode ChannelError}s, the first failure for every caller:
 * `cut`, `protocol`, `timeout`, `aborted`, or what {@linkcode Channel.abort} was
 * given.
 */
export class Channel implements Transport, AsyncDisposable {
  /** Whose key the two sides share, and the service: `alice`, `alice@db`. */
  readonly identity: string;

  /** The service that the client asks for: what follows the last `@`, if any. */
  readonly service: string | undefined;

  /**
   * The hash of all that the handshake said, 32 bytes: the same on both sides
   * and unique to this channel (Noise specification, section 11.2).
   */
  readonly handshakeHash: Uint8Array;

  /** The peer's address, if the transport has one. */
  declare readonly remoteAddr: Addr;

  /** This side's address, if the transport has one. */
  declare readonly localAddr: Addr;

  /**
   * Resolves when both directions have ended and the connection is closed.
   * Rejects with what ended the channel otherwise.
   */
  readonly closed: Promise<void>;

  /** Resolves when the stream has begun. @ignore */
  readonly opened: Promise<void>;

  readonly #session: Session;
  #readable: ReadableStream<Uint8Array<ArrayBuffer>> | undefined;
  #writable: WritableStream<ArrayBufferLike | ArrayBufferView> | undefined;

  /** For {@linkcode connectChannel} and {@linkcode acceptChannel}. @ignore */
  constructor(
    { remoteAddr, localAddr }: Pick<Transport, "remoteAddr" | "localAddr">,
    session: Session,
    { identity, handshakeHash }: HandshakeResult,
  ) {
    this.identity = identity;
    this.service = serviceOf(identity);
    this.handshakeHash = handshakeHash;
    if (remoteAddr) this.remoteAddr = remoteAddr;
    if (localAddr) this.localAddr = localAddr;
    this.#session = session;
    this.closed = session.closed;
    this.opened = session.opened;
  }

  /** How many bytes of data this side has sent, queued ones included. */
  get bytesSent(): number {
    return this.#session.bytesSent;
  }

  /** How many bytes of data have been received and read. */
  get bytesReceived(): number {
    return this.#session.bytesReceived;
  }

  /**
   * Begins the stream of a channel that was made with `standby`. To write begins
   * it too; once it has begun this does nothing.
   *
   * @throws {ChannelError} If the channel has failed meanwhile.
   */
  // deno-lint-ignore require-await -- What it throws, it rejects with.
  async open(): Promise<void> {
    this.#session.open();
  }

  /**
   * Reads up to `p.length` bytes into `p`; their number, or null once the peer
   * has ended its direction. Bounds carry no meaning. Whoever reads slowly slows
   * the peer down: at most 8 frames, 512 KiB, are held.
   *
   * @throws {ChannelError} If the channel fails.
   * @throws {TypeError} If another read is under way.
   */
  read(p: Uint8Array): Promise<number | null> {
    return this.#session.read(p);
  }

  /**
   * Writes all of `p`, any `BufferSource`, which is the caller's again when this
   * resolves; its length in bytes. It resolves when all has been taken: about
   * 600 KiB wait at most.
   *
   * @throws {ChannelError} If the channel fails.
   * @throws {TypeError} If `p` is something else, which also fails the channel; or
   * after `closeWrite()`.
   */
  write(p: ArrayBufferLike | ArrayBufferView): Promise<number> {
    let bytes: Uint8Array;
    try {
      bytes = toBytes(p);
    } catch (error) {
      this.abort(error);
      return Promise.reject(error);
    }
    return this.#session.write(bytes);
  }

  /**
   * Tells the peer that there is no more. It resolves when all is written; the
   * other direction may go on.
   *
   * @throws {ChannelError} If the channel fails.
   * @throws {TypeError} If it has been called before.
   */
  closeWrite(): Promise<void> {
    return this.#session.closeWrite();
  }

  /**
   * Closes both directions. Where both have ended nothing is lost; what has not
   * is cut, with an error of code `aborted` on this side.
   */
  close(): void {
    this.#session.close();
  }

  /**
   * Gives the channel up: closes the connection without an end, which the peer
   * sees as a cut. Nothing if it is closed.
   *
   * @param reason What both directions fail with, as with
   * `AbortController.abort()`; by default a {@linkcode ChannelError} `aborted`.
   */
  abort(reason: unknown = aborted("The channel was aborted")): void {
    this.#session.abort(reason);
  }

  /**
   * What the peer sends, as a byte stream over {@linkcode Channel.read}: it reads
   * on demand, and a reader may bring its own buffer (`getReader({ mode: "byob"
   * })`), which leaves nothing for the collector. Cancelling it gives the whole
   * channel up.
   */
  get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#readable ??= new ReadableStream({
      type: "bytes",
      autoAllocateChunkSize: CHUNK_LENGTH,
      start: (controller) => {
        this.closed.catch((error) => controller.error(error));
      },
      pull: async (controller) => {
        const request = controller.byobRequest!;
        const { buffer, byteOffset, byteLength } = request.view!;
        const count = await this.read(
          new Uint8Array(buffer, byteOffset, byteLength),
        );
        if (count === null) controller.close();
        request.respond(count ?? 0);
      },
      cancel: (cause) =>
        this.abort(aborted("The reader cancelled the stream", cause)),
    }, { highWaterMark: 0 });
  }

  /**
   * What goes to the peer, over {@linkcode Channel.write}: any `BufferSource`.
   * `close()` says the end; aborting it gives the whole channel up.
   */
  get writable(): WritableStream<ArrayBufferLike | ArrayBufferView> {
    return this.#writable ??= new WritableStream({
      start: (controller) => {
        this.closed.catch((error) => controller.error(error));
      },
      write: async (chunk) => {
        await this.write(chunk);
      },
      close: () => this.closeWrite(),
      abort: (cause) =>
        this.abort(aborted("The writer aborted the stream", cause)),
    });
  }

  /**
   * Waits for a channel that both sides have ended to close; aborts any other,
   * so that a block that was left early is never taken for a clean end.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#session.haveBothEnded) this.abort();
    await this.closed.catch(() => {});
  }
}

function aborted(message: string, cause?: unknown): ChannelError {
  return new ChannelError("aborted", message, { cause });
}
