/**
 * What the system says when something on the network fails, written for people.
 *
 * @module
 */

import { areShort } from "./descriptors.ts";

type Words = string | {
  listen?: string;
  "listen unix"?: string;
  other: string;
};

const WORDS: Record<string, Words> = {
  EACCES: {
    listen: "permission denied; only root may use ports below 1024",
    other: "permission denied",
  },
  EADDRINUSE: {
    "listen unix": "the socket is in use",
    other: "the port is in use, perhaps by the same service on this machine",
  },
  EADDRNOTAVAIL: {
    listen: "this machine has no such address",
    other: "this machine has no free port left for a connection there, or no " +
      "address of that kind",
  },
  EAGAIN: "its queue is full",
  ECONNABORTED: "it cut the connection at once",
  ECONNREFUSED: "connection refused; is the service running?",
  ECONNRESET: "it cut the connection at once",
  EEXIST: "a file of that name exists",
  EHOSTUNREACH: "there is no route to it",
  EINVAL: { "listen unix": "the path is too long", other: "invalid argument" },
  EMFILE: "this program is out of file descriptors; raise 'ulimit -n'",
  ENAMETOOLONG: "the path is too long",
  ENETUNREACH: "there is no route to its network",
  ENFILE: "this machine is out of file descriptors",
  ENOENT: {
    "listen unix": "there is no such folder",
    other: "there is no such socket; is the service running?",
  },
  ENOTCONN: "it cut the connection at once",
  ETIMEDOUT: "no answer",
  NO_NAME: "there is no such name",
  NO_NAME_SERVER: "the name server does not answer",
  TOO_LONG: "the path is too long",
};

/** Errors without a code of the system, by their text. */
const TEXTS: [RegExp, string][] = [
  [/lookup address information: Temporary/, "NO_NAME_SERVER"],
  [/lookup address information/, "NO_NAME"],
  [/must be shorter than SUN_LEN/, "TOO_LONG"],
];

/** Codes that only the other side, or an address in use, gives. */
const CERTAIN = new Set(["EADDRINUSE", "ECONNREFUSED", "ECONNRESET", "ENFILE"]);

/**
 * Why an attempt failed.
 *
 * @param attempt Undefined if it was to connect.
 */
export function whyNotPlain(
  error: unknown,
  attempt?: "listen" | "listen unix",
): string {
  const words = WORDS[codeOf(error) ?? ""];
  if (words === undefined) return textOf(error);
  return typeof words === "string" ? words : words[attempt!] ?? words.other;
}

/** The system's code for an error, or one of ours where it has none. */
export function codeOf(error: unknown): string | undefined {
  const { code } = error as { code?: string };
  if (code !== undefined && CERTAIN.has(code)) return code;
  // The resolver needs a descriptor, and gives any reason when there is none.
  if (areShort()) return "EMFILE";
  if (code !== undefined && code in WORDS) return code;
  return TEXTS.find(([pattern]) => pattern.test(textOf(error)))?.[1];
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
