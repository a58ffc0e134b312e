/**
 * What a WebSocket's Close means whose code tells of a fault (RFC 6455, section
 * 7.4.1, and the registry of IANA).
 *
 * @module
 */

import type { Bytes } from "../lock/aes_gcm.ts";
import { ChannelError, shown } from "../lock/errors.ts";

/** What codes of a Close mean. */
const CLOSE_NAMES: Record<number, string> = {
  1001: "going away",
  1002: "a protocol error",
  1003: "data that it does not take",
  1007: "malformed text",
  1008: "its policy",
  1009: "a message that is too big for it",
  1010: "a missing extension",
  1011: "an internal error",
  1012: "a restart",
  1013: "too much to do, try again later",
  1014: "a bad gateway",
};

/** A Close that tells of a fault: often a box's, in between. */
export function closedFor(code: number, text: string | Bytes): ChannelError {
  const name = CLOSE_NAMES[code];
  const why = name === undefined ? "" : ` (${name})`;
  const said = text.length > 0 ? `: it said "${shown(text)}"` : "";
  const closer = "The other end of the WebSocket, or a box in between,";
  const message = `${closer} closed it with code ${code}${why}${said}`;
  return new ChannelError("cut", message);
}
