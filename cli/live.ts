/**
 * Work in progress, which a stopping program waits for.
 *
 * @module
 */

import { abortable } from "@std/async/abortable";

/** Pieces of work, each with a way to end it early. */
export class Live {
  readonly #max: number;
  readonly #work = new Map<Promise<void>, () => void>();
  #left = Promise.withResolvers<void>();

  /** @param max How many places there are. */
  constructor(max = Infinity) {
    this.#max = max;
  }

  /** How many there are. */
  get size(): number {
    return this.#work.size;
  }

  /** How many places are free. */
  get free(): number {
    return Math.max(0, this.#max - this.#work.size);
  }

  /**
   * Keeps a piece of work until it is done.
   *
   * @param work Does not reject.
   * @param end Makes it end soon.
   */
  add(work: Promise<void>, end: () => void): void {
    this.#work.set(work, end);
    work.finally(() => {
      this.#work.delete(work);
      this.#left.resolve();
      this.#left = Promise.withResolvers();
    });
  }

  /** Resolves when the next piece of work is done. */
  get left(): Promise<void> {
    return this.#left.promise;
  }

  /**
   * Waits until all work is done, at most for the grace time; then ends the
   * rest.
   *
   * @param grace In milliseconds.
   * @returns How many had to be ended.
   */
  async drain(grace: number): Promise<number> {
    const late = AbortSignal.timeout(grace);
    while (this.size > 0 && !late.aborted) {
      await abortable(this.left, late).catch(() => {});
    }
    const left = this.size;
    for (const end of this.#work.values()) end();
    await Promise.all(this.#work.keys());
    return left;
  }
}
