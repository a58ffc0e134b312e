/**
 * A secure channel over any duplex: the inner lock.
 *
 * @module
 */

import type { Bytes } from "./aes_gcm.ts";
import { ChannelError } from "./errors.ts";
import { initiate, respond, type Session } from "./handshake.ts";
import { IDLE_TIMEOUT, Keepalive } from "./keepalive.ts";
import { withDeadline } from "./deadline.ts";
import { free } from "./memory.ts";
import { Type } from "./message.ts";
import { EMPTY } from "./noise.ts";
import { type PskMap, pskOf, toPskMap } from "./psk.ts";
import { receive, type Sink } from "./receiver.ts";
import { Sender } from "./sender.ts";
import { type FrameTrace, Tracer } from "./trace.ts";
import {
  closeQuietly,
  type StreamPair,
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
   * does not close after both ends, whatever this says.
   *
   * @default {60000}
   */
  idleTimeout?: number;
  /** Gives the handshake up, and the transport with it. */
  signal?: AbortSignal;
  /** Is shown each frame, plaintext included: to learn, not to log. */
  trace?: (frame: FrameTrace) => void;
}

/** What the client's side of a channel takes. */
export interface ClientOptions extends ChannelOptions {
  /** Whose key to use. @default {"default"} */
  identity?: string;
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
 * resolves. {@linkcode connectChannel} has an example.
 *
 * @throws {ChannelError} `refused`, `protocol`, `cut` or `timeout`.
 * @throws {SyntaxError} If the key file's text is malformed.
 */
export async function acceptChannel(
  duplex: Transport | StreamPair,
  options: ChannelOptions,
): Promise<Channel> {
  const transport = toTransport(duplex);
  return await withDeadline(
    options,
    (signal) => respondChannel(transport, options, signal),
    (late) => late.abort(),
  );
}

/** {@linkcode acceptChannel} without a deadline of its own. */
export async function respondChannel(
  transport: Transport,
  options: ChannelOptions,
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
  options: ChannelOptions,
  role: "client" | "server",
  handshake: (tracer: Tracer) => Promise<Session>,
  signal?: AbortSignal,
): Promise<Channel> {
  const stop = () => closeQuietly(transport);
  signal?.addEventListener("abort", stop);
  try {
    signal?.throwIfAborted();
    const tracer = new Tracer(options.trace);
    const session = await handshake(tracer);
    signal?.throwIfAborted();
    const { idleTimeout = IDLE_TIMEOUT } = options;
    return new Channel(transport, session, tracer, role, idleTimeout);
  } catch (error) {
    stop();
    throw error;
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}

/**
 * A duplex stream of bytes to a peer that holds the same key.
 *
 * Each direction ends by itself: `writable.close()` tells the peer,
 * authentically, that there is no more; `readable` ends only when the peer has
 * said so. A connection that closes otherwise is an error on both streams, never
 * an end. After both ends the connection is closed.
 */
export class Channel implements AsyncDisposable {
  /** Whose key the two sides share. */
  readonly identity: string;

  /**
   * The hash of all that the handshake said, 32 bytes: the same on both sides
   * and unique to this channel (Noise specification, section 11.2).
   */
  readonly handshakeHash: Uint8Array;

  /** The peer's address, if the transport has one. */
  readonly remoteAddr: Deno.Addr | undefined;

  /**
   * What the peer sends, in chunks of up to 65 518 bytes, whose bounds carry no
   * meaning. Read on demand: a reader that is slow slows the peer down.
   * Cancelling it gives the whole channel up.
   *
   * It is a byte stream, as that of a `Deno.Conn`: a reader that brings its own
   * buffer (`getReader({ mode: "byob" })`) leaves nothing for the collector, so
   * that memory stays flat whatever comes.
   *
   * Errors with a {@linkcode ChannelError}: `cut`, `protocol`, `timeout` or
   * `aborted`.
   */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;

  /**
   * What goes to the peer. A write resolves when it is queued, about 1 MiB at
   * most; `close()` when all is written and the end is said. Aborting it
   * gives the whole channel up.
   *
   * Errors with a {@linkcode ChannelError}: `cut`, `protocol`, `timeout` or
   * `aborted`.
   */
  readonly writable: WritableStream<Uint8Array>;

  /**
   * Resolves when both directions have ended and the connection is closed.
   * Rejects with the {@linkcode ChannelError} that ended the channel otherwise.
   */
  readonly closed: Promise<void>;

  readonly #transport: Transport;
  readonly #sender: Sender;
  readonly #idleTimeout: number;
  readonly #keepalive: Keepalive;
  readonly #closed = Promise.withResolvers<void>();
  #readableController!: ReadableByteStreamController;
  #writableController!: WritableStreamDefaultController;
  #demand = Promise.withResolvers<void>();
  #bytesSent = 0;
  #bytesReceived = 0;
  #endSent = false;
  #endReceived = false;
  #isClosed = false;
  #isPingQueued = false;
  #closeTimer: ReturnType<typeof setTimeout> | undefined;

  /** For {@linkcode connectChannel} and {@linkcode acceptChannel}. @ignore */
  constructor(
    transport: Transport,
    session: Session,
    tracer: Tracer,
    role: "client" | "server",
    idleTimeout: number,
  ) {
    this.identity = session.identity;
    this.handshakeHash = session.handshakeHash;
    this.remoteAddr = transport.remoteAddr;
    this.#transport = transport;
    this.#idleTimeout = idleTimeout;
    this.#sender = new Sender(
      transport,
      session.sendCipher,
      tracer,
      (cause) => this.#writeFailed(cause),
    );
    this.#keepalive = new Keepalive(
      idleTimeout,
      () => this.#ping(),
      () => this.#fail(silent(idleTimeout, "answered no ping")),
    );
    this.closed = this.#closed.promise;
    this.closed.catch(() => {});

    this.readable = new ReadableStream({
      type: "bytes",
      start: (controller) => {
        this.#readableController = controller;
      },
      pull: () => this.#demand.resolve(),
      cancel: (cause) =>
        this.#fail(
          new ChannelError("aborted", "The reader cancelled the stream", {
            cause,
          }),
        ),
    }, { highWaterMark: 0 });

