/**
 * Sends a channel's text back in upper case.
 *
 * @module
 */

import type { Handler } from "./handler.ts";

/**
 * Sends UTF-8 text back in Unicode's upper case (`straße` becomes `STRASSE`), as
 * it comes. The decoder joins a character that is split between chunks. What is
 * not UTF-8 becomes U+FFFD.
 */
export const upperCase: Handler = async (channel) => {
  await channel.readable
    .pipeThrough(new TextDecoderStream("utf-8", { ignoreBOM: true }))
    .pipeThrough(
      new TransformStream<string, string>({
        transform: (text, controller) => controller.enqueue(text.toUpperCase()),
      }),
    )
    .pipeThrough(new TextEncoderStream())
    .pipeTo(channel.writable);
  await channel.closed;
};
