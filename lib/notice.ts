/**
 * Notices that are not to be repeated too often.
 *
 * @module
 */

import { CLOCK, type Clock } from "./lock/clock.ts";

/** How often a notice is given at most, in milliseconds. */
export const NOTICE_INTERVAL = 60_000;

/** Says when a notice is due: at once, and then once a minute at most. */
export class Notice {
  readonly #clock: Clock;
  #last = -Infinity;

  /** @param clock Stands in for time in tests. */
  constructor(clock: Clock = CLOCK) {
    this.#clock = clock;
  }

  /** Whether it is due now; if so, it counts as given. */
  isDue(): boolean {
    const now = this.#clock.now();
    if (now - this.#last < NOTICE_INTERVAL) return false;
    this.#last = now;
    return true;
  }
}
