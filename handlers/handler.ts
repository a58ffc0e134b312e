/**
 * What a server does with a channel.
 *
 * @module
 */

import type { Channel } from "../lib/mod.ts";

/** Serves one channel, until both its directions have ended. */
export type Handler = (channel: Channel) => Promise<void>;
