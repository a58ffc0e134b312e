/**
 * Listens for channels: accepts within limits, and shakes hands side by side.
 *
 * @module
 */

import {
  type Channel,
  type ChannelOptions,
  respondChannel,
} from "./channel.ts";
import { ChannelError } from "./errors.ts";
import { withLimit } from "./limit.ts";
import { type PskMap, toPskMap } from "./psk.ts";
import { finishTls } from "./tls.ts";
import { closeQuietly } from "./transport.ts";

/** How many channels and handshakes there may be, unless told otherwise. */
const MAX_CONNECTIONS = 10_000;

/** How many of them may be handshakes. */
const MAX_HANDSHAKES = 256;

/** A handshake may not be dropped for another one before, in milliseconds. */
const MIN_HANDSHAKE_TIME = 1000;

/** The port is tried again so often when a listener is opened anew. */
const REOPEN_TRIES = 1000;

/** The wait before accepting again when descriptors have run out, in ms. */
const ACCEPT_BACKOFF = 100;

/** That a limit was reached is told again after so long, in milliseconds. */
const NOTICE_INTERVAL = 60_000;

/** What a listener proves itself with, and asks of its clients. */
export interface ListenerCredentials {
  /** The text of a key file, or what {@linkcode parsePsk} made of it. */
  psk: string | PskMap;
  /** The certificate chain, PEM. */
  cert?: string;
  /** The certificate's private key, PEM, not encrypted. */
  key?: string;
}

/** What {@linkcode listen} takes. */
export interface ListenOptions
  extends
    ListenerCredentials,
    Pick<ChannelOptions, "handshakeTimeout" | "idleTimeout" | "trace"> {
  /** The port; 0 takes a free one. */
  port: number;
  /** The address to listen on. @default {"127.0.0.1"} */
  hostname?: string;
  /**
   * `false` leaves the outer lock out, and `cert` and `key` with it: for a
   * proxy that ends TLS before us, on the same machine or a private network.
   *
   * @default {true}
   */
  tls?: boolean;
  /** Lets several processes share the port (`--unstable-net`). */
  reusePort?: boolean;
  /**
   * How many channels and handshakes there may be at a time. When there are so
   * many, others wait in the system's queue.
   *
   * @default {10000}
   */
  maxConnections?: number;
  /**
   * How many handshakes may be under way. When there are so many, the oldest is
   * dropped for the next, but not in its first second.
   *
   * @default {256}
   */
  maxHandshakes?: number;
  /** Is told how each handshake went. */
  onHandshake?: (report: HandshakeReport) => void;
  /** Is told that a limit was reached, once a minute at most. */
  onLimit?: (limit: "connections" | "handshakes" | "descriptors") => void;
}

/** How a handshake went. */
export interface HandshakeReport {
  /** With whom. */
  remoteAddr: Deno.NetAddr;
  /** How long it took, TLS included, in milliseconds. */
  duration: number;
  /** Why there is no channel; absent if there is one. */
  error?: unknown;
}

/**
 * Listens for channels. Handshakes run side by side and do not hold each other
 * up; a client becomes a channel when it has proved that it holds its key.
 *
 * @example
 * ```ts
 * import { listen } from "@innerlock/innerlock/deno";
 *
 * export async function echo(): Promise<void> {
 *   const listener = listen({
 *     port: 5001,
 *     cert: await Deno.readTextFile("certs/cert.pem"),
 *     key: await Deno.readTextFile("certs/key.pem"),
 *     psk: await Deno.readTextFile("certs/psk.txt"),
 *   });
 *   for await (const channel of listener) {
 *     channel.readable.pipeTo(channel.writable).catch(console.error);
 *   }
 * }
 * ```
 *
 * @throws {Deno.errors.AddrInUse} And others of `Deno.listenTls`.
 * @throws {Deno.errors.InvalidData} If certificate or key is malformed.
 * @throws {Error} If they do not belong together.
 * @throws {SyntaxError} If the key file's text is malformed.
 * @throws {TypeError} If `cert` or `key` is missing, and `tls` is not `false`.
 */
export function listen(options: ListenOptions): Listener {
  return new Listener(options);
}

/** Gives channels, one for each client, until it is closed. */
export class Listener implements AsyncIterable<Channel>, Disposable {
  /** Where it listens, with the port that was taken. */
  readonly addr: Deno.NetAddr;

