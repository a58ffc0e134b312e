/**
 * Listens for channels: accepts within limits, and runs handshakes side by side.
 *
 * @module
 */

import { Admission } from "./admission.ts";
import type { Clock } from "./lock/clock.ts";
import { guarded } from "./lock/callback.ts";
import {
  type Channel,
  type ChannelOptions,
  noOffer,
  type SessionChannel,
  shakeHands,
} from "./lock/channel.ts";
import { orClose, withDeadline } from "./lock/deadline.ts";
import { ChannelError } from "./lock/errors.ts";
import { clientAddress } from "./carrier/forwarded.ts";
import { readProxyHeader } from "./carrier/proxy_protocol.ts";
import {
  findPsk,
  nameOf,
  type PskMap,
  type TakenPsks,
  takePsks,
} from "./lock/psk.ts";
import { Turns } from "./lock/turns.ts";
import { sniff } from "./carrier/sniff.ts";
import { acceptWebSocket, HealthCheck } from "./carrier/websocket_handshake.ts";
import { finishTls } from "./carrier/tls.ts";
import { UnprovedTransport } from "./carrier/unproved.ts";
import { Offers } from "./offers.ts";
import { type Conn, Port, SYSTEM, type System } from "./port.ts";
import type { Transport } from "./lock/transport.ts";

/** What it costs to accept a connection, as {@linkcode Turns} counts it. */
const ACCEPT_COST = 4096;

/** The longest pause before accepting is tried again, in milliseconds. */
const LONGEST_PAUSE = 100;

/**
 * How long a client that has just proved its key has to begin its stream after a
 * shutdown, in milliseconds.
 */
const OPENING_TIME = 1000;

/**
 * When descriptors run out, one in so many sessions in standby gives up its own.
 */
const SHED_PART = 4;

/** How long there may be no more of them then, in milliseconds. */
const SHORTAGE_TIME = 60_000;

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
export interface ListenOptions extends
  ListenerCredentials,
  Pick<
    ChannelOptions,
    "engine" | "handshakeTimeout" | "idleTimeout" | "trace"
  > {
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
   * How many of them each client may have, whatever services it asks for: the
   * oldest of its own in standby makes room for a later one. If there is none, the
   * later one is told that there is no room.
   *
   * @default {Infinity}
   */
  maxPerClient?: number;
  /**
   * How many handshakes may be under way in addition. When there are more, the
   * network with most of them (an IPv4 address, or 64 bits of IPv6) loses its
   * oldest. A burst is spared: what began in the last two seconds, or comes from
   * where a key was proved in the last two, makes room only when there are four
   * times as many.
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
   * Whether a client may offer channels under this identity, for
   * {@linkcode Listener.open}. Others are told that there is no such service.
   *
   * @default No client may.
   */
  takesOffer?: (identity: string) => boolean;
  /**
   * Is called with each channel that is offered and taken, before
   * {@linkcode Listener.open} gives it to anybody: to see who is there. If it
   * throws, the listener goes on, and `globalThis` gets an `error` event.
   */
  onOffer?: (channel: Channel) => void;
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
  return new ChannelListener(options, SYSTEM);
}

/**
 * Gives a channel for each client until it is closed. Its `accept` and
 * `close` are those of `Deno.Listener`, its `shutdown` that of `Deno.HttpServer`.
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
   * Gives a channel to the client of this identity, `alice` or `alice@db`, which
   * must have offered one (`connect` with `offer`), and begins its stream. Of
   * several the one that has been idle for longest is taken. If there is none, the
   * next one is waited for. One whose client shows no sign of life is given up.
   *
   * @throws {Deno.errors.BadResource} If the listener is closed.
   * @throws {DOMException} `AbortError`, or the signal's reason, once it is
   * aborted.
   */
  open(identity: string, options?: OpenOptions): Promise<Channel>;

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

/** What {@linkcode Listener.open} takes. */
export interface OpenOptions {
  /** Gives up waiting for an offer. */
  signal?: AbortSignal | undefined;
  /**
   * Leaves it to {@linkcode Channel.open}, or to the first write, to begin the
   * stream, and to the caller to see whether the client is still there.
   *
   * @default {false}
   */
  standby?: boolean;
}

/** {@linkcode Listener}. @internal */
export class ChannelListener implements Listener {
  readonly addr: Deno.NetAddr;

