/**
 * Time, which stands still in tests until they say otherwise.
 *
 * @module
 */

/** What {@linkcode Clock.after} returns. */
export type Timer = ReturnType<typeof setTimeout>;

/** Time, in milliseconds. */
export interface Clock {
  /** Now, since some moment in the past. */
  now(): number;
  /** Calls back after this time; 25 days or more, and `Infinity`, mean never. */
  after(time: number, callback: () => void): Timer | undefined;
  /** Takes a timer back, if it has not fired. */
  clear(timer: Timer | undefined): void;
}

/** The longest time of a timer, in milliseconds: a longer one fires at once. */
const LONGEST_TIME = 2 ** 31 - 1;

/** The runtime's own. */
export const CLOCK: Clock = {
  now: () => performance.now(),
  after: (time, callback) =>
    time > LONGEST_TIME ? undefined : setTimeout(callback, time),
  clear: (timer) => clearTimeout(timer),
};
