/**
 * Channels to a server: TCP, perhaps a forward proxy, TLS, perhaps a WebSocket,
 * then the inner lock.
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
import { UnansweredError } from "./handshake.ts";
import { connectThroughProxy, type ProxyCredentials } from "./proxy.ts";
import { connectWebSocket } from "./rfc6455.ts";
import { ALPN, awaitSign, finishTls } from "./tls.ts";
import { capital, isAlert, tlsError } from "./tls_errors.ts";
import type { Transport } from "./transport.ts";

/**
 * Offered to the server, which may do without. A box with a list of its own
 * refuses a client that offers nothing on it, and most lists have HTTP.
 */
const ALPN_PROTOCOLS = [ALPN, "http/1.1"];

/**
 * The addresses within whose TLS handshake the last dial has stalled. Deno keeps
 * the socket of such a handshake until the peer goes: a server that is frozen, or
 * is none, shall not get one for each dial.
 */
const silent = new Set<string>();

/** A forward proxy, which is asked to CONNECT. */
export interface Proxy {
  /** Its name or address. */
  hostname: string;
  /** Its port. */
  port: number;
  /** Who it is to let through, if it asks. */
  credentials?: ProxyCredentials;
}

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
  /** The forward proxy on the way to the server, if there is one. */
  proxy?: Proxy;
  /**
   * Has the frames travel in a WebSocket, for boxes that speak HTTP: at this
   * path, or with `true` at `/innerlock`.
   *
   * @default {false}
   */
  websocket?: string | boolean;
}

/**
 * Connects to a server: TCP, a forward proxy if there is one, TLS, a WebSocket if
 * asked for, then the inner handshake.
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
 * out of date or of another name; `proxy` if the forward proxy does not lead
 * there; `refused`, `protocol`, `cut` or `timeout`.
 * @throws {UnansweredError} `refused`, `cut` or `timeout` if nothing came through
 * TLS. A connection that was closed counts as `refused` where the server itself
 * must have done it, and as `cut` where a box in between may have.
 * @throws {HttpError} `protocol` if HTTP is spoken there and no WebSocket was
 * asked for, or does not come about; `proxy`, as above.
 * @throws {Deno.errors.ConnectionRefused} And others of `Deno.connect`.
 * @throws {TypeError} If the key file has no such identity.
 */
export async function connect(options: ConnectOptions): Promise<Channel> {
  const { hostname = "localhost", port } = options;
  const address = `${
    hostname.includes(":") ? `[${hostname}]` : hostname
  }:${port}`;
  const server = `the server ${address}`;
  let peer = server;
  const { websocket = false } = options;
  let step = "connect" as keyof typeof WAITING;
  let [isHandshaking, isServerReached] = [false, false];
  const reached = (
    { remoteAddr: { hostname: ip } }: Deno.TcpConn | Deno.TlsConn,
  ) => {
    step = "tls";
    if (ip !== hostname && !options.proxy) peer = `${server} (${ip})`;
  };
  try {
    return await withDeadline(options, async (signal) => {
      if (silent.has(address)) {
        const tcp = await reach(options, signal);
        reached(tcp);
        await awaitSign(tcp, signal);
      }
      const conn = await dial(options, signal);
      reached(conn);
      isHandshaking = true;
      const { alpnProtocol } = await finishTls(conn, signal, "server", peer)
        .finally(() => isHandshaking = false);
      silent.delete(address);
      isServerReached = alpnProtocol === ALPN;
      let transport: Transport = conn;
      if (websocket !== false) {
        step = "websocket";
        transport = await connectWebSocket(conn, {
          // Boxes compare it with what a browser would say.
          host: port === 443 ? address.replace(/:443$/, "") : address,
          signal,
          ...(websocket !== true && { path: websocket }),
        });
        // No box answers so by itself.
        isServerReached = true;
      }
      step = websocket === false ? "innerlock" : "inside";
      return await initiateChannel(transport, options, signal);
    }, (late) => late.abort());
  } catch (error) {
    if (isHandshaking) silent.add(address);
    if (!(error instanceof ChannelError)) throw error;
    if (isAlert(error.cause)) throw tlsError(error.cause, "server", peer);
    if (error instanceof UnansweredError && !isServerReached) {
      throw new UnansweredError("cut", closedEarly(peer), { cause: error });
    }
    if (error.code !== "timeout") throw error;
    const { handshakeTimeout = HANDSHAKE_TIMEOUT } = options;
    const limit = `within ${handshakeTimeout / 1000} s`;
    const late = step === "innerlock" ? UnansweredError : ChannelError;
    throw new late("timeout", WAITING[step](peer, limit));
  }
}

/** What a time limit cut short, and why that may be. */
const WAITING = {
  connect: (peer: string, limit: string) =>
    `No answer from ${peer} ${limit}: the address may be wrong, a firewall may ` +
    "block it, or the name server may not answer",
  tls: (peer: string, limit: string) =>
    `Connected to ${peer}, but TLS did not begin ${limit}; is it innerlock?`,
  websocket: (peer: string, limit: string) =>
    `TLS with ${peer} works, but no WebSocket opened ${limit}; is it innerlock?`,
  innerlock: (peer: string, limit: string) =>
    `TLS with ${peer} works, but innerlock did not answer ${limit}: it may be ` +
    "another server, or a box that waits for HTTP",
  inside: (peer: string, limit: string) =>
    `The WebSocket to ${peer} is open, but innerlock did not answer ${limit}; ` +
    "is it innerlock?",
};

/** What it means that a box, or a server behind it, closes without a word. */
function closedEarly(peer: string): string {
  return `${capital(peer)} closed the connection without an answer; if its ` +
    "log does not say why, a box in between cannot reach it, or passes only " +
    "HTTP";
}

/** Opens a TCP connection that leads to the server. */
async function reach(
  { hostname = "localhost", port, proxy }: ConnectOptions,
  signal: AbortSignal,
): Promise<Deno.TcpConn> {
  const tcp = await Deno.connect({ ...proxy ?? { hostname, port }, signal });
  tcp.setNoDelay(true);
  if (proxy) {
    const { credentials } = proxy;
    await connectThroughProxy(tcp, {
      hostname,
      port,
      signal,
      ...(credentials && { credentials }),
    });
  }
  return tcp;
}

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
  const alpnProtocols = options.websocket
    ? ALPN_PROTOCOLS.slice(1)
    : ALPN_PROTOCOLS;
  const common = { caCerts, alpnProtocols };
  if (cert !== undefined && key !== undefined) {
    if (serverName !== hostname || options.proxy) {
      throw new TypeError(
        "A client certificate goes with neither a server name nor a proxy: " +
          "Deno.connectTls makes the connection itself",
      );
    }
    return await Deno.connectTls({ ...common, hostname, port, cert, key });
  }
  const tcp = await reach(options, signal);
  return await Deno.startTls(tcp, { ...common, hostname: serverName });
}
