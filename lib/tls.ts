/**
 * The outer lock: the steps of Deno's TLS, and what its failures mean.
 *
 * @module
 */

import { orClose } from "./deadline.ts";
import { tlsError } from "./tls_errors.ts";

/** What a server that speaks frames itself answers to a client that offers it. */
export const ALPN = "innerlock/1";

/**
 * Does the TLS handshake; closes the connection if it fails or must stop.
 *
 * @returns What was agreed on.
 */
export async function finishTls(
  conn: Deno.TlsConn,
  signal: AbortSignal,
  role: "client" | "server",
  peer: string,
): Promise<Deno.TlsHandshakeInfo> {
  return await orClose(
    conn,
    signal,
    async () =>
      await conn.handshake().catch((error) => {
        throw tlsError(error, role, peer);
      }),
  );
}
