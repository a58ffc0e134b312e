/**
 * Listens for channels: accepts within limits, and runs handshakes side by side.
 *
 * @module
 */

import { Admission } from "./admission.ts";
import { guarded } from "./lock/callback.ts";
import {
  type Channel,
  type ChannelOptions,
  respondChannel,
} from "./lock/channel.ts";
import { orClose, withDeadline } from "./lock/deadline.ts";
import { ChannelError } from "./lock/errors.ts";
import { clientAddress } from "./carrier/forwarded.ts";
import { readProxyHeader } from "./carrier/proxy_protocol.ts";
import { findPsk, type PskMap, type TakenPsks, takePsks } from "./lock/psk.ts";
import { Turns } from "./lock/turns.ts";
import { sniff } from "./carrier/sniff.ts";
import { acceptWebSocket } from "./carrier/rfc6455.ts";
import { ALPN, finishTls } from "./carrier/tls.ts";
import { UnprovedTransport } from "./carrier/unproved.ts";
import { closeQuietly, type Transport } from "./lock/transport.ts";

/**
 * The first tells a client that no box in between ends TLS. The others are for
 * boxes that do not offer ours: TLS would refuse them.
 */
const ALPN_PROTOCOLS = [ALPN, "http/1.1", "h2"];

/** What it costs to accept a connection, as {@linkcode Turns} counts it. */
const ACCEPT_COST = 4096;

/** The longest pause before accepting, or opening, is tried again, in ms. */
const LONGEST_PAUSE = 100;

/**
 * How long a client that has just proved its key has to begin its stream after a
 * shutdown, in milliseconds.
 */
const OPENING_TIME = 1000;

/** How long to wait for a port that somebody else has taken, in ms. */
const REOPEN_TIMEOUT = 3_000;

/** What a listener proves itself with, and which keys clients may have. */
export interface ListenerCredentials {
  /**
   * The text of a key file, or each identity's key. A map is checked and copied
   * at once: whoever made it may wipe it then.
   */
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
   * `false` leaves out the outer lock, `cert` and `key`: for a listener behind a
   * box that ends TLS, on the same machine or a private network.
   *
   * @default {true}
   */
  tls?: boolean;
  /**
   * Whether an address is that of a box in front, to be believed when it names a
   * client's address: with `X-Forwarded-For` over a WebSocket, or with the PROXY
   * protocol. That address counts for `remoteAddr` and for the limits.
   *
   * @default No address is.
   */
  isProxy?: (address: string) => boolean;
  /**
   * Whether connections of these boxes begin with a header of the PROXY
   * protocol, version 1 or 2. The header comes before TLS, so this needs `tls:
   * false`.
   *
   * @default {false}
   */
  proxyProtocol?: boolean;
  /** Lets several processes share the port (`--unstable-net`). */
  reusePort?: boolean;
  /**
   * How many channels there may be at a time, including those in standby. The
   * oldest in standby makes room for a client that proves a key. If there is
   * none, clients wait: a few that have proved their key, and the rest in the
   * system's queue.
   *
   * @default {10000}
   */
  maxConnections?: number;
  /**
   * How many handshakes may be under way in addition. When there are more, the
   * network with most of them (an IPv4 address, or 64 bits of IPv6) loses its
   * oldest.
   *
   * @default {256}
   */
  maxHandshakes?: number;
  /**
   * Whether a service exists that a client asks for, as `alice@db` asks for
   * `db`. If not, or if this throws, the client is cut once it has proved its
   * key, and the handshake's report says why.
   *
   * @default Every service is there.
   */
  hasService?: (service: string | undefined) => boolean;
  /**
   * Is called after each handshake. If it throws, the listener goes on, and
   * `globalThis` gets an `error` event.
   */
  onHandshake?: (report: HandshakeReport) => void;
  /**
   * Is called when a limit is reached, at most once a minute. If it throws, the
   * listener goes on, and `globalThis` gets an `error` event.
   */
  onLimit?: (limit: "connections" | "handshakes" | "descriptors") => void;
}

