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
 * | `service` | the client asked for a service that the server does not have |
 * | `backend` | what stands behind the service cannot be reached, or broke its connection |
 * | `limit` | the server had no room for the client, or had to make room for another |
 * | `stopping` | the server is stopping |
 * | `aborted` | the program, or whoever it serves, gave the channel up |
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
  | "backend"
  | "limit"
  | "stopping"
  | "aborted";

/** What a {@linkcode ChannelError} takes in addition. */
export interface ChannelErrorOptions extends ErrorOptions {
  /** Whether the peer gave the channel up, and said why. @default {false} */
  isFromPeer?: boolean;
}

/**
 * A channel failed, or could not be made.
 *
 * Until both sides have proved the key, the peer learns nothing of it: it only
 * sees a connection that closes. Later, whoever gives a channel up tells the peer
 * the code. For what was forged, damaged or out of order, silence stays.
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
  override readonly name: string = "ChannelError";

  /** Why the channel failed. */
  readonly code: ChannelErrorCode;

  /** Whether the peer gave the channel up, and said why. */
  readonly isFromPeer: boolean;

  /**
   * Makes the error.
   *
   * @param code Why the channel failed.
   * @param message What failed, on what, and what to do: a sentence without
   * period.
   * @param options The error beneath, as `cause`, and whether the peer said it.
   */
  constructor(
    code: ChannelErrorCode,
    message: string,
    { isFromPeer = false, ...options }: ChannelErrorOptions = {},
  ) {
    super(message, options);
    this.code = code;
    this.isFromPeer = isFromPeer;
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
