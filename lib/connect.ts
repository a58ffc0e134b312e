/**
 * Channels to a server: TCP, perhaps a forward proxy, TLS, perhaps a WebSocket,
 * then the inner lock.
 *
 * @module
 */

import {
  type Channel,
  type ClientOptions,
  shakeHands,
} from "./lock/channel.ts";
import { Backoff } from "./backoff.ts";
import { ChannelError } from "./lock/errors.ts";
import { HANDSHAKE_TIMEOUT, orClose, withDeadline } from "./lock/deadline.ts";
import { UnansweredError } from "./lock/handshake.ts";
import { ExpectedFrames } from "./carrier/answer.ts";
import { authority } from "./carrier/ip_address.ts";
import { connectThroughProxy, type ProxyCredentials } from "./carrier/proxy.ts";
import { connectWebSocket } from "./carrier/websocket_handshake.ts";
import { pskOf, takePsks } from "./lock/psk.ts";
import { ALPN, awaitSign, finishTls } from "./carrier/tls.ts";
import { capital, isAlert, TlsError, tlsError } from "./carrier/tls_errors.ts";
import { UnprovedTransport } from "./carrier/unproved.ts";

/**
 * Offered to the server, which need not choose any. A box that has a list
 * refuses a client that offers nothing on it, and most lists have HTTP.
 */
const ALPN_PROTOCOLS = [ALPN, "http/1.1"];

/**
 * The addresses where the last TLS handshake stalled. Deno keeps the socket of
 * such a handshake until the peer leaves, so a frozen server must not cost one
 * for each dial: the next ones first wait for a sign of life. A box may give none
 * though it works, so now and then a dial does without.
 */
const silent = new Map<string, { signs: Backoff; left: number }>();

/** How many dials wait for a sign after a first stall; twice as many each time. */
const FIRST_SIGNS = 8;
const MOST_SIGNS = 512;

/** Another TLS handshake has stalled there. */
function stalled(address: string): void {
  const signs = silent.get(address)?.signs ??
    new Backoff(FIRST_SIGNS, MOST_SIGNS);
  silent.set(address, { signs, left: signs.next() });
}

/** Whether a dial should wait for a sign first. */
function needsSign(address: string): boolean {
  const stall = silent.get(address);
  return stall !== undefined && stall.left-- > 0;
}

/** A forward proxy, reached with CONNECT. */
export interface Proxy {
  /** Its name or address. */
  hostname: string;
  /** Its port. */
  port: number;
  /** What to show it, if it asks. */
  credentials?: ProxyCredentials;
}

/** What {@linkcode connect} takes. */
export interface ConnectOptions extends ClientOptions {
  /** The server's port. */
  port: number;
  /** The server's name or address. @default {"localhost"} */
  hostname?: string;
  /** The name in the certificate, if it is not `hostname`. */
  serverName?: string;
  /**
   * Certificates to trust, PEM. Deno adds them to its own store: Mozilla's
   * roots, or what the environment variable `DENO_TLS_CA_STORE` says, and what
   * `DENO_CERT` and `NODE_EXTRA_CA_CERTS` name.
   */
  caCerts?: string[];
  /** A certificate chain to show to a box that asks for one, PEM. */
  cert?: string;
  /** The certificate's private key, PEM. */
  key?: string;
  /** The forward proxy on the way to the server, if there is one. */
  proxy?: Proxy;
  /**
   * Sends the frames in a WebSocket, for boxes that speak HTTP: at this path, or
   * at `/innerlock` with `true`.
   *
   * @default {false}
   */
  websocket?: string | boolean;
}