/** How a handshake went. */
export interface HandshakeReport {
  /** The client's address. */
  remoteAddr: Deno.NetAddr;
  /** How long it took, TLS included, in milliseconds. */
  duration: number;
  /** Why there is no channel; absent if there is one. */
  error?: unknown;
}

/**
 * Listens for channels. Handshakes run side by side and do not delay each other.
 * A client becomes a channel when it has proved its key and begun its stream.
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
 * @throws {Deno.errors.AddrInUse} And other errors of `Deno.listenTls`.
 * @throws {Deno.errors.InvalidData} If certificate or key is malformed.
 * @throws {Error} If they do not belong together.
 * @throws {SyntaxError} If the key file's text is malformed.
 * @throws {TypeError} If `tls` is not `false`, and `cert` or `key` is missing or
 * `proxyProtocol` is set.
 */
export function listen(options: ListenOptions): Listener {
  return new ChannelListener(options);
}

/**
 * Gives a channel for each client until it is closed. It has the shape of
 * `Deno.Listener`, with the `shutdown` of `Deno.HttpServer`.
 */
export interface Listener extends AsyncIterable<Channel>, Disposable {
  /** Where it listens, with the port that was taken. */
  readonly addr: Deno.NetAddr;

  /**
   * The next channel, in the order in which clients begin their streams.
   *
   * @throws {Deno.errors.BadResource} If the listener is closed and has no more.
   */
  accept(): Promise<Channel>;

  /**
   * Takes other credentials. New keys count at once: a channel whose identity
   * has lost its key, or has another one, is cut with a {@linkcode ChannelError}
   * of code `revoked`. All others live on.
   *
   * Deno cannot change a listener's certificate. For another certificate, the
   * listener closes and opens again on the same port. Clients that call in these
   * few milliseconds are refused, and clients waiting to be accepted are reset.
   * If several reloads overlap, the last one counts.
   *
   * @throws {SyntaxError} If the key file's text is malformed.
   * @throws {Deno.errors.InvalidData} If certificate or key is malformed.
   * @throws {Error} If they do not belong together. In these three cases, the
   * old credentials stay in force.
   * @throws {Deno.errors.AddrInUse} If somebody else takes the port and keeps it
   * for three seconds. The listener is then closed.
   */
  reload(credentials: ListenerCredentials): Promise<void>;

  /**
   * Stops accepting. Handshakes under way may still become channels; channels in
   * standby are closed. Resolves when the last channel has ended.
   */
  shutdown(): Promise<void>;

  /** Stops accepting and drops unfinished handshakes; channels live on. */
  close(): void;

  /** {@linkcode Listener.close}. */
  [Symbol.dispose](): void;

  /**
   * The channels, as {@linkcode Listener.accept} gives them. Leaving the loop
   * closes the listener and aborts the channels that nobody has taken.
   */
  [Symbol.asyncIterator](): AsyncIterator<Channel, void, void>;
}

class ChannelListener implements Listener {
  readonly addr: Deno.NetAddr;

  readonly #options: ListenOptions;
  readonly #onHandshake: ListenOptions["onHandshake"];
  readonly #admission: Admission;
  /** Those whose client has proved a key, and the key. */
  readonly #channels = new Map<Channel, Uint8Array>();
  /**
   * Those of them whose stream has not begun, and their numbers, oldest first.
   */
  readonly #standby = new Map<Channel, number>();
  /** How many clients have proved a key: the number of the next one. */
  #proofs = 0;
  /** Those of them that wait to be taken. */
  readonly #ready: Channel[] = [];
  readonly #finished = Promise.withResolvers<void>();
  #listener: Deno.TlsListener | Deno.TcpListener;
  #psks: TakenPsks;
  /** What the listener is to show; it does, unless it is being opened again. */
  #pair: Pair;
  #reopening: Promise<void> | undefined;
  /** No more are accepted. */
  #isClosed = false;
  /** Nor may handshakes finish. */
  #isDropped = false;
  #change = Promise.withResolvers<void>();

