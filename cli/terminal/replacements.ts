/**
 * Notices when a server took bytes for text that are not text.
 *
 * @module
 */

import { Buffer } from "node:buffer";

/** U+FFFD, by which a decoder replaces what is not UTF-8, in UTF-8. */
const REPLACEMENT = Buffer.from("\ufffd");

/** Watches both directions of a conversation. */
export class Replacements {
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });
  readonly #sent = new Count();
  readonly #received = new Count();
  #isText = true;

  /**
   * Whether what was sent is not UTF-8, and more replacement characters came
   * back than were sent.
   */
  get areSeen(): boolean {
    return !this.#isText && this.#received.count > this.#sent.count;
  }

  /** These bytes were sent. */
  sent(bytes: Uint8Array): void {
    this.#sent.add(bytes);
    if (!this.#isText) return;
    try {
      this.#decoder.decode(bytes, { stream: true });
    } catch {
      this.#isText = false;
    }
  }

  /** These bytes came. */
  received(bytes: Uint8Array): void {
    this.#received.add(bytes);
  }
}

/** Counts the replacement characters in a stream. */
class Count {
  count = 0;
  /** The last two bytes, with which one may begin. */
  #last: Uint8Array = new Uint8Array(0);

  add(bytes: Uint8Array): void {
    const all = Buffer.concat([this.#last, bytes]);
    let at = -1;
    while ((at = all.indexOf(REPLACEMENT, at + 1)) >= 0) this.count++;
    this.#last = all.subarray(-2);
  }
}
