/**
 * Makes other people's text safe to show: a peer, its certificate, the network
 * and the file system all choose text that a program prints.
 *
 * @module
 */

/**
 * Characters that do something instead of showing something: the control
 * characters of ASCII and Latin-1, line separators, half a surrogate pair, and
 * those that reverse the direction of the text after them.
 */
const ACTIVE = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/gu;

/** The same, but for what lays out ordinary text: tabs and ends of lines. */
const ACTIVE_IN_TEXT = new RegExp(`(?!\\t|\\r?\\n)${ACTIVE.source}`, "gu");

/**
 * A line whose control characters are written as `\u001b`, which is what JSON
 * takes too: a line of JSON still says the same.
 */
export function visible(line: string): string {
  return line.replaceAll(ACTIVE, escaped);
}

/**
 * Text of any length and bytes of any kind as a terminal may show them: its
 * lines and tabs stay, and all other control characters are escaped.
 */
export function visibleText(
  bytes: ReadableStream<Uint8Array<ArrayBuffer>>,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  // What a carriage return does depends on what follows it.
  let held = "";
  const show = (text: string) => text.replaceAll(ACTIVE_IN_TEXT, escaped);
  return bytes
    .pipeThrough(new TextDecoderStream("utf-8", { ignoreBOM: true }))
    .pipeThrough(
      new TransformStream<string, string>({
        transform(text, controller) {
          const all = held + text;
          held = all.endsWith("\r") ? "\r" : "";
          controller.enqueue(show(all.slice(0, all.length - held.length)));
        },
        flush: (controller) => controller.enqueue(show(held)),
      }),
    )
    .pipeThrough(new TextEncoderStream());
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
