/** A clock for tests, which stands still until they say so. */

import type { Clock, Timer } from "../lib/lock/clock.ts";

export class FakeClock implements Clock {
  #now = 0;
  #last = 0;
  readonly #timers = new Map<number, { at: number; callback: () => void }>();

  now = () => this.#now;

  after = (time: number, callback: () => void): Timer => {
    // As with the runtime's, what is due is not yet done.
    const at = this.#now + Math.max(1, time);
    this.#timers.set(++this.#last, { at, callback });
    return this.#last as unknown as Timer;
  };

  clear = (timer: Timer | undefined): void => {
    this.#timers.delete(timer as unknown as number);
  };

  /** How much time is left on each timer that is set, in order. */
  get left(): number[] {
    return [...this.#timers.values()].map(({ at }) => at - this.#now)
      .toSorted((a, b) => a - b);
  }

  /** Lets time pass, and each timer fire in its turn. */
  pass(time: number): void {
    const end = this.#now + time;
    while (true) {
      const [next] = [...this.#timers].toSorted((a, b) => a[1].at - b[1].at);
      if (!next || next[1].at > end) break;
      const [timer, { at, callback }] = next;
      this.#timers.delete(timer);
      this.#now = Math.max(this.#now, at);
      callback();
    }
    this.#now = end;
  }

  /** Time passes while no timer can fire, as on a busy machine. */
  stall(time: number): void {
    this.#now += time;
  }
}
