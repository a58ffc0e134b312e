/**
 * The server's log, on stderr: a line for each event, for people or for
 * machines.
 *
 * @module
 */

import { stderr } from "../terminal/output.ts";
import { count } from "../terminal/words.ts";

/** How the log is written. */
export const LOG_FORMATS = ["text", "json"] as const;

/** One of {@linkcode LOG_FORMATS}. */
type LogFormat = typeof LOG_FORMATS[number];

/** What is known of an event: never a secret, never what was said. */
export interface LogFields {
  /** The peer's address. */
  address?: string;
  /** The peer's identity, once it is proved. */
  identity?: string;
  /** Others, which the message tells people of. */
  [name: string]: string | number | undefined;
}

/** Writes an event: for machines its name and fields, for people its message. */
export type Log = (event: string, message: string, fields?: LogFields) => void;

/** A log on stderr. */
export function stderrLog(format: LogFormat): Log {
  const lineOf: (...event: Parameters<Log>) => string = (
    event,
    message,
    fields = {},
  ) => {
    const time = new Date().toISOString();
    const { address, identity } = fields;
    return format === "json"
      ? JSON.stringify({ time, event, message, ...fields })
      : [time, address, identity, message].filter(Boolean).join(" ");
  };
  stderr.describeLoss = (lost) => {
    const what = count(lost, "line of the log was", "lines of the log were");
    return lineOf("lost", `${what} lost here`, { count: lost });
  };
  return (...event) => stderr.line(lineOf(...event));
}
