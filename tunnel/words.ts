/**
 * What the system says of a socket, in words for people.
 *
 * @module
 */

import { type Address, format } from "./address.ts";

const CONNECTING: Record<string, string> = {
  EACCES: "permission denied",
  EAGAIN: "its queue is full",
  ECONNREFUSED: "connection refused",
  EHOSTUNREACH: "there is no way to it",
  ENETUNREACH: "there is no way to it",
  ENOENT: "there is no such socket",
  ENOTFOUND: "there is no such name",
  ETIMEDOUT: "no answer",
};

const LISTENING: Record<string, string> = {
  EACCES: "permission denied; ports below 1024 are root's",
  EADDRINUSE: "the port is in use, perhaps by the same service here",
  EADDRNOTAVAIL: "it is no address of this machine",
  // Deno's word for the same.
  EINVAL: "it is no address of this machine",
  ENOTFOUND: "there is no such name",
};

const LISTENING_AT_PATH: Record<string, string> = {
  EACCES: "permission denied",
  EADDRINUSE: "the socket is in use",
  EINVAL: "the path is too long",
  ENOENT: "there is no such folder",
};

/** Why nobody could be reached; of a name, at each of its addresses. */
export function whyNotReached(address: Address, error: Error): string {
  const attempts: NodeJS.ErrnoException[] = error instanceof AggregateError
    ? error.errors
    : [error];
  const alike = Map.groupBy(attempts, (attempt) => say(CONNECTING, attempt));
  const reasons = [...alike].map(([reason, attempts]) => {
    const at = attempts.map((attempt) => addressOf(attempt))
      .filter((at) => at && !format(address).includes(at));
    return at.length > 0 ? `${reason} (${at.join(", ")})` : reason;
  });
  const isAbsent = attempts.every(({ code }) =>
    code === "ECONNREFUSED" || code === "ENOENT"
  );
  return reasons.join(", ") + (isAbsent ? "; is the service running?" : "");
}

/** Why an address could not be listened on. */
export function whyNotListening(address: Address, error: Error): string {
  return say("path" in address ? LISTENING_AT_PATH : LISTENING, error);
}

function say(words: Record<string, string>, error: Error): string {
  return words[(error as NodeJS.ErrnoException).code ?? ""] ?? error.message;
}

function addressOf(error: Error): string | undefined {
  return (error as { address?: string }).address;
}
