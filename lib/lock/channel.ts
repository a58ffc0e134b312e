/**
 * A secure channel over any duplex: the inner lock.
 *
 * @module
 */

import type { Engine } from "./aes_gcm.ts";
import type { Clock } from "./clock.ts";
import { orClose, withDeadline } from "./deadline.ts";
import { ChannelError } from "./errors.ts";
import { type HandshakeResult, initiate, respond } from "./handshake.ts";
import { type PskMap, pskOf, takePsks } from "./psk.ts";
import { nextTurn } from "./runtime.ts";
import { aborted, type Role, Session } from "./session.ts";
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
  /**
   * The text of a key file, or each identity's key. A map is checked and copied
   * at once: whoever made it may wipe it then.
   */
  psk: string | PskMap;
  /** A time limit for the whole handshake, in milliseconds. @default {10000} */
  handshakeTimeout?: number;
  /**
   * A peer that has been silent for this long is pinged, and given up after as
   * long again, in milliseconds; 0 for never.
   *
   * After both ends, a peer that does not close is given up too: after twice
   * this time if it is silent, and after 144 times if it pings. With 0, the
   * default counts for that.
   *
   * @default {25000}
   */
  idleTimeout?: number;
  /** Cancels the handshake, and closes the transport. */
  signal?: AbortSignal | undefined;
  /** What encrypts the channel. @default WebCrypto */
  engine?: Engine;
  /**
   * Gets each frame, plaintext included: to learn, not to log. If it throws, the
   * channel goes on, and `globalThis` gets an `error` event where the runtime
   * has `ErrorEvent` (browsers, Deno).
   */
  trace?: (frame: FrameTrace) => void;
}

/** What the client's side of a channel takes. */
export interface ClientOptions extends ChannelOptions {
  /**
   * Whose key to use, and after an `@` the service to ask for: `alice@db`. The
   * key is that of `alice@db` if there is one, otherwise that of `alice`.
   *
   * @default {"default"}
   */
  identity?: string;
  /**
   * Begins the stream only at {@linkcode Channel.open}. Until then, the server
   * keeps the channel proved and idle, and hands it to nobody.
   *
   * @default {false}
   */
  standby?: boolean;
  /**
   * Leaves it to the server to begin the stream: the channel serves what the
   * server's side calls. {@linkcode Channel.opened} resolves when it does. A
   * server that wants no such offer gives the channel up with `service`.
   *
   * @default {false}
   */
  offer?: boolean;
}

/**
 * Makes a channel as the client, over a connected transport.
 *
 * Whatever happens, the transport now belongs to the channel. When this
 * resolves, the server has proved that it holds the key.
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
 * @throws {UnansweredError} `refused` if the server closes instead of answering.
 * @throws {TypeError} Before anything is sent, if the identity is none or has no
 * key, or if a key is no `Uint8Array`.
 * @throws {RangeError} If a key does not have exactly 32 bytes.
 * @throws {SyntaxError} If the key file's text is malformed.
 */
export async function connectChannel(
  duplex: Transport | StreamPair,
  options: ClientOptions,
): Promise<Channel> {
  const transport = toTransport(duplex);
  return await withDeadline(
    options,
    (signal) => shakeHands(transport, "client", options, signal),
    (late) => late.abort(),
  );
}

/**
 * Makes a channel as the server, over an accepted transport.
 *
 * Whatever happens, the transport now belongs to the channel. When this
 * resolves, the client has proved that it holds the key and is there now, and
 * its stream has begun. {@linkcode connectChannel} has an example.
 *
 * A client may prove its key and begin the stream much later. The time limit
 * applies only to the proof; the signal also cancels the wait for the stream.
 *
 * @throws {ChannelError} `refused`, `protocol`, `cut` or `timeout`.
 * @throws {TypeError} If the psk has what is no identity, or a key that is no
 * `Uint8Array`.
 * @throws {RangeError} If a key does not have exactly 32 bytes.
 * @throws {SyntaxError} If the key file's text is malformed.
 * @throws {DOMException} `AbortError`, or the signal's reason, once it is
 * aborted.
 */
