/**
 * The certificate that the other end shows, which Deno's own TLS connections do
 * not tell.
 *
 * @module
 */

import { abortable } from "@std/async/abortable";
import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { Duplex } from "node:stream";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { authority } from "../../lib/carrier/ip_address.ts";
import { connectWebSocket } from "../../lib/carrier/websocket_handshake.ts";
import { shakeHands } from "../../lib/lock/channel.ts";
import { toTransport } from "../../lib/lock/transport.ts";
import { dayOf, keyFingerprint } from "../keys/certificates.ts";
import { parsePem } from "../keys/pem.ts";
import type { DialOptions } from "./dial.ts";

/**
 * The certificate that the other end shows on this connection, which ends here.
 *
 * @param isTrusted Whether another connection has shown that it is trusted. If
 * so, it must be trusted here too, and the key is proved: the server's log has
 * nothing to say of such a client. If not, it is only looked at, and nothing is
 * sent.
 */
export async function certificateOf(
  tcp: Deno.TcpConn,
  options: DialOptions,
  isTrusted: boolean,
): Promise<X509Certificate> {
  const signal = AbortSignal.timeout(options.handshakeTimeout!);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const socket = openTls(tcp, options, isTrusted);
  socket.on("secureConnect", resolve);
  socket.on("error", reject);
  socket.on("close", () => reject(new Error("The connection was closed")));
  try {
    await abortable(promise, signal);
    const shown = new X509Certificate(socket.getPeerCertificate(true).raw);
    if (isTrusted) {
      await abortable(prove(socket, options, signal), signal).catch(() => {});
    }
    return shown;
  } finally {
    socket.destroy();
  }
}

function openTls(
  { readable, writable }: Deno.TcpConn,
  { hostname, serverName = hostname, websocket, caCerts = [], cert, key }:
    DialOptions,
  isTrusted: boolean,
): TLSSocket {
  return connectTls({
    // deno-lint-ignore no-explicit-any -- Node's types of Web streams.
    socket: Duplex.fromWeb({ readable, writable } as any),
    host: serverName,
    rejectUnauthorized: isTrusted,
    // Without a list, Deno refuses any certificate while its store is empty.
    ca: caCerts,
    ALPNProtocols: [
      ...websocket === undefined ? ["innerlock/1"] : [],
      "http/1.1",
    ],
    ...(!isIP(serverName) && { servername: serverName }),
    ...(cert !== undefined && key !== undefined && { cert, key }),
  });
}

/** Does what a client in standby does, and leaves. */
async function prove(
  socket: TLSSocket,
  options: DialOptions,
  signal: AbortSignal,
): Promise<void> {
  const { hostname, port, websocket } = options;
  // deno-lint-ignore no-explicit-any -- Node's types of Web streams.
  let transport = toTransport(Duplex.toWeb(socket) as any);
  if (websocket !== undefined) {
    transport = await connectWebSocket(transport, {
      host: authority(hostname, port),
      ...(typeof websocket === "string" && { path: websocket }),
    });
  }
  const { psk, identity } = options;
  const channel = await shakeHands(
    transport,
    "client",
    { psk, identity, idleTimeout: 0, standby: true },
    signal,
  );
  try {
    await channel.confirmed;
  } finally {
    channel.abort();
  }
}

/** Whose it is, for a certificate that Deno has found trustworthy. */
export function whose(
  shown: X509Certificate,
  { caCerts = [] }: DialOptions,
): string {
  const expires = `it expires on ${dayOf(shown.validToDate)}`;
  // The certificate may have been renewed since; its key is the same then.
  const key = keyFingerprint(shown);
  const isOwn = caCerts
    .flatMap((pem) => parsePem("--ca", pem, "CERTIFICATE"))
    .some((own) => keyFingerprint(new X509Certificate(own)) === key);
  if (isOwn) {
    return `the server's own certificate, whose key --ca has; ${expires}`;
  }
  return `${nameOf(shown)}; trusted through its issuer; it belongs to the ` +
    `server or to a box in front of it; ${expires}`;
}

/** Whom a certificate is of, by its own word. */
export function nameOf(shown: X509Certificate): string {
  const oneLine = (name: string) => name.replaceAll("\n", ", ") || "nobody";
  return `a certificate of ${oneLine(shown.subject)}, issued by ` +
    `${oneLine(shown.issuer)}, key ${keyFingerprint(shown)}`;
}
