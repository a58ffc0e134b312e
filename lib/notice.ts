/**
 * Notices that are not to be repeated too often.
 *
 * @module
 */

/** How often a notice is given at most, in milliseconds. */
export const NOTICE_INTERVAL = 60_000;

/** Says when a notice is due: at once, and then once a minute at most. */
export class Notice {
  #last = -Infinity;

  /** Whether it is due now; if so, it counts as given. */
  isDue(): boolean {
    const now = performance.now();
    if (now - this.#last < NOTICE_INTERVAL) return false;
    this.#last = now;
    return true;
  }
}
