/**
 * What to do when the outer lock does not close.
 *
 * @module
 */

import { TlsError, type TlsErrorReason } from "../../lib/deno.ts";
import { messageOf } from "./errors.ts";

const ADVICE: Partial<Record<TlsErrorReason, string>> = {
  ca: "make one with 'deno task certs'",
  issuer: "join again, or copy cert.pem from the server again",
  expired: "set the clock, or renew it with 'deno task certs --renew' on the " +
    "server",
  "not-yet": "set the clock, or wait",
  name: "use one of its names with --host or --server-name, or make one with " +
    "'deno task certs --host NAME' on the server",
  certificate: "make one with 'deno task certs'",
  "client-certificate-missing": "give it one with --client-cert and " +
    "--client-key",
  "client-certificate-refused": "give it another with --client-cert and " +
    "--client-key",
  "certificate-issuer": "copy cert.pem to it again",
  "certificate-time": "compare the clocks, or renew it",
};

/** An error's message, with advice where TLS failed and there is some. */
export function withAdvice(error: unknown): string {
  const advice = error instanceof TlsError ? ADVICE[error.reason] : undefined;
  const message = messageOf(error);
  return advice === undefined ? message : `${message}; ${advice}`;
}
