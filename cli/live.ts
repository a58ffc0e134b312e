/**
 * Work in progress, which a stopping program waits for.
 *
 * @module
 */

import { abortable } from "@std/async/abortable";

/** Pieces of work, each with a signal that ends it early. */
export class Live {
  readonly #max: number;
  readonly #work = new Map<Promise<void>, AbortController>();
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
   * Begins a piece of work, and keeps it until it is done.
   *
   * @param begin Does not reject; ends soon after its signal.
   */
  add(begin: (signal: AbortSignal) => Promise<void>): void {
    const stop = new AbortController();
    const work = begin(stop.signal);
    this.#work.set(work, stop);
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
   * @param reason Why the rest is ended.
   * @returns How many had to be ended.
   */
  async drain(grace: number, reason?: Error): Promise<number> {
    const late = AbortSignal.timeout(grace);
    while (this.size > 0 && !late.aborted) {
      await abortable(this.left, late).catch(() => {});
    }
    const left = this.size;
    for (const stop of this.#work.values()) stop.abort(reason);
    await Promise.all(this.#work.keys());
    return left;
  }
}
