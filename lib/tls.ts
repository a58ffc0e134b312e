/**
 * The outer lock: Deno's TLS, and channels to a server through it.
 *
 * @module
 */

import {
  type Channel,
  type ClientOptions,
  closeQuietly,
  connectChannel,
  withLimit,
} from "./channel.ts";
import { ChannelError } from "./errors.ts";

/** Offered to the other side; either may do without it. */
export const ALPN_PROTOCOLS = ["innerlock/1"];

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
export async function finishTls(
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
