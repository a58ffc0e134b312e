/**
 * The one error class of a channel.
 *
 * @module
 */

/**
 * Why a channel failed, from a closed list.
 *
 * | code | what happened |
 * | --- | --- |
 * | `refused` | the peer does not hold the same key, or does not know the identity |
 * | `untrusted` | the server's TLS certificate is not trusted, is out of date, or has another name |
 * | `proxy` | a forward proxy did not let the connection through |
 * | `protocol` | the peer sent what `innerlock/1` (or TLS) does not allow |
 * | `cut` | the connection closed before the peer ended its stream |
 * | `timeout` | a time limit passed, or the peer answered no ping |
 * | `revoked` | the identity's key was removed or replaced |
 * | `service` | the client asked for a service that the listener does not have |
 * | `limit` | the listener had to make room for another connection |
 * | `aborted` | this side gave the channel up |
 */
export type ChannelErrorCode =
  | "refused"
  | "untrusted"
  | "proxy"
  | "protocol"
  | "cut"
  | "timeout"
  | "revoked"
  | "service"
  | "limit"
  | "aborted";

/**
 * A channel failed, or could not be made.
 *
 * The code is for this side's program and log. The peer learns nothing: it only
 * sees a connection that closes.
 *
 * @example Tell a wrong key from a network that failed
 * ```ts
 * import { ChannelError } from "@innerlock/innerlock";
 *
 * function exitCode(error: unknown): number {
 *   return error instanceof ChannelError && error.code === "refused" ? 3 : 1;
 * }
 *
 * const code = exitCode(new ChannelError("refused", "Wrong key"));
 * if (code !== 3) throw new Error();
 * ```
 */
export class ChannelError extends Error {
  /** The class's name. */
  override readonly name = "ChannelError";

  /** Why the channel failed. */
  readonly code: ChannelErrorCode;

  /**
   * Makes the error.
   *
   * @param code Why the channel failed.
   * @param message What failed, on what, and what to do: a sentence without
   * period.
   * @param options The error beneath, as `cause`.
   */
  constructor(code: ChannelErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** How much of a peer's text an error's message shows, in characters. */
const SHOWN_LENGTH = 80;

/**
 * What a peer said, for a line of a log: nothing in it is a control character.
 */
export function shown(said: string | Uint8Array): string {
  const isCut = said.length > SHOWN_LENGTH;
  const text = typeof said === "string"
    ? said.slice(0, SHOWN_LENGTH)
    : String.fromCharCode(...said.subarray(0, SHOWN_LENGTH));
  return text.replaceAll(
    /[^\x20-\x7e]/g,
    (c) => "\\x" + c.charCodeAt(0).toString(16).padStart(2, "0"),
  ) + (isCut ? "…" : "");
}