/**
 * Connects to a server: TCP, a forward proxy if given, TLS, a WebSocket if asked
 * for, then the inner handshake.
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
 * is out of date or has another name; `proxy` if the forward proxy does not
 * connect; `refused`, `protocol`, `cut` or `timeout`.
 * @throws {UnansweredError} `refused`, `cut` or `timeout` if no answer came
 * through TLS. If the connection was closed, the code is `refused` if only the
 * server can have done it, and `cut` if a box in between may have.
 * @throws {HttpError} `protocol` if the other end answers in HTTP without a
 * WebSocket, or does not open the one asked for; `proxy`, as above.
 * @throws {Deno.errors.ConnectionRefused} And other errors of `Deno.connect`.
 * @throws {TypeError} Before anything is sent, if the identity is none or has no
 * key, if a key is no `Uint8Array`, or if `cert` is given without `key` or the
 * other way round.
 * @throws {RangeError} If a key does not have exactly 32 bytes.
 * @throws {SyntaxError} If the key file's text is malformed.
 */
export async function connect(given: ConnectOptions): Promise<Channel> {
  const { hostname = "localhost", port, identity = "default" } = given;
  const psk = takePsks(given.psk);
  // One that has no key is an error before anybody is dialled.
  pskOf(identity, psk);
  const options = { ...given, identity, psk };
  if ((options.cert === undefined) !== (options.key === undefined)) {
    throw new TypeError(
      "A client certificate needs its private key, and a key its certificate",
    );
  }
  const address = authority(hostname, port);
  const server = `the server ${address}`;
  let peer = server;
  const { websocket = false } = options;
  let step = "connect" as keyof typeof WAITING;
  let isServerReached = false;
  const reached = ({ remoteAddr }: Deno.TcpConn | Deno.TlsConn) => {
    const ip = remoteAddr.hostname;
    if (ip !== hostname && !options.proxy) peer = `${server} (${ip})`;
  };
  try {
    return await withDeadline(options, async (signal) => {
      if (needsSign(address)) {
        const tcp = await reach(options, signal);
        reached(tcp);
        step = "sign";
        await awaitSign(tcp, signal);
      }
      const conn = await dial(options, signal);
      reached(conn);
      step = "tls";
      const unproved = new UnprovedTransport(conn, "The server");
      const transport = await orClose(conn, signal, async () => {
        const { alpnProtocol } = await finishTls(conn, "server", peer);
        silent.delete(address);
        isServerReached = alpnProtocol === ALPN;
        if (websocket === false) {
          step = "innerlock";
          return new ExpectedFrames(unproved);
        }
        step = "websocket";
        const socket = await connectWebSocket(unproved, {
          // Boxes compare it with what a browser would say.
          host: port === 443 ? address.replace(/:443$/, "") : address,
          ...(websocket !== true && { path: websocket }),
        });
        // No box answers so by itself.
        isServerReached = true;
        step = "inside";
        return socket;
      });
      const channel = await shakeHands(transport, "client", options, signal);
      unproved.proved();
      return channel;
    }, (late) => late.abort());
  } catch (error) {
    if (step === "tls" && !(error instanceof TlsError)) stalled(address);
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

const noTls = (peer: string, limit: string) =>
  `Connected to ${peer}, but TLS did not begin ${limit}; is it innerlock?`;

/** What was under way when the time was over, and why that may be. */
const WAITING = {
  connect: (peer: string, limit: string) =>
    `No answer from ${peer} ${limit}: the address may be wrong, a firewall may ` +
    "block it, or the name server may not answer",
  sign: noTls,
  tls: noTls,
  websocket: (peer: string, limit: string) =>
    `TLS with ${peer} works, but no WebSocket opened ${limit}; is it innerlock?`,
  innerlock: (peer: string, limit: string) =>
    `TLS with ${peer} works, but innerlock did not answer ${limit}: it may be ` +
    "another server, or a box that waits for HTTP",
  inside: (peer: string, limit: string) =>
    `The WebSocket to ${peer} is open, but innerlock did not answer ${limit}; ` +
    "is it innerlock?",
};

/** A box, or a server behind it, closed without a word. */
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
    await connectThroughProxy(tcp, { ...proxy, hostname, port, signal });
  }
  return tcp;
}

/**
 * Opens the outer lock's connection, before its TLS handshake. `Deno.connectTls`
 * leaves Nagle's algorithm on, which costs the handshake two delayed ACKs, about
 * 88 ms. Connecting in two steps allows `setNoDelay` between them, but only
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