export async function acceptChannel(
  duplex: Transport | StreamPair,
  options: ChannelOptions,
): Promise<Channel> {
  const transport = toTransport(duplex);
  const channel = await withDeadline(
    options,
    (signal) => shakeHands(transport, "server", options, signal),
    (late) => late.abort(),
  );
  const { signal } = options;
  const close = () => channel.abort(signal?.reason);
  channel.offered.then(() => channel.abort(noOffer(channel)), () => {});
  await orClose({ close }, signal, () => channel.opened);
  return channel;
}

/** What the listener says in addition, and tests. */
interface SessionOptions {
  /** @default That of the transport. */
  remoteAddr?: Addr;
  clock?: Clock;
}

/**
 * The part of either side, without a deadline of its own. The server's resolves
 * once the key is proved: the stream begins when `opened` resolves.
 *
 * @internal
 */
export async function shakeHands(
  transport: Transport,
  role: Role,
  options: ClientOptions & SessionOptions,
  signal?: AbortSignal,
): Promise<SessionChannel> {
  return await orClose(transport, signal, async () => {
    const { identity = "default", psk, standby = false, offer = false } =
      options;
    const tracer = new Tracer(options.trace);
    const by = { engine: options.engine };
    // An unknown identity, too, must close the transport.
    const result = role === "client"
      ? await initiate(transport, pskOf(identity, psk), identity, tracer, by)
      : await respond(transport, takePsks(psk), tracer, by);
    const channel = new SessionChannel(transport, result, role, options);
    // What the caller writes first, before that, begins it all in one write.
    if (role === "client") {
      nextTurn().then(() => {
        if (offer) channel.offer();
        else if (standby) channel.prove();
        else channel.begin();
      }).catch(() => {});
    }
    return channel;
  });
}

/** How much a read of `readable` asks for, in bytes, as Deno's own do. */
const CHUNK_LENGTH = 65_536;

/**
 * A duplex stream of bytes to a peer that holds the same key. Its `read`, `write`,
 * `closeWrite` and `close` are as those of `Deno.Conn`, so it can carry another
 * channel.
 *
 * Each direction ends on its own. `closeWrite()` or `writable.close()` tells the
 * peer, authentically, that there is no more. `read()` gives null, and
 * `readable` ends, only when the peer has said so. A connection that closes
 * otherwise is an error in both directions, never an end. After both ends, the
 * connection closes.
 *
 * Errors are {@linkcode ChannelError}s with the code `cut`, `protocol`,
 * `timeout` or `aborted`, or whatever {@linkcode Channel.abort} was given. Every
 * caller gets the first failure.
 */
export interface Channel extends Transport, AsyncDisposable {
  /** Whose key the two sides share, and the service: `alice`, `alice@db`. */
  readonly identity: string;

  /** The service that the client asks for, after the identity's `@`. */
  readonly service: string | undefined;

  /**
   * The hash of all that the handshake said, 32 bytes: the same on both sides
   * and unique to this channel (Noise specification, section 11.2).
   */
  readonly handshakeHash: Uint8Array;

  /**
   * Resolves when both directions have ended and the connection is closed.
   * Rejects with what ended the channel otherwise.
   */
  readonly closed: Promise<void>;

  /**
   * Resolves when the stream has begun. Rejects with what ended the channel
   * before.
   */
  readonly opened: Promise<void>;

  /**
   * Client: resolves when the server has taken the proof. Until then it may still
   * refuse, for example because it lacks the service. Rejects with what ended the
   * channel before.
   */
  readonly confirmed: Promise<void>;

  /** How many bytes of data this side has sent, queued ones included. */
  readonly bytesSent: number;

  /** How many bytes of data have been received and read. */
  readonly bytesReceived: number;

  /** How long the peer has been silent, in milliseconds. */
  readonly silence: number;

  /**
   * Pings the peer. Resolves when it has said something since.
   *
   * @throws {ChannelError} If the channel fails before.
   */
  probe(): Promise<void>;

  /**
   * Begins the stream of a channel made with `standby`. Writing begins it too.
   * Does nothing if the stream has begun, or is the peer's to begin.
   *
   * @throws {ChannelError} If the channel has failed meanwhile.
   */
  open(): Promise<void>;

