/**
 * Pauses between attempts that fail.
 *
 * @module
 */

/** Each pause is twice as long as the one before, up to a limit. */
export class Backoff {
  readonly #first: number;
  readonly #longest: number;
  #next: number;

  /** Both in milliseconds. */
  constructor(first: number, longest: number) {
    this.#first = this.#next = first;
    this.#longest = longest;
  }

  /** How long to wait now, in milliseconds. */
  next(): number {
    const pause = this.#next;
    this.#next = Math.min(2 * pause, this.#longest);
    return pause;
  }

  /** The next pause is the first one again. */
  reset(): void {
    this.#next = this.#first;
  }
}
