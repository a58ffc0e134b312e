/**
 * The outer lock: Deno's TLS, and channels to a server through it.
 *
 * @module
 */

import {
  type Channel,
  type ClientOptions,
  initiateChannel,
} from "./channel.ts";
import { ChannelError } from "./errors.ts";
import { HANDSHAKE_TIMEOUT, withDeadline } from "./deadline.ts";
import { isAlert, tlsError } from "./tls_errors.ts";
import { closeQuietly } from "./transport.ts";

/** Offered to the server, which may do without it. */
const ALPN_PROTOCOLS = ["innerlock/1"];

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
 * import { connect } from "@innerlock/innerlock/deno";
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
  const { hostname = "localhost", port } = options;
  const address = `${
    hostname.includes(":") ? `[${hostname}]` : hostname
  }:${port}`;
  let peer = `the server ${address}`;
  let step: keyof typeof WAITING = "connect";
  try {
    return await withDeadline(options, async (signal) => {
      const conn = await dial(options, signal);
      step = "tls";
      const ip = conn.remoteAddr.hostname;
      if (ip !== hostname) peer += ` (${ip})`;
      await finishTls(conn, signal, "server", peer);
      step = "innerlock";
      return await initiateChannel(conn, options, signal);
    }, (late) => late.abort());
  } catch (error) {
    if (!(error instanceof ChannelError)) throw error;
    if (isAlert(error.cause)) throw tlsError(error.cause, "server", peer);
    if (error.code !== "timeout") throw error;
    const { handshakeTimeout = HANDSHAKE_TIMEOUT } = options;
    const limit = `within ${handshakeTimeout / 1000} s`;
    throw new ChannelError("timeout", WAITING[step](peer, limit));
  }
}

/** What a time limit cut short, and why that may be. */
const WAITING = {
  connect: (peer: string, limit: string) =>
    `No answer from ${peer} ${limit}: the address may be wrong, or a firewall ` +
    "or the name server silent",
  tls: (peer: string, limit: string) =>
    `A connection to ${peer}, but no TLS ${limit}; is it innerlock at all?`,
  innerlock: (peer: string, limit: string) =>
    `TLS with ${peer}, but nothing of innerlock ${limit}; is it innerlock at all?`,
};

/**
 * Opens the outer lock's connection, TLS yet to be done. `Deno.connectTls`
 * leaves Nagle's algorithm on, which costs the handshake two delayed ACKs, about
 * 88 ms; its two steps by hand allow `setNoDelay` between them. But only
 * `connectTls` takes a client certificate.
 */
async function dial(
  options: ConnectOptions,
  signal: AbortSignal,
): Promise<Deno.TlsConn> {
  const { hostname = "localhost", port, caCerts = [], cert, key } = options;
  const serverName = options.serverName ?? hostname;
  const common = { caCerts, alpnProtocols: ALPN_PROTOCOLS };
  if (cert !== undefined && key !== undefined) {
    if (serverName !== hostname) {
      throw new TypeError(
        "A server name cannot go with a client certificate: " +
          "Deno.connectTls takes one name for both",
      );
    }
    return await Deno.connectTls({ ...common, hostname, port, cert, key });
  }
  const tcp = await Deno.connect({ hostname, port, signal });
  tcp.setNoDelay(true);
  return await Deno.startTls(tcp, { ...common, hostname: serverName });
}

/** Does the TLS handshake; closes the connection if it fails or must stop. */
export async function finishTls(
  conn: Deno.TlsConn,
  signal: AbortSignal,
  role: "client" | "server",
  peer: string,
): Promise<void> {
  const stop = () => closeQuietly(conn);
  signal.addEventListener("abort", stop);
  try {
    signal.throwIfAborted();
    await conn.handshake().catch((error) => {
      throw tlsError(error, role, peer);
    });
    signal.throwIfAborted();
  } catch (error) {
    stop();
    throw error;
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