  readonly #options: ListenOptions;
  readonly #admission: Admission;
  readonly #clock: Clock;
  /** Those whose client has proved a key, and the key. */
  readonly #channels = new Map<Channel, Uint8Array>();
  /** How many of them each client has, by its name. */
  readonly #counts = new Map<string, number>();
  /**
   * Those of them whose stream has not begun, and their numbers, oldest first.
   */
  readonly #standby = new Map<Channel, number>();
  /** Those that made room, and keep their descriptors until they have closed. */
  readonly #leaving = new Set<Channel>();
  /** How many clients have proved a key: the number of the next one. */
  #proofs = 0;
  /** Those of them that wait to be taken. */
  readonly #ready: Channel[] = [];
  readonly #finished = Promise.withResolvers<void>();
  readonly #port: Port;
  readonly #offers = new Offers();
  /** Gives up whoever waits for an offer. */
  readonly #closing = new AbortController();
  #psks: TakenPsks;
  /** How many channels the descriptors are enough for, while they are short. */
  #shortage = { count: Infinity, until: 0 };
  /** No more are accepted. */
  #isClosed = false;
  /** Nor may handshakes finish. */
  #isDropped = false;
  #change = Promise.withResolvers<void>();

  /** @param system It may be another in tests. */
  constructor(options: ListenOptions, system: System) {
    const { psk, cert, key, onLimit = () => {} } = options;
    if (options.proxyProtocol && options.tls !== false) {
      throw new TypeError(
        "The PROXY protocol's header comes before TLS, where Deno cannot read it",
      );
    }
    this.#options = options;
    const limits = { ...options, onLimit: guarded(onLimit) };
    this.#admission = new Admission(limits, system.clock);
    this.#clock = system.clock;
    this.#psks = takePsks(psk);
    this.#port = new Port(
      options,
      { cert, key },
      () => this.#admission.notice("descriptors"),
      system,
    );
    this.addr = this.#port.addr;
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
      if (channel) this.#admission.notice("connections");
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
    const shown = this.#port.show({ cert, key });
    this.#psks = psks;
    for (const [channel, psk] of this.#channels) {
      if (!this.#isInForce(channel, psk)) channel.abort(revoked(channel));
    }
    try {
      await shown;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  async open(
    identity: string,
    { signal, standby = false }: OpenOptions = {},
  ): Promise<Channel> {
    const { signal: closing } = this.#closing;
    const either = signal ? AbortSignal.any([signal, closing]) : closing;
    while (true) {
      const channel = await this.#offers.take(identity, either);
      if (standby) return channel;
      if (await givesSign(channel, this.#clock)) {
        try {
          await channel.open();
          return channel;
        } catch {
          // It was given up just now, and is about to close.
          continue;
        }
      }
      channel.abort(new ChannelError("timeout", "It gave no sign of life"));
    }
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
    this.#port.close();
    this.#closing.abort(new Deno.errors.BadResource("The listener is closed"));
    for (const channel of this.#standby.keys()) channel.abort(closed());
    this.#changed();
  }

  async #acceptAll(): Promise<void> {
    const turns = new Turns();
    while (!this.#isClosed) {
      // Channels in standby make room only when somebody proves a key. Those that
      // have made it are still there.
      const taken = this.#channels.size - this.#standby.size;
      if (!this.#admission.hasRoom(taken + this.#leaving.size)) {
        this.#admission.notice("connections");
        await this.#change.promise;
        continue;
      }
      try {
        const conn = await this.#port.accept();
        if (conn) this.#shakeHands(conn);
        await turns.spend(ACCEPT_COST);
      } catch {
        // Most likely descriptors have run out: they come back.
        this.#admission.notice("descriptors");
        this.#shed();
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
    const timer = this.#clock.after(time, () => this.#changed());
    await this.#change.promise;
    this.#clock.clear(timer);
  }

  async #shakeHands(conn: Conn): Promise<void> {
    const { onHandshake = () => {} } = this.#options;
    const start = performance.now();
    const stop = new AbortController();
    let remoteAddr = conn.remoteAddr as Deno.NetAddr;
    let end = (_isProved: boolean) => {};
    const comesFrom = (address: Deno.NetAddr) => {
      end(false);
      remoteAddr = address;
      const drop = (reason: ChannelError) => stop.abort(reason);
      end = this.#admission.begin(address.hostname, drop);
    };
    comesFrom(remoteAddr);
    const proofs = this.#proofs;
    let failure: { error?: unknown } = {};
    let refused: SessionChannel | undefined;
    try {
      const { channel, psk } = await this.#prove(conn, comesFrom, stop.signal);
      refused = channel;
      this.#check(channel, psk);
      this.#makeRoom(channel, proofs);
      this.#keep(channel, psk);
      refused = undefined;
    } catch (error) {
      failure = { error };
      refused?.abort(error);
    }
    if (!this.#isDropped && !(failure.error instanceof HealthCheck)) {
      const duration = performance.now() - start;
      guarded(onHandshake)({ remoteAddr, duration, ...failure });
    }
    if (refused) {
      // It keeps its place as long as its descriptor.
      const { closed } = refused;
      await orClose(conn, stop.signal, () => closed).catch(() => {});
    }
    end(!("error" in failure));
    this.#changed();
  }

  /**
   * A client's channel, and the key that it has proved.
   *
   * @param comesFrom Is told from where the client comes, if a box says it.
   */
  async #prove(
    conn: Conn,
    comesFrom: (address: Deno.NetAddr) => void,
    signal: AbortSignal,
  ): Promise<{ channel: SessionChannel; psk: Uint8Array }> {
    return await withDeadline(
      { ...this.#options, signal, clock: this.#clock },
      async (signal) => {
        const peer = new UnprovedTransport(conn, "The client");
        const carrier = orClose(conn, signal, async () => {
          if ("handshake" in conn) {
            await finishTls(conn, "client", "The client");
          } else conn.setNoDelay(true);
          return await this.#carrierOf(peer);
        });
        const { transport, remoteAddr } = await carrier;
        if (remoteAddr !== conn.remoteAddr) comesFrom(remoteAddr);
        const psks = this.#psks;
        const channel = await shakeHands(transport, "server", {
          ...this.#options,
          psk: psks,
          remoteAddr,
          clock: this.#clock,
        }, signal);
        peer.proved();
        return { channel, psk: findPsk(channel.identity, psks)! };
      },
      ({ channel }) => channel.abort(),
    );
  }

  /**
   * What carries the frames, the connection itself or a WebSocket on it, and
   * from where it comes.
   */
  async #carrierOf(
    conn: Transport,
  ): Promise<{ transport: Transport; remoteAddr: Deno.NetAddr }> {
    const { isProxy = () => false, proxyProtocol = false } = this.#options;
    let remoteAddr = conn.remoteAddr as Deno.NetAddr;
    try {
      if (proxyProtocol && isProxy(remoteAddr.hostname)) {
        remoteAddr = await readProxyHeader(conn) ?? remoteAddr;
      }
      const { carrier, transport } = await sniff(conn);
      if (carrier === "frames") return { transport, remoteAddr };
      const isHealthy = () => !this.#isClosed;
      const socket = await acceptWebSocket(transport, { isHealthy });
      const forwarded = socket.headers.get("x-forwarded-for");
      const hostname = clientAddress(remoteAddr.hostname, forwarded, isProxy);
      if (hostname !== remoteAddr.hostname) {
        // The header has no port.
        remoteAddr = { ...remoteAddr, hostname, port: 0 };
      }
      return { transport: socket.transport, remoteAddr };
    } catch (cause) {
      if (cause instanceof ChannelError || cause instanceof HealthCheck) {
        throw cause;
      }
      const message = "The client left before it said anything";
      throw new ChannelError("cut", message, { cause });
    }
  }

  /** Throws if a client may not come in though it has proved this key. */
  #check(channel: Channel, psk: Uint8Array): void {
    if (!this.#isInForce(channel, psk)) throw revoked(channel);
    // Whether it calls or offers, its next message says.
    const mayOffer = this.#takesOffer(channel);
    if (!this.#hasService(channel) && !mayOffer) throw noService(channel);
    // Whoever was asked may have closed the listener.
    if (this.#isDropped) throw closed();
  }

  #hasService({ service }: Channel): boolean {
    return this.#options.hasService?.(service) ?? true;
  }

  #takesOffer({ identity }: Channel): boolean {
    return this.#options.takesOffer?.(identity) ?? false;
  }

  /**
   * If there are too many channels, of this client or of all, the oldest in standby
   * makes room for a later one. A channel that was proved since then does not count
   * as standby yet: its open may follow right behind its proof.
   *
   * @param before How many proofs there were when the later one came.
   * @throws {ChannelError} `limit` if its client has too many all the same.
   */
  #makeRoom(channel: Channel, before: number): void {
    const { maxPerClient = Infinity } = this.#options;
    const client = nameOf(channel.identity);
    const isFull = () => (this.#counts.get(client) ?? 0) >= maxPerClient;
    this.#giveUpOldest(
      before,
      isFull,
      ({ identity }) => nameOf(identity) === client,
    );
    if (isFull()) throw tooMany(client, maxPerClient);
    this.#giveUpOldest(before, () => !this.#hasRoom(), () => true);
  }

  /** Whether there is room for one channel more, by the limit and the system's. */
  #hasRoom(): boolean {
    const { count, until } = this.#shortage;
    const isShort = this.#clock.now() < until && this.#channels.size >= count;
    return !isShort && this.#admission.hasRoom(this.#channels.size);
  }

  #giveUpOldest(
    before: number,
    isDue: () => boolean,
    mayGo: (channel: Channel) => boolean,
  ): void {
    for (const [channel, proof] of this.#standby) {
      if (proof >= before || !isDue()) return;
      if (mayGo(channel)) this.#giveUp(channel);
    }
  }

