/**
 * The outer lock: the steps of Deno's TLS, and what its failures mean.
 *
 * @module
 */

import { orClose } from "./deadline.ts";
import { tlsError } from "./tls_errors.ts";

/** Does the TLS handshake; closes the connection if it fails or must stop. */
export async function finishTls(
  conn: Deno.TlsConn,
  signal: AbortSignal,
  role: "client" | "server",
  peer: string,
): Promise<void> {
  await orClose(conn, signal, async () => {
    await conn.handshake().catch((error) => {
      throw tlsError(error, role, peer);
    });
  });
}
