/**
 * Sends a channel's bytes back as they came.
 *
 * @module
 */

import type { Handler } from "./handler.ts";

/** How much is read at a time, in bytes. */
const BUFFER_LENGTH = 65_536;

/** Sends back whatever comes, text or not. */
export const echo: Handler = async (channel) => {
  const buffer = new Uint8Array(BUFFER_LENGTH);
  for (let count; (count = await channel.read(buffer)) !== null;) {
    await channel.write(buffer.subarray(0, count));
  }
  await channel.closeWrite();
  await channel.closed;
};