  constructor(options: ListenOptions) {
    const { hostname = "127.0.0.1", port, psk, cert, key } = options;
    const { onHandshake, onLimit } = options;
    if (options.proxyProtocol && options.tls !== false) {
      throw new TypeError(
        "The PROXY protocol's header comes before TLS, where Deno cannot read it",
      );
    }
    this.#options = options;
    this.#onHandshake = onHandshake && guarded(onHandshake);
    this.#admission = new Admission({
      ...options,
      ...(onLimit && { onLimit: guarded(onLimit) }),
    });
    this.#psks = takePsks(psk);
    this.#pair = { ...(cert && { cert }), ...(key && { key }) };
    this.#listener = this.#open(hostname, port, this.#pair);
    this.addr = this.#listener.addr as Deno.NetAddr;
    this.#acceptAll();
  }

  async accept(): Promise<Channel> {
    while (true) {
      const taken = this.#channels.size - this.#standby.size -
        this.#ready.length;
      const [channel] = this.#ready;
      if (channel && this.#admission.hasRoom(taken)) {
        this.#ready.shift();
        return channel;
      }
      const isLast = this.#admission.handshakes + this.#standby.size === 0;
      if (!channel && this.#isClosed && isLast) {
        throw new Deno.errors.BadResource("The listener is closed");
      }
      await this.#change.promise;
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Channel, void, void> {
    try {
      while (true) yield await this.accept();
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    } finally {
      this.close();
      for (const channel of this.#ready) channel.abort(closed());
    }
  }

  async reload({ psk, cert, key }: ListenerCredentials): Promise<void> {
    const psks = takePsks(psk);
    const isOther = cert !== this.#pair.cert || key !== this.#pair.key;
    const pair = { ...(cert && { cert }), ...(key && { key }) };
    if (isOther && !this.#isClosed) {
      // A pair that Deno refuses must not cost us the port.
      this.#open("127.0.0.1", 0, pair).close();
      this.#pair = pair;
    }
    this.#psks = psks;
    for (const [channel, psk] of this.#channels) {
      if (!this.#isInForce(channel, psk)) channel.abort(revoked(channel));
    }
    if (isOther) this.#reopening ??= this.#reopen();
    await this.#reopening;
  }

  async shutdown(): Promise<void> {
    this.#stopAccepting();
    await this.#finished.promise;
  }

  close(): void {
    this.#stopAccepting();
    this.#isDropped = true;
    this.#admission.dropAll(closed());
    this.#changed();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #stopAccepting(): void {
    this.#isClosed = true;
    closeQuietly(this.#listener);
    for (const channel of this.#standby.keys()) channel.abort(stopping());
    this.#changed();
  }

  /** Opens the port again until it shows the certificate that it should. */
  async #reopen(): Promise<void> {
    try {
      let shown: Pair | undefined;
      while (!this.#isClosed && shown !== this.#pair) {
        this.#listener.close();
        shown = this.#pair;
        await this.#openAgain(shown);
      }
    } catch (error) {
      this.close();
      throw error;
    } finally {
      this.#reopening = undefined;
    }
  }

  async #openAgain(pair: Pair): Promise<void> {
    const { hostname, port } = this.addr;
    const deadline = performance.now() + REOPEN_TIMEOUT;
    for (let pause = 1;; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      // Deno lets the port go only when the accept under way has ended.
      await new Promise((resolve) => setTimeout(resolve, pause));
      if (this.#isClosed) return;
      try {
        this.#listener = this.#open(hostname, port, pair);
        return;
      } catch (error) {
        if (!(error instanceof Deno.errors.AddrInUse)) {
          this.#admission.notice("descriptors");
        } else if (performance.now() > deadline) throw error;
      }
    }
  }

  #open(
    hostname: string,
    port: number,
    { cert, key }: Pair,
  ): Deno.TlsListener | Deno.TcpListener {
    const { tls = true, reusePort = false } = this.#options;
    const where = { hostname, port, reusePort };
    if (!tls) return Deno.listen(where);
    if (cert === undefined || key === undefined) {
      throw new TypeError("Cannot listen without a certificate and its key");
    }
    return Deno.listenTls({
      ...where,
      cert,
      key,
      alpnProtocols: ALPN_PROTOCOLS,
    });
  }

  async #acceptAll(): Promise<void> {
    const turns = new Turns();
    while (!this.#isClosed) {
      // Channels in standby make room only when somebody proves a key.
      if (!this.#admission.hasRoom(this.#channels.size - this.#standby.size)) {
        await this.#change.promise;
        continue;
      }
      // If it fails, the caller of reload() is told.
      await this.#reopening?.catch(() => {});
      const listener = this.#listener;
      try {
        this.#shakeHands(await listener.accept());
        await turns.spend(ACCEPT_COST);
      } catch (error) {
        if (this.#isClosed || listener !== this.#listener) continue;
        // The client was gone before it was accepted.
        if (error instanceof Deno.errors.NotConnected) continue;
        if (this.#reopening) continue;
        // Most likely descriptors have run out: they come back.
        this.#admission.notice("descriptors");
        await this.#changeWithin(LONGEST_PAUSE);
      }
    }
  }

  #changed(): void {
    this.#change.resolve();
    this.#change = Promise.withResolvers();
    const isLive = this.#channels.size > 0 || this.#admission.handshakes > 0;
    if (this.#isClosed && !isLive) this.#finished.resolve();
  }

  async #changeWithin(time: number): Promise<void> {
    const timer = setTimeout(() => this.#changed(), time);
    await this.#change.promise;
    clearTimeout(timer);
  }

  async #shakeHands(conn: Conn): Promise<void> {
    let remoteAddr = conn.remoteAddr as Deno.NetAddr;
    const start = performance.now();
    const stop = new AbortController();
    const begin = () =>
      this.#admission.begin(
        remoteAddr.hostname,
        (reason) => stop.abort(reason),
      );
    let end = begin();
    const comesFrom = (address: Deno.NetAddr) => {
      end();
      remoteAddr = address;
      end = begin();
    };
    let report: Pick<HandshakeReport, "error"> = {};
    try {
      await this.#prove(conn, comesFrom, stop.signal);
    } catch (error) {
      report = { error };
    }
    end();
    this.#changed();
    if (this.#isDropped) return;
    const duration = performance.now() - start;
    this.#onHandshake?.({ remoteAddr, duration, ...report });
  }

  /** @param comesFrom Is told from where the client comes, if a box says it. */
  async #prove(
    conn: Conn,
    comesFrom: (address: Deno.NetAddr) => void,
    signal: AbortSignal,
  ): Promise<void> {
    let psks = this.#psks;
    const proofs = this.#proofs;
    const channel = await withDeadline(
      { ...this.#options, signal },
      async (signal) => {
        if ("handshake" in conn) {
          await finishTls(conn, signal, "client", "The client");
        } else conn.setNoDelay(true);
        const peer = new UnprovedTransport(conn, "The client");
        const { transport, remoteAddr } = await this.#carrierOf(peer, signal);
        if (remoteAddr !== conn.remoteAddr) comesFrom(remoteAddr);
        psks = this.#psks;
        const { idleTimeout, trace } = this.#options;
        const channel = await respondChannel(transport, {
          psk: psks,
          remoteAddr,
          ...(idleTimeout !== undefined && { idleTimeout }),
          ...(trace && { trace }),
        }, signal);
        peer.proved();
        return channel;
      },
      (late) => late.abort(),
    );
    const psk = findPsk(channel.identity, psks)!;
    try {
      this.#check(channel, psk);
    } catch (error) {
      channel.abort(error);
      throw error;
    }
    this.#makeRoom(proofs);
    this.#keep(channel, psk);
  }

  /**
   * What carries the frames, the connection itself or a WebSocket on it, and
   * from where it comes.
   */
  async #carrierOf(
    conn: Transport,
    signal: AbortSignal,
  ): Promise<{ transport: Transport; remoteAddr: Deno.NetAddr }> {
    const { isProxy = () => false, proxyProtocol = false } = this.#options;
    const carrier = orClose(conn, signal, async () => {
      let remoteAddr = conn.remoteAddr as Deno.NetAddr;
      if (proxyProtocol && isProxy(remoteAddr.hostname)) {
        remoteAddr = await readProxyHeader(conn) ?? remoteAddr;
      }
      const { carrier: kind, transport } = await sniff(conn);
      if (kind === "frames") return { transport, remoteAddr };
      const socket = await acceptWebSocket(transport, { signal });
      const forwarded = socket.headers.get("x-forwarded-for");
      const hostname = clientAddress(remoteAddr.hostname, forwarded, isProxy);
      if (hostname !== remoteAddr.hostname) {
        // The header has no port.
        remoteAddr = { ...remoteAddr, hostname, port: 0 };
      }
      return { transport: socket.transport, remoteAddr };
    });
    return await carrier.catch((cause) => {
      if (cause instanceof ChannelError) throw cause;
      const message = "The client left before it said anything";
      throw new ChannelError("cut", message, { cause });
    });
  }

  /** Throws if a client may not come in though it has proved this key. */
  #check(channel: Channel, psk: Uint8Array): void {
    if (this.#isDropped) throw closed();
    if (!this.#isInForce(channel, psk)) throw revoked(channel);
    const { hasService = () => true } = this.#options;
    if (!hasService(channel.service)) throw noService(channel);
  }

  /**
   * If there are too many channels, the oldest in standby makes room for a later
   * one. A channel that was proved since then does not count as standby yet: its
   * open may follow right behind its proof.
   *
   * @param before How many proofs there were when the later one came.
   */
  #makeRoom(before: number): void {
    for (const [channel, proof] of this.#standby) {
      if (this.#admission.hasRoom(this.#channels.size) || proof >= before) {
        break;
      }
      this.#channels.delete(channel);
      this.#standby.delete(channel);
      channel.abort(noRoom());
    }
  }

  /** A client has proved this key: from here on its channel counts. */
  #keep(channel: Channel, psk: Uint8Array): void {
    this.#channels.set(channel, psk);
    this.#standby.set(channel, this.#proofs++);
    // Its first words may just be on their way.
    const timer = this.#isClosed
      ? setTimeout(() => channel.abort(stopping()), OPENING_TIME)
      : undefined;
    channel.opened.then(() => {
      clearTimeout(timer);
      this.#standby.delete(channel);
      this.#ready.push(channel);
      this.#changed();
    }, () => {});
    channel.closed.catch(() => {}).finally(() => {
      clearTimeout(timer);
      this.#channels.delete(channel);
      this.#standby.delete(channel);
      // One that nobody has taken yet: there is nothing left to take.
      const index = this.#ready.indexOf(channel);
      if (index >= 0) this.#ready.splice(index, 1);
      this.#changed();
    });
  }

  /** Whether its identity still has the key that was proved. */
  #isInForce({ identity }: Channel, psk: Uint8Array): boolean {
    const current = findPsk(identity, this.#psks);
    return current !== undefined && psk.every((byte, i) => byte === current[i]);
  }
}

type Conn = Deno.TlsConn | Deno.TcpConn;
type Pair = Pick<ListenerCredentials, "cert" | "key">;

function closed(): ChannelError {
  return new ChannelError("aborted", "The listener was closed");
}

function stopping(): ChannelError {
  return new ChannelError("stopping", "The listener takes no more streams");
}

function noRoom(): ChannelError {
  const message = "A channel in standby made room for another";
  return new ChannelError("limit", message);
}

function noService({ identity, service }: Channel): ChannelError {
  const what = service === undefined ? "default service" : `service ${service}`;
  return new ChannelError("service", `There is no ${what} for ${identity}`);
}

function revoked({ identity }: Channel): ChannelError {
  return new ChannelError(
    "revoked",
    `The key of ${identity} was removed or replaced`,
  );
}
