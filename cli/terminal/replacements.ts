/**
 * Notices when a server took bytes for text that are not text.
 *
 * @module
 */

/** U+FFFD, by which a decoder replaces what is not UTF-8, in UTF-8. */
const REPLACEMENT = [0xef, 0xbf, 0xbd] as const;

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
  /** How many of the character's bytes have just passed. */
  #matched = 0;

  add(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) {
      if (this.#matched === 0) {
        i = bytes.indexOf(REPLACEMENT[0], i);
        if (i < 0) return;
      }
      if (bytes[i] === REPLACEMENT[this.#matched]) this.#matched++;
      else this.#matched = bytes[i] === REPLACEMENT[0] ? 1 : 0;
      if (this.#matched < REPLACEMENT.length) continue;
      this.#matched = 0;
      this.count++;
    }
  }
}