  readonly #options: ListenOptions;
  readonly #maxConnections: number;
  readonly #maxHandshakes: number;
  readonly #ready: Channel[] = [];
  readonly #channels = new Set<Channel>();
  /** Oldest first. */
  readonly #handshakes = new Set<Handshake>();
  readonly #noticed = new Map<string, number>();
  #listener: Deno.TlsListener | Deno.TcpListener;
  #psks: PskMap;
  #cert: string | undefined;
  #key: string | undefined;
  #reopening: Promise<void> | undefined;
  /** No more are accepted. */
  #isClosed = false;
  /** Nor may handshakes finish. */
  #isDropped = false;
  #change = Promise.withResolvers<void>();

  /** For {@linkcode listen}. @ignore */
  constructor(options: ListenOptions) {
    const { hostname = "127.0.0.1", port, psk } = options;
    this.#options = options;
    this.#maxConnections = options.maxConnections ?? MAX_CONNECTIONS;
    this.#maxHandshakes = options.maxHandshakes ?? MAX_HANDSHAKES;
    this.#psks = toPskMap(psk);
    this.#cert = options.cert;
    this.#key = options.key;
    this.#listener = this.#open(hostname, port, options);
    this.addr = this.#listener.addr as Deno.NetAddr;
    this.#acceptAll();
  }

  /**
   * The channels, in the order in which their handshakes finish. Leaving the
   * loop closes the listener, and the channels that nobody has taken.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Channel, void, void> {
    try {
      while (true) {
        const channel = this.#ready.shift();
        if (channel) yield channel;
        else if (this.#isClosed && this.#handshakes.size === 0) return;
        else await this.#change.promise;
      }
    } finally {
      this.close();
      for (const channel of this.#ready) {
        channel.abort("The listener was closed");
      }
    }
  }

  /**
   * Takes other credentials for the clients to come; live channels live on.
   *
   * Deno cannot change a listener's certificate. For another one the listener is
   * closed and opened again on the same port: whoever calls within those few
   * milliseconds is refused, and whoever waits to be accepted is reset.
   *
   * @throws {SyntaxError} If the key file's text is malformed.
   * @throws {Deno.errors.InvalidData} If certificate or key is malformed.
   * @throws {Error} If they do not belong together. In all three cases the old
   * credentials stay in force.
   */
  async reload(credentials: ListenerCredentials): Promise<void> {
    const psks = toPskMap(credentials.psk);
    await this.#reopening;
    const { cert, key } = credentials;
    const isOther = cert !== this.#cert || key !== this.#key;
    if (isOther && !this.#isClosed) {
      // A pair that Deno refuses must not cost us the port.
      this.#open("127.0.0.1", 0, credentials).close();
      this.#reopening = this.#reopen(credentials);
      await this.#reopening;
    }
    this.#psks = psks;
  }

