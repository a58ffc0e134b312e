/**
 * What the system says when something on the network fails, written for people.
 *
 * @module
 */

import { areShort } from "../tunnel/descriptors.ts";
import { messageOf } from "./main.ts";

/** What was tried when it failed. */
export type Attempt =
  | "dial"
  | "connect to proxy"
  | "serve"
  | "connect"
  | "connect unix"
  | "listen"
  | "listen unix";

type Words = string | Partial<Record<Attempt, string>> & { other: string };

const WORDS: Record<string, Words> = {
  EACCES: {
    listen: "permission denied; only root may use ports below 1024",
    serve: "permission denied; only root may use ports below 1024: choose " +
      "another with --port",
    other: "permission denied",
  },
  EADDRINUSE: {
    serve:
      "the port is in use; stop what uses it or choose another with --port",
    "listen unix": "the socket is in use",
    other: "the port is in use, perhaps by the same service on this machine",
  },
  EADDRNOTAVAIL: {
    serve: "this machine has no such address; 0.0.0.0 listens on all addresses",
    other: "this machine has no such address",
  },
  EAGAIN: "its queue is full",
  ECONNABORTED: "it cut the connection at once",
  ECONNREFUSED: {
    dial: "connection refused; is the server running, with --host 0.0.0.0 " +
      "and this port?",
    "connect to proxy": "connection refused",
    other: "connection refused; is the service running?",
  },
  ECONNRESET: "it cut the connection at once",
  EEXIST: "a file of that name exists",
  EHOSTUNREACH: {
    dial: "there is no route to it; is it on, and is the address right?",
    other: "there is no route to it",
  },
  EINVAL: { "listen unix": "the path is too long", other: "invalid argument" },
  EMFILE: "this program is out of file descriptors; raise 'ulimit -n'",
  ENAMETOOLONG: "the path is too long",
  ENETUNREACH: {
    dial: "there is no route to its network; is this machine online?",
    other: "there is no route to its network",
  },
  ENFILE: "this machine is out of file descriptors",
  ENOENT: {
    "listen unix": "there is no such folder",
    other: "there is no such socket; is the service running?",
  },
  ENOTCONN: "it cut the connection at once",
  ETIMEDOUT: {
    dial: "no answer; the address may be wrong, or a firewall may block it",
    other: "no answer",
  },
  NO_KEY: "Deno takes no key of this kind; make one with 'deno task certs'",
  NO_NAME: {
    dial: "there is no such name; check --host",
    serve: "there is no such name; 0.0.0.0 listens on all addresses",
    other: "there is no such name",
  },
  NO_NAME_SERVER: "the name server does not answer",
  TOO_LONG: "the path is too long",
};

/** Errors without a code of the system, by their text. */
const TEXTS: [RegExp, string][] = [
  [/lookup address information: Temporary/, "NO_NAME_SERVER"],
  [/lookup address information/, "NO_NAME"],
  [/parse private key/, "NO_KEY"],
  [/must be shorter than SUN_LEN/, "TOO_LONG"],
];

/** Codes that only the other side, or an address in use, gives. */
const CERTAIN = new Set(["EADDRINUSE", "ECONNREFUSED", "ECONNRESET", "ENFILE"]);

/** Why an attempt failed. */
export function whyNot(error: unknown, attempt: Attempt): string {
  const words = WORDS[codeOf(error) ?? ""];
  if (words === undefined) return messageOf(error);
  return typeof words === "string" ? words : words[attempt] ?? words.other;
}

function codeOf(error: unknown): string | undefined {
  const { code } = error as { code?: string };
  if (code !== undefined && CERTAIN.has(code)) return code;
  // The resolver needs a descriptor, and gives any reason when there is none.
  if (areShort()) return "EMFILE";
  if (code !== undefined && code in WORDS) return code;
  const message = messageOf(error);
  return TEXTS.find(([pattern]) => pattern.test(message))?.[1];
}
