/**
 * What a server does with a channel.
 *
 * @module
 */

import type { Channel } from "../lib/mod.ts";

/**
 * Serves one channel, until both its directions have ended.
 *
 * The signal says that the server has stopped and the channel is aborted. It is
 * for handlers that wait for more than the channel.
 */
export type Handler = (channel: Channel, signal: AbortSignal) => Promise<void>;
