/**
 * What grows with each attempt that fails, such as the pause before the next.
 *
 * @module
 */

/** A number that is twice the one before each time, up to a limit. */
export class Backoff {
  readonly #first: number;
  readonly #most: number;
  #next: number;

  /** For a pause, both are in milliseconds. */
  constructor(first: number, most: number) {
    this.#first = this.#next = first;
    this.#most = most;
  }

  /** What it is now. */
  next(): number {
    const next = this.#next;
    this.#next = Math.min(2 * next, this.#most);
    return next;
  }

  /** The next is the first one again. */
  reset(): void {
    this.#next = this.#first;
  }
}
