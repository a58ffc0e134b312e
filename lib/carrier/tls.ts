/**
 * The outer lock: the steps of Deno's TLS, and what its failures mean.
 *
 * @module
 */

import { orClose } from "../lock/deadline.ts";
import { tlsError } from "./tls_errors.ts";
import { closeQuietly, type Transport, writeAll } from "../lock/transport.ts";

/** The ALPN name of a server that ends TLS itself. */
export const ALPN = "innerlock/1";

/**
 * Does the TLS handshake.
 *
 * @returns What was agreed on.
 */
export async function finishTls(
  conn: Deno.TlsConn,
  role: "client" | "server",
  peer: string,
): Promise<Deno.TlsHandshakeInfo> {
  return await conn.handshake().catch((error) => {
    throw tlsError(error, role, peer);
  });
}

/** A fatal alert (RFC 8446, section 6) as a connection's first record. */
const FATAL_ALERT = Uint8Array.of(21, 3, 1, 0, 2, 2, 80);

/**
 * Waits for a TLS server's sign of life: it closes a connection that begins with
 * a fatal alert. This always frees the connection, unlike a TLS handshake that
 * stalls.
 */
export async function awaitSign(
  conn: Transport,
  signal: AbortSignal,
): Promise<void> {
  await orClose(conn, signal, async () => {
    await writeAll(conn, FATAL_ALERT);
    // However it ends, the server has answered.
    await conn.read(new Uint8Array(1)).catch(() => {});
  });
  closeQuietly(conn);
}
