/**
 * What the system says when a connection or a listener fails, in words for
 * people.
 *
 * @module
 */

import { messageOf } from "./main.ts";

const UNKNOWN_NAME = /lookup address information: (?!Temporary)/;
const NO_ANSWER = "no answer; the address may be wrong, or a firewall silent";

const CONNECTING: [RegExp, string][] = [
  [
    /ECONNREFUSED/,
    "connection refused; is the server running, with --host 0.0.0.0 and this port?",
  ],
  [/ENETUNREACH/, "there is no way to its network; is this machine online?"],
  [/EHOSTUNREACH/, "there is no way to it; is it on, and the address right?"],
  [/ETIMEDOUT/, NO_ANSWER],
  [/ENOTCONN|ECONNRESET|ECONNABORTED/, "it cut the connection at once"],
  [UNKNOWN_NAME, "there is no such name; check --host"],
  [/lookup address information/, "the name server does not answer"],
];

const LISTENING: [RegExp, string][] = [
  [
    /EADDRINUSE/,
    "the port is in use; stop what uses it or choose another with --port",
  ],
  [
    /EADDRNOTAVAIL/,
    "this machine has no such address; 0.0.0.0 listens on all addresses",
  ],
  [UNKNOWN_NAME, "there is no such name; 0.0.0.0 listens on all addresses"],
  [
    /EACCES/,
    "this user may not listen on this port; choose one from 1024 on with --port",
  ],
  [
    /parse private key/,
    "Deno takes no key of this kind; make one with 'deno task certs'",
  ],
];

/** Why there is no connection. */
export function whyNotConnected(error: unknown): string {
  return inWords(error, CONNECTING);
}

/** Why nothing listens. */
export function whyNotListening(error: unknown): string {
  return inWords(error, LISTENING);
}

function inWords(error: unknown, table: [RegExp, string][]): string {
  const message = messageOf(error);
  const text = `${(error as { code?: string }).code} ${message}`;
  return table.find(([pattern]) => pattern.test(text))?.[1] ?? message;
}
