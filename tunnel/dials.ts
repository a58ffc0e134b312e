/**
 * How many dials run at a time.
 *
 * @module
 */

import { CLOCK, type Clock } from "../lib/lock/clock.ts";

/** How many run at a time before any has shown how long one takes. */
const FIRST_LIMIT = 2;

/** How many run at a time at most: a server has few places for newcomers. */
const MAX_LIMIT = 16;

/** A dial that takes so many times as long as one alone waited for others. */
const SLOW = 2;

/**
 * So does one that takes so long, in milliseconds, whatever it takes alone: others
 * may dial the same server, and all have 10 s.
 */
const SLOW_TIME = 2000;

/**
 * The places for dials, for all reserves of a program together.
 *
 * Dials share the way to the server, and both ends' processors. Too many at a
 * time make each other late, until none is over in time. So there is a limit,
 * which follows what is measured: it grows by one with each dial that is as
 * fast as one alone, shrinks by one with each that is not, and halves with each
 * that fails.
 */
export class Dials {
  readonly #clock: Clock;
  /** Who wants a place, in the order in which they are told that there is one. */
  readonly #waiting = new Set<() => void>();
  #limit = FIRST_LIMIT;
  #running = 0;
  /** How many have begun. */
  #begun = 0;
  /** How long one takes that has the way for itself, in milliseconds. */
  #alone = Infinity;
  #lastSuccess = -Infinity;
  /** Whoever is told of a place may take that one, before others have theirs. */
  #isTelling = false;

  /** @param clock Stands in for time in tests. */
  constructor(clock: Clock = CLOCK) {
    this.#clock = clock;
  }

  /** How many may run at a time now. */
  get limit(): number {
    return this.#limit;
  }

  /** When the last one succeeded, by the clock. */
  get lastSuccess(): number {
    return this.#lastSuccess;
  }

  /**
   * Takes a place, if there is one.
   *
   * @param later Is called when there is a place again, if there is none now.
   * @returns What to call when the dial is over, and with whether it succeeded.
   */
  begin(later: () => void): ((hasSucceeded: boolean) => void) | undefined {
    const isItsTurn = this.#waiting.size === 0 || this.#isTelling;
    this.#isTelling = false;
    if (this.#running >= this.#limit || !isItsTurn) {
      this.#waiting.add(later);
      return undefined;
    }
    const start = this.#clock.now();
    const number = ++this.#begun;
    const wasAlone = ++this.#running === 1;
    return (hasSucceeded) => {
      this.#running--;
      if (hasSucceeded) {
        const now = this.#clock.now();
        this.#lastSuccess = now;
        this.#learn(now - start, wasAlone && number === this.#begun);
      } else this.#limit = Math.max(1, Math.floor(this.#limit / 2));
      this.#tell();
    };
  }

  #learn(time: number, isAlone: boolean): void {
    this.#alone = isAlone ? time : Math.min(this.#alone, time);
    const isSlow = time > Math.min(SLOW * this.#alone, SLOW_TIME);
    const change = isSlow ? -1 : 1;
    this.#limit = Math.max(1, Math.min(this.#limit + change, MAX_LIMIT));
  }

  #tell(): void {
    while (this.#running < this.#limit) {
      const [next] = this.#waiting;
      if (!next) return;
      this.#waiting.delete(next);
      this.#isTelling = true;
      next();
      this.#isTelling = false;
    }
  }
}
