/**
 * What the system says when a program cannot reach the server, or cannot listen,
 * with what its flags can do about it.
 *
 * @module
 */

import { codeOf, whyNotPlain } from "../../tunnel/system_errors.ts";
import { UsageError } from "./errors.ts";

const WORDS = {
  dial: {
    ECONNREFUSED: "connection refused; is the server running, with --host " +
      "0.0.0.0 and this port?",
    EHOSTUNREACH:
      "there is no route to it; is it on, and is the address right?",
    ENETUNREACH: "there is no route to its network; is this machine online?",
    ETIMEDOUT:
      "no answer; the address may be wrong, or a firewall may block it",
    NO_NAME: "there is no such name; check --host",
  },
  "connect to proxy": { ECONNREFUSED: "connection refused" },
  serve: {
    EACCES: "permission denied; only root may use ports below 1024: choose " +
      "another with --port",
    EADDRINUSE:
      "the port is in use; stop what uses it or choose another with --port",
    EADDRNOTAVAIL:
      "this machine has no such address; 0.0.0.0 listens on all addresses",
    NO_NAME: "there is no such name; 0.0.0.0 listens on all addresses",
  },
};

/** Why an attempt failed. */
export function whyNot(error: unknown, attempt: keyof typeof WORDS): string {
  const words: Record<string, string> = WORDS[attempt];
  return words[codeOf(error) ?? ""] ?? whyNotPlain(error);
}

/** What is so until somebody changes the flags or the machine. */
const LASTING = new Set([
  "EACCES",
  "EEXIST",
  "EINVAL",
  "ENAMETOOLONG",
  "ENOENT",
  "TOO_LONG",
]);

/**
 * An error of whoever cannot listen. It is one of usage unless listening may work
 * later with the same flags: another program leaves the port, or the network
 * comes up with the address.
 *
 * @param cause What the system says.
 */
export function cannotListen(message: string, cause: unknown): Error {
  const isLasting = LASTING.has(codeOf(cause) ?? "");
  return isLasting ? new UsageError(message) : new Error(message);
}