  /** Accepts no more; handshakes under way may become channels still. */
  shutdown(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    closeQuietly(this.#listener);
    this.#changed();
  }

  /** Accepts no more and drops unfinished handshakes; channels live on. */
  close(): void {
    this.shutdown();
    this.#isDropped = true;
    for (const { controller } of this.#handshakes) controller.abort();
  }

  /** {@linkcode Listener.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  async #reopen(credentials: ListenerCredentials): Promise<void> {
    const { hostname, port } = this.addr;
    this.#listener.close();
    try {
      for (let tries = 1;; tries++) {
        // Deno lets the port go only when the accept under way has ended.
        await new Promise((resolve) => setTimeout(resolve, 1));
        if (this.#isClosed) break;
        try {
          this.#listener = this.#open(hostname, port, credentials);
          break;
        } catch (error) {
          if (tries === REOPEN_TRIES) throw error;
        }
      }
      this.#cert = credentials.cert;
      this.#key = credentials.key;
    } catch (error) {
      this.close();
      throw error;
    } finally {
      this.#reopening = undefined;
    }
  }

  #open(
    hostname: string,
    port: number,
    { cert, key }: ListenerCredentials,
  ): Deno.TlsListener | Deno.TcpListener {
    const { tls = true, reusePort = false } = this.#options;
    const where = { hostname, port, reusePort };
    if (!tls) return Deno.listen(where);
    if (cert === undefined || key === undefined) {
      throw new TypeError("Cannot listen without a certificate and its key");
    }
    // No ALPN: with a protocol of its own it would refuse a proxy that offers
    // another one only.
    return Deno.listenTls({ ...where, cert, key });
  }

  async #acceptAll(): Promise<void> {
    while (!this.#isClosed) {
      await this.#roomForConnection();
      // Whoever asked for it is told if it fails.
      await this.#reopening?.catch(() => {});
      const listener = this.#listener;
      try {
        const conn = await listener.accept();
        await this.#roomForHandshake();
        if (this.#isClosed) conn.close();
        else this.#shakeHands(conn);
      } catch {
        if (this.#isClosed || this.#reopening) continue;
        if (listener !== this.#listener) continue;
        // Most likely descriptors have run out: they come back.
        this.#notice("descriptors");
        await this.#changeWithin(ACCEPT_BACKOFF);
      }
    }
  }

  /** Waits until one more may come. */
  async #roomForConnection(): Promise<void> {
    while (
      !this.#isClosed &&
      this.#channels.size + this.#handshakes.size >= this.#maxConnections
    ) {
      this.#notice("connections");
      await this.#change.promise;
    }
  }

  /** For one that has come: drops the oldest handshake, but not too early. */
  async #roomForHandshake(): Promise<void> {
    while (!this.#isClosed && this.#handshakes.size >= this.#maxHandshakes) {
      this.#notice("handshakes");
      const [oldest] = this.#handshakes;
      const age = performance.now() - oldest!.start;
      if (age >= MIN_HANDSHAKE_TIME) this.#drop(oldest!);
      else await this.#changeWithin(MIN_HANDSHAKE_TIME - age);
    }
  }

  #drop(handshake: Handshake): void {
    this.#handshakes.delete(handshake);
    handshake.controller.abort(
      new ChannelError("limit", "Its handshake made room for the next"),
    );
  }

  #notice(limit: "connections" | "handshakes" | "descriptors"): void {
    const now = performance.now();
    if (now - (this.#noticed.get(limit) ?? -Infinity) < NOTICE_INTERVAL) return;
    this.#noticed.set(limit, now);
    this.#options.onLimit?.(limit);
  }

  #changed(): void {
    this.#change.resolve();
    this.#change = Promise.withResolvers();
  }

  async #changeWithin(time: number): Promise<void> {
    const timer = setTimeout(() => this.#changed(), time);
    await this.#change.promise;
    clearTimeout(timer);
  }

  async #shakeHands(conn: Conn): Promise<void> {
    const { remoteAddr } = conn;
    const start = performance.now();
    const handshake = { controller: new AbortController(), start };
    this.#handshakes.add(handshake);
    let report: Pick<HandshakeReport, "error"> = {};
    try {
      const channel = await this.#accept(conn, handshake.controller.signal);
      this.#keep(channel);
    } catch (error) {
      report = { error };
    }
    this.#handshakes.delete(handshake);
    this.#changed();
    if (this.#isDropped) return;
    const duration = performance.now() - start;
    this.#options.onHandshake?.({ remoteAddr, duration, ...report });
  }

  async #accept(conn: Conn, signal: AbortSignal): Promise<Channel> {
    const { handshakeTimeout, idleTimeout, trace } = this.#options;
    const options = {
      ...(handshakeTimeout !== undefined && { handshakeTimeout }),
      ...(idleTimeout !== undefined && { idleTimeout }),
      ...(trace && { trace }),
    };
    return await withLimit({ ...options, signal }, async (signal) => {
      if ("handshake" in conn) {
        await finishTls(conn, signal, "client", "The client");
      } else conn.setNoDelay(true);
      return await respondChannel(
        conn,
        { ...options, psk: this.#psks },
        signal,
      );
    }, (late) => late.abort());
  }

  #keep(channel: Channel): void {
    if (this.#isDropped) return channel.abort("The listener was closed");
    this.#channels.add(channel);
    channel.opened.then(() => {
      this.#ready.push(channel);
      this.#changed();
    });
    channel.closed.catch(() => {}).finally(() => {
      this.#channels.delete(channel);
      // One that nobody has taken yet: there is nothing left to take.
      const index = this.#ready.indexOf(channel);
      if (index >= 0) this.#ready.splice(index, 1);
      this.#changed();
    });
  }
}

type Conn = Deno.TlsConn | Deno.TcpConn;

/** One that is under way. */
interface Handshake {
  controller: AbortController;
  start: number;
}
