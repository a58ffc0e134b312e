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
export class VisibleText
  extends TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>> {
  /** Begins with a new text. */
  constructor() {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    const encoder = new TextEncoder();
    // What a carriage return does depends on what follows it.
    let held = "";
    const encode = (text: string) =>
      encoder.encode(text.replaceAll(ACTIVE_IN_TEXT, escaped));
    super({
      transform(bytes, controller) {
        const text = held + decoder.decode(bytes, { stream: true });
        held = text.endsWith("\r") ? "\r" : "";
        const shown = encode(text.slice(0, text.length - held.length));
        if (shown.length > 0) controller.enqueue(shown);
      },
      flush(controller) {
        const shown = encode(held + decoder.decode());
        if (shown.length > 0) controller.enqueue(shown);
      },
    });
  }
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