  /**
   * Reads up to `p.length` bytes into `p`. The sizes of reads and writes carry
   * no meaning. A slow reader slows the peer down: at most 8 frames, 512 KiB,
   * are held.
   *
   * @returns The number of bytes, or null once the peer has ended its direction.
   * @throws {ChannelError} If the channel fails.
   * @throws {TypeError} If another read is under way.
   */
  read(p: Uint8Array): Promise<number | null>;

  /**
   * Writes all of `p`, any `BufferSource`. It resolves when all bytes are
   * queued, about 600 KiB at most; then the caller may use `p` again.
   *
   * @returns The length of `p`, in bytes.
   * @throws {ChannelError} If the channel fails.
   * @throws {TypeError} After `closeWrite()`, or if `p` is not a `BufferSource`,
   * which also fails the channel.
   */
  write(p: ArrayBufferLike | ArrayBufferView): Promise<number>;

  /**
   * Tells the peer that there is no more. It resolves when everything is
   * written. The other direction may go on.
   *
   * @throws {ChannelError} If the channel fails.
   * @throws {TypeError} If it has been called before.
   */
  closeWrite(): Promise<void>;

  /**
   * Closes both directions. If both have ended, nothing is lost. Otherwise the
   * channel is given up, with an error of code `aborted` on both sides.
   */
  close(): void;

  /**
   * Gives the channel up without an end. Both directions fail at once. The peer
   * is told the code if the reason is a {@linkcode ChannelError} of code
   * `service`, `backend`, `limit`, `revoked`, `stopping` or `timeout`, and
   * `aborted` otherwise. `closed` rejects once the peer has closed behind that, or
   * after a second. Does nothing if the channel is closed.
   *
   * @param reason The error for both directions, as with
   * `AbortController.abort()`; by default a {@linkcode ChannelError} `aborted`.
   */
  abort(reason?: unknown): void;

  /**
   * What the peer sends, as a byte stream over {@linkcode Channel.read}. It
   * reads on demand. A reader with its own buffer (`getReader({ mode: "byob"
   * })`) leaves nothing for the garbage collector. Cancelling the stream aborts
   * the channel.
   */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;

  /**
   * What goes to the peer, over {@linkcode Channel.write}: any `BufferSource`.
   * `close()` ends this direction; aborting the stream aborts the channel.
   */
  readonly writable: WritableStream<ArrayBufferLike | ArrayBufferView>;

  /**
   * Waits for the channel to close if both sides have ended it, and aborts it
   * otherwise. So leaving a block early never looks like a clean end.
   */
  [Symbol.asyncDispose](): Promise<void>;
}

/** {@linkcode Channel}: a session with addresses and streams. @internal */
export class SessionChannel extends Session implements Channel {
  declare readonly remoteAddr?: Addr;
  declare readonly localAddr?: Addr;

  #readable: ReadableStream<Uint8Array<ArrayBuffer>> | undefined;
  #writable: WritableStream<ArrayBufferLike | ArrayBufferView> | undefined;

  constructor(
    transport: Transport,
    handshake: HandshakeResult,
    role: Role,
    options: Pick<ChannelOptions, "idleTimeout"> & SessionOptions,
  ) {
    super(transport, handshake, role, options.idleTimeout, options.clock);
    const { remoteAddr = transport.remoteAddr } = options;
    const { localAddr } = transport;
    if (remoteAddr) this.remoteAddr = remoteAddr;
    if (localAddr) this.localAddr = localAddr;
  }

  // deno-lint-ignore require-await -- What it throws, it rejects with.
  async open(): Promise<void> {
    this.begin();
  }

  override write(p: ArrayBufferLike | ArrayBufferView): Promise<number> {
    let bytes: Uint8Array;
    try {
      bytes = toBytes(p);
    } catch (error) {
      this.abort(error);
      return Promise.reject(error);
    }
    return super.write(bytes);
  }

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

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.haveBothEnded) this.abort();
    await this.closed.catch(() => {});
  }
}

/** Why a server that wants no offers gives one up. @internal */
export function noOffer({ identity }: Channel): ChannelError {
  const message = `${identity} offers a service that nobody here may call`;
  return new ChannelError("service", message);
}
