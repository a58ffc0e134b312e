/**
 * A program's errors: what they say, and which exit code tells of them.
 *
 * @module
 */

import { ChannelError, type ChannelErrorCode } from "../../lib/mod.ts";

/** Exit codes: what a script can tell apart. */
export const Exit = {
  done: 0,
  failed: 1,
  usage: 2,
  refused: 3,
  // What a shell says of a program that a signal has ended, by its number.
  hungUp: 128 + 1,
  interrupted: 128 + 2,
  /** The reader of stdout wants no more: SIGPIPE. */
  unread: 128 + 13,
  terminated: 128 + 15,
} as const;

/**
 * The command line or the configuration is wrong; the message says what to do.
 */
export class UsageError extends Error {}

/** The reader of stdout has gone, as `head` does when it has what it wants. */
export class Unread extends Error {}

const REFUSALS = new Set<ChannelErrorCode>([
  "refused",
  "untrusted",
  "revoked",
]);

/** The exit code that tells of an error. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError || error instanceof Deno.errors.NotCapable) {
    return Exit.usage;
  }
  if (error instanceof Unread) return Exit.unread;
  const isRefusal = error instanceof ChannelError &&
    REFUSALS.has(error.code);
  return isRefusal ? Exit.refused : Exit.failed;
}

/** The same error, with what to do about it. */
export function advise(error: ChannelError, advice: string): ChannelError {
  const { code, message, isFromPeer, cause } = error;
  const said = `${message}; ${advice}`;
  return new ChannelError(code, said, { isFromPeer, cause });
}

/** An error's message in one line. */
export function messageOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.replaceAll(/\s*\n\s*/g, " ");
}
