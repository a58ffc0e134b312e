/**
 * What a box on the way to the server does to a client, written for people: one
 * line that says what to do.
 *
 * @module
 */

import { HttpError } from "../../lib/carrier/http.ts";

/** How to go on where frames alone do not pass. */
export const BY_WEBSOCKET = "if a box in between speaks HTTP, use --websocket";

/**
 * Why no WebSocket was opened.
 *
 * @param target The server's `HOST:PORT`.
 */
export function whyNoWebSocket(error: HttpError, target: string): string {
  const { reason, status, startLine } = error;
  const fail = (why: string) => `Cannot open a WebSocket at ${target}: ${why}`;
  switch (reason) {
    case "not-http":
    case "too-long":
      return fail("it does not speak HTTP; try it without --websocket");
    case "closed":
      return fail(
        "it closed the connection without an answer; a box in between may not " +
          "reach the server",
      );
  }
  return fail(`it answered ${startLine}; ${adviceOn(status)}`);
}

/** What an answer that opens no WebSocket asks for. */
function adviceOn(status: number | undefined): string {
  switch (status) {
    case 401:
    case 403:
      return "a box in between does not let this through; ask whoever runs it";
    case 404:
      return "if the box passes on another path, give it with --websocket PATH";
    case 426:
      return "a box in between removes Upgrade from the request; " +
        "docs/BOXES.md has the lines that pass it on";
    case 502:
    case 503:
    case 504:
      return "a box in between cannot reach the server; is the server running?";
    default:
      return "is it innerlock, or a box in front of it?";
  }
}