    this.writable = new WritableStream({
      start: (controller) => {
        this.#writableController = controller;
      },
      write: (chunk) => this.#write(chunk),
      close: () => this.#end(),
      abort: (cause) =>
        this.#fail(
          new ChannelError("aborted", "The writer aborted the stream", {
            cause,
          }),
        ),
    });

    if (role === "client") this.#sender.sendControl(Type.ping);
    else this.#sender.sendPong();
    const { frames, receiveCipher } = session;
    receive(frames, receiveCipher, tracer, this.#sink()).then(
      () => this.#connectionEnded(),
      (error) => this.#fail(error),
    );
  }

  /** How many bytes of data this side has sent, queued ones included. */
  get bytesSent(): number {
    return this.#bytesSent;
  }

  /** How many bytes of data have been received and read. */
  get bytesReceived(): number {
    return this.#bytesReceived;
  }

  /**
   * Gives the channel up: closes the connection without an end, which the peer
   * sees as a cut. Nothing if it is closed.
   *
   * @param reason What both streams error with; by default a
   * {@linkcode ChannelError} `aborted`.
   */
  abort(
    reason: unknown = new ChannelError("aborted", "The channel was aborted"),
  ): void {
    this.#fail(reason);
  }

  /**
   * Waits for a channel that both sides have ended to close; aborts any other,
   * so that a block that was left early is never taken for a clean end.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#haveBothEnded) this.abort();
    await this.closed.catch(() => {});
  }

  async #write(chunk: Uint8Array): Promise<void> {
    this.#bytesSent += chunk.length;
    const room = this.#sender.send(chunk);
    if (room) await room;
  }

  async #end(): Promise<void> {
    this.#sender.sendControl(Type.end);
    await this.#sender.flush();
    this.#endSent = true;
    await this.#closeIfEnded();
  }

  /** One at a time: none joins another that the peer does not take. */
  async #ping(): Promise<void> {
    if (this.#isPingQueued) return;
    this.#isPingQueued = true;
    this.#sender.sendControl(Type.ping);
    await this.#sender.flush().catch(() => {});
    this.#isPingQueued = false;
  }

  #sink(): Sink {
    return {
      data: async (body) => {
        this.#keepalive.deaf();
        for (let rest = body; rest.length > 0;) {
          await this.#demand.promise;
          this.#demand = Promise.withResolvers();
          rest = this.#deliver(rest);
        }
        this.#keepalive.heard();
      },
      end: () => {
        this.#endReceived = true;
        this.#readableController.close();
        this.#readableController.byobRequest?.respond(0);
        this.#closeIfEnded();
      },
      ping: () => {
        this.#heard();
        // After both ends nothing more can be said.
        return this.#haveBothEnded ? undefined : this.#sender.sendPong();
      },
      pong: () => this.#heard(),
      fail: (error) => this.#fail(error),
    };
  }

  /** Gives the reader what it takes; returns the rest. */
  #deliver(body: Bytes): Bytes {
    const request = this.#readableController.byobRequest;
    if (!request) {
      this.#bytesReceived += body.length;
      this.#readableController.enqueue(body);
      return EMPTY;
    }
    const { buffer, byteOffset, byteLength } = request.view!;
    const part = body.subarray(0, byteLength);
    new Uint8Array(buffer, byteOffset).set(part);
    this.#bytesReceived += part.length;
    request.respond(part.length);
    if (part.length < body.length) return body.subarray(part.length);
    free(body);
    return EMPTY;
  }

  get #haveBothEnded(): boolean {
    return this.#endSent && this.#endReceived;
  }

  #heard(): void {
    this.#keepalive.heard();
    if (this.#closeTimer !== undefined) this.#awaitClose();
  }

  /** Gives up a peer that neither closes nor gives a sign that it still reads. */
  #awaitClose(): void {
    clearTimeout(this.#closeTimer);
    const idleTimeout = this.#idleTimeout || IDLE_TIMEOUT;
    this.#closeTimer = setTimeout(
      () => this.#fail(silent(idleTimeout, "did not close after both ends")),
      2 * idleTimeout,
    );
  }

  /**
   * After both ends: close_notify, then the peer's. It may take its time: what we
   * sent may still be on its way, and closing before would lose it.
   */
  async #closeIfEnded(): Promise<void> {
    if (!this.#haveBothEnded || this.#isClosed) return;
    this.#keepalive.stop();
    this.#awaitClose();
    try {
      await this.#sender.flush();
      await this.#transport.closeWrite();
    } catch {
      // All has been said, on both sides: the peer may have closed already.
    }
  }

  /** The peer had ended its stream before the connection did. */
  #connectionEnded(): void {
    if (!this.#endSent) {
      this.#fail(
        new ChannelError("cut", "The peer closed before it had read all"),
      );
    } else if (this.#finish()) this.#closed.resolve();
  }

  /** If our end has gone, all that failed is a ping: what was read still counts. */
  #writeFailed(cause: unknown): void {
    if (this.#endSent) return;
    this.#fail(
      new ChannelError("cut", "The peer cut the connection", { cause }),
    );
  }

  /** The first failure is what everyone is told; the peer is told nothing. */
  #fail(error: unknown): void {
    if (!this.#finish(error)) return;
    this.#demand.promise.catch(() => {});
    this.#demand.reject(error);
    this.#readableController.error(error);
    this.#writableController.error(error);
    this.#closed.reject(error);
  }

  #finish(reason?: unknown): boolean {
    if (this.#isClosed) return false;
    this.#isClosed = true;
    clearTimeout(this.#closeTimer);
    this.#keepalive.stop();
    this.#sender.stop(reason);
    closeQuietly(this.#transport);
    return true;
  }
}

function silent(idleTimeout: number, how: string): ChannelError {
  const seconds = 2 * idleTimeout / 1000;
  return new ChannelError(
    "timeout",
    `The peer has been silent for ${seconds} s and ${how}`,
  );
}
