/**
 * Channels over Deno's TLS: the outer lock.
 *
 * @module
 */

import {
  acceptChannel,
  type Channel,
  type ClientOptions,
  closeQuietly,
  connectChannel,
  type HandshakeOptions,
  toPskMap,
  withLimit,
} from "./channel.ts";
import { ChannelError } from "./errors.ts";
import type { PskMap } from "./psk.ts";

/** Offered to the other side; either may do without it. */
const ALPN_PROTOCOLS = ["innerlock/1"];

/** The wait before accepting again when descriptors have run out, in ms. */
const ACCEPT_BACKOFF = 100;

/** What {@linkcode connect} takes. */
export interface ConnectOptions extends ClientOptions {
  /** The server's port. */
  port: number;
  /** The server's name or address. @default {"localhost"} */
  hostname?: string;
  /** The name that the certificate must have, if it is not `hostname`. */
  serverName?: string;
  /**
   * Certificates to trust, PEM. Deno adds them to its own store: Mozilla's
   * roots, or what the environment's `DENO_TLS_CA_STORE` says.
   */
  caCerts?: string[];
  /** A certificate chain to show, PEM, for a proxy that wants one. */
  cert?: string;
  /** The certificate's private key, PEM. */
  key?: string;
}

/**
 * Connects to a server: TCP, TLS, then the inner handshake.
 *
 * @example
 * ```ts
 * import { connect } from "@innerlock/innerlock";
 *
 * export async function ask(question: string): Promise<string> {
 *   await using channel = await connect({
 *     hostname: "server.example",
 *     port: 5001,
 *     caCerts: [await Deno.readTextFile("certs/cert.pem")],
 *     psk: await Deno.readTextFile("certs/psk.txt"),
 *     identity: "alice",
 *   });
 *   const sent = new Blob([question]).stream().pipeTo(channel.writable);
 *   const answer = await new Response(channel.readable).text();
 *   await sent;
 *   return answer;
 * }
 * ```
 *
 * @throws {ChannelError} `untrusted` if the server's certificate is not trusted,
 * out of date or of another name; `refused`, `protocol`, `cut` or `timeout`.
 * @throws {Deno.errors.ConnectionRefused} And others of `Deno.connect`.
 * @throws {TypeError} If the key file has no such identity.
 */
export async function connect(options: ConnectOptions): Promise<Channel> {
  return await withLimit(options, async (signal) => {
    const conn = await openTls(options, signal);
    return await connectChannel(conn, { ...options, signal });
  });
}

/**
 * Opens the outer lock. `Deno.connectTls` leaves Nagle's algorithm on, which
 * costs the handshake two delayed ACKs, about 88 ms; its two steps by hand allow
 * `setNoDelay` between them. But only `connectTls` takes a client certificate.
 */
async function openTls(
  options: ConnectOptions,
  signal: AbortSignal,
): Promise<Deno.TlsConn> {
  const { hostname = "localhost", port, caCerts = [], cert, key } = options;
  const serverName = options.serverName ?? hostname;
  const common = { caCerts, alpnProtocols: ALPN_PROTOCOLS };
  let conn: Deno.TlsConn;
  if (cert !== undefined && key !== undefined) {
    if (serverName !== hostname) {
      throw new TypeError(
        "A server name cannot go with a client certificate: " +
          "Deno.connectTls takes one name for both",
      );
    }
    conn = await Deno.connectTls({ ...common, hostname, port, cert, key });
  } else {
    const tcp = await Deno.connect({ hostname, port, signal });
    tcp.setNoDelay(true);
    conn = await Deno.startTls(tcp, { ...common, hostname: serverName });
  }
  return await finishTls(conn, signal, "server", `The server ${serverName}`);
}

