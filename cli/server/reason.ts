/**
 * Why a client left, or was never let in.
 *
 * @module
 */

import { ChannelError, type ChannelErrorCode } from "../../lib/mod.ts";

/**
 * Why a client left, or was never let in. `failed` means that a handler did.
 */
export type Reason = "end" | ChannelErrorCode | "failed";

/** The reason that an error is. */
export function reasonOf(error: unknown): Reason {
  return error instanceof ChannelError ? error.code : "failed";
}