  /** Takes the place of one in standby. */
  #giveUp(channel: Channel): void {
    this.#forget(channel);
    this.#leaving.add(channel);
    const message = "It made room for another connection";
    channel.abort(new ChannelError("limit", message));
  }

  /** Those in standby are the first to give up their descriptors. */
  #shed(): void {
    // Those of the last time are about to come back.
    if (this.#leaving.size > 0) return;
    const count = Math.ceil(this.#standby.size / SHED_PART);
    if (count === 0) return;
    const oldest = [...this.#standby.keys()].slice(0, count);
    for (const channel of oldest) this.#giveUp(channel);
    const until = this.#clock.now() + SHORTAGE_TIME;
    this.#shortage = { count: this.#channels.size, until };
  }

  /** A client has proved this key: from here on its channel counts. */
  #keep(channel: SessionChannel, psk: Uint8Array): void {
    this.#channels.set(channel, psk);
    this.#count(channel, 1);
    this.#standby.set(channel, this.#proofs++);
    // Its first words may just be on their way.
    const timer = this.#isClosed
      ? this.#clock.after(OPENING_TIME, () => channel.abort(closed()))
      : undefined;
    let isOffered = false;
    // What the options' functions throw cuts the client. One that has failed is
    // not aborted: that would cost what it said before its bye.
    const orCut = (moment: Promise<void>, step: () => void) => {
      moment.then(step, () => {}).catch((error) => channel.abort(error));
    };
    orCut(channel.offered, () => {
      isOffered = true;
      this.#clock.clear(timer);
      if (this.#isClosed) channel.abort(closed());
      else if (this.#takesOffer(channel)) {
        guarded(this.#options.onOffer ?? (() => {}))(channel);
        this.#offers.add(channel);
      } else channel.abort(noOffer(channel));
    });
    orCut(channel.opened, () => {
      this.#clock.clear(timer);
      this.#standby.delete(channel);
      // One that was offered is that of whoever opened it.
      if (isOffered) return;
      if (!this.#hasService(channel)) return channel.abort(noService(channel));
      this.#ready.push(channel);
      this.#changed();
    });
    channel.closed.catch(() => {}).finally(() => {
      this.#clock.clear(timer);
      this.#forget(channel);
      this.#leaving.delete(channel);
      // One that nobody has taken yet: there is nothing left to take.
      const index = this.#ready.indexOf(channel);
      if (index >= 0) this.#ready.splice(index, 1);
      this.#changed();
    });
  }

  /** It counts no more. */
  #forget(channel: Channel): void {
    this.#standby.delete(channel);
    if (this.#channels.delete(channel)) this.#count(channel, -1);
  }

  /** Its client has one more, or one less. */
  #count({ identity }: Channel, change: 1 | -1): void {
    const client = nameOf(identity);
    const count = (this.#counts.get(client) ?? 0) + change;
    if (count > 0) this.#counts.set(client, count);
    else this.#counts.delete(client);
  }

  /** Whether its identity still has the key that was proved. */
  #isInForce({ identity }: Channel, psk: Uint8Array): boolean {
    const current = findPsk(identity, this.#psks);
    return current !== undefined && psk.every((byte, i) => byte === current[i]);
  }
}

/** A client that was heard not longer ago is there, in milliseconds. */
const CERTAIN_TIME = 1000;

/** How long a client that was silent may take for a sign, in milliseconds. */
const SIGN_TIMEOUT = 1500;

/** Whether a client is there, by what it last said or by what it says now. */
async function givesSign(channel: Channel, clock: Clock): Promise<boolean> {
  if (channel.silence <= CERTAIN_TIME) return true;
  const limit = { handshakeTimeout: SIGN_TIMEOUT, clock };
  const sign = withDeadline(limit, () => channel.probe());
  return await sign.then(() => true, () => false);
}

function closed(): ChannelError {
  return new ChannelError("stopping", "The listener was closed");
}

function tooMany(client: string, max: number): ChannelError {
  const message = `${client} is at its limit of ${max} at a time`;
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