/** Does the TLS handshake; closes the connection if it fails or must stop. */
async function finishTls(
  conn: Deno.TlsConn,
  signal: AbortSignal,
  role: "client" | "server",
  peer: string,
): Promise<Deno.TlsConn> {
  const stop = () => closeQuietly(conn);
  signal.addEventListener("abort", stop);
  try {
    signal.throwIfAborted();
    await conn.handshake().catch((error) => {
      throw translate(error, role, peer);
    });
    signal.throwIfAborted();
    return conn;
  } catch (error) {
    stop();
    throw error;
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** What a failed TLS handshake says, and what it means to a person. */
const TLS_FAILURES: [RegExp, "untrusted" | "protocol" | "cut", string][] = [
  [
    /UnknownIssuer|CaUsedAsEndEntity|BadSignature/,
    "untrusted",
    "is of an issuer that is not trusted; give the server's own cert.pem",
  ],
  [/Expired/i, "untrusted", "has expired; make a new one, or set the clock"],
  [
    /NotValidYet|not valid yet/i,
    "untrusted",
    "is not valid yet; set the clock",
  ],
  [
    /NotValidForName|not valid for name/i,
    "untrusted",
    "is made out to another name",
  ],
  [/peer certificate/, "untrusted", "is not acceptable"],
  [/InvalidContentType|corrupt message/i, "protocol", "did not speak TLS"],
];

function translate(
  cause: unknown,
  role: "client" | "server",
  peer: string,
): unknown {
  if (!(cause instanceof Error)) return cause;
  for (const [pattern, code, says] of role === "server" ? TLS_FAILURES : []) {
    if (!pattern.test(cause.message)) continue;
    const what = code === "untrusted" ? "'s certificate" : "";
    return new ChannelError(code, `${peer}${what} ${says}`, { cause });
  }
  const isCut = cause instanceof Deno.errors.UnexpectedEof ||
    cause instanceof Deno.errors.ConnectionReset ||
    cause instanceof Deno.errors.BrokenPipe;
  const failure = isCut ? "cut the connection" : `failed: ${cause.message}`;
  return new ChannelError(
    isCut ? "cut" : "protocol",
    `${peer} ${failure} in the TLS handshake`,
    { cause },
  );
}

/** What {@linkcode listen} takes. */
export interface ListenOptions
  extends Pick<HandshakeOptions, "psk" | "handshakeTimeout" | "trace"> {
  /** The port; 0 takes a free one. */
  port: number;
  /** The address to listen on. @default {"127.0.0.1"} */
  hostname?: string;
  /** The certificate chain, PEM. */
  cert: string;
  /** The certificate's private key, PEM, not encrypted. */
  key: string;
  /** Is told of each connection that did not become a channel. */
  onRefused?: (error: unknown, remoteAddr: Deno.NetAddr) => void;
}

/**
 * Listens for channels. Handshakes run side by side and do not hold each other
 * up; a client becomes a channel when it has proved that it holds its key.
 *
 * @example
 * ```ts
 * import { listen } from "@innerlock/innerlock";
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
 * @throws {SyntaxError} If the key file's text is malformed.
 */
export function listen(options: ListenOptions): Listener {
  const { hostname = "127.0.0.1", port, cert, key } = options;
  const psks = toPskMap(options.psk);
  const listener = Deno.listenTls({
    hostname,
    port,
    cert,
    key,
    alpnProtocols: ALPN_PROTOCOLS,
  });
  return new Listener(listener, psks, options);
}

/** Gives channels, one for each client, until it is closed. */
export class Listener implements AsyncIterable<Channel>, Disposable {
  /** Where it listens, with the port that was taken. */
  readonly addr: Deno.NetAddr;

  readonly #listener: Deno.TlsListener;
  readonly #psks: PskMap;
  readonly #options: ListenOptions;
  readonly #ready: Channel[] = [];
  readonly #closing = new AbortController();
  #handshakes = 0;
  #change = Promise.withResolvers<void>();

  /** For {@linkcode listen}. @ignore */
  constructor(
    listener: Deno.TlsListener,
    psks: PskMap,
    options: ListenOptions,
  ) {
    this.addr = listener.addr;
    this.#listener = listener;
    this.#psks = psks;
    this.#options = options;
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
        else if (this.#isClosed && this.#handshakes === 0) return;
        else await this.#change.promise;
      }
    } finally {
      this.close();
      for (const channel of this.#ready) {
        channel.abort("The listener was closed");
      }
    }
  }

  /** Accepts no more and drops unfinished handshakes; channels live on. */
  close(): void {
    if (this.#isClosed) return;
    this.#closing.abort();
    this.#listener.close();
  }

  /** {@linkcode Listener.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  async #acceptAll(): Promise<void> {
    while (!this.#isClosed) {
      let conn: Deno.TlsConn;
      try {
        conn = await this.#listener.accept();
      } catch {
        // Most likely descriptors have run out: they come back.
        if (!this.#isClosed) {
          await new Promise((resolve) => setTimeout(resolve, ACCEPT_BACKOFF));
        }
        continue;
      }
      this.#handshakes++;
      this.#shakeHands(conn).finally(() => {
        this.#handshakes--;
        this.#changed();
      });
    }
    this.#changed();
  }

  #changed(): void {
    this.#change.resolve();
    this.#change = Promise.withResolvers();
  }

  async #shakeHands(conn: Deno.TlsConn): Promise<void> {
    const remoteAddr = conn.remoteAddr as Deno.NetAddr;
    const { handshakeTimeout, trace } = this.#options;
    const options = {
      ...(handshakeTimeout !== undefined && { handshakeTimeout }),
      signal: this.#closing.signal,
    };
    try {
      const channel = await withLimit(options, async (signal) => {
        await finishTls(conn, signal, "client", "The client");
        return await acceptChannel(conn, {
          ...options,
          psk: this.#psks,
          signal,
          ...(trace && { trace }),
        });
      });
      if (this.#isClosed) channel.abort("The listener was closed");
      else this.#ready.push(channel);
    } catch (error) {
      if (!this.#isClosed) this.#options.onRefused?.(error, remoteAddr);
    }
  }
}
