/**
 * What a server does with a channel.
 *
 * @module
 */

import type { Channel } from "../lib/mod.ts";

/**
 * Serves one channel, until both its directions have ended.
 *
 * The signal tells that the server has stopped and the channel is aborted: it
 * is for a handler that has more to wait for than the channel.
 */
export type Handler = (channel: Channel, signal: AbortSignal) => Promise<void>;
