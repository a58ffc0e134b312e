/**
 * Finds out whether a silent peer is still there.
 *
 * @module
 */

/**
 * A peer that has been silent for so long is asked for a sign, in milliseconds.
 * Boxes in between close what has been silent for 60 s.
 */
export const IDLE_TIMEOUT = 25_000;

/** Of {@linkcode Clock.after}. */
export type Timer = ReturnType<typeof setTimeout>;

/** Time, in milliseconds. */
export interface Clock {
  now(): number;
  after(time: number, callback: () => void): Timer;
  clear(timer: Timer | undefined): void;
}

/** The runtime's own. */
export const CLOCK: Clock = {
  now: () => performance.now(),
  after: (time, callback) => setTimeout(callback, time),
  clear: (timer) => clearTimeout(timer),
};

/**
 * Pings a peer that has been silent for an interval, and gives it up when it
 * stays silent for another.
 *
 * While this side does not read, because what was received waits for the
 * application, the peer cannot be heard and is not given up. It is pinged then
 * too: a peer that keeps the same rule hears by it that this side is alive.
 */
export class Keepalive {
  readonly #interval: number;
  readonly #ping: () => void;
  readonly #giveUp: (silence: number) => void;
  readonly #clock: Clock;
  #lastHeard: number;
  #isPinged = false;
  #isDeaf = false;
  #timer: Timer | undefined;

  /**
   * @param interval In milliseconds; 0 for none of this.
   * @param giveUp Is told how long the peer has been silent, in milliseconds.
   * @param clock Stands in for time in tests.
   */
  constructor(
    interval: number,
    ping: () => void,
    giveUp: (silence: number) => void,
    clock: Clock = CLOCK,
  ) {
    this.#clock = clock;
    this.#lastHeard = clock.now();
    this.#interval = interval;
    this.#ping = ping;
    this.#giveUp = giveUp;
    if (interval > 0) this.#wait(interval);
  }

  /** The peer has sent something, and this side reads. */
  heard(): void {
    this.#lastHeard = this.#clock.now();
    this.#isPinged = false;
    this.#isDeaf = false;
  }

  /** How long the peer has been silent, in milliseconds. */
  get silence(): number {
    return this.#clock.now() - this.#lastHeard;
  }

  /** Pings the peer now, and gives it so long to answer. */
  ask(time: number): void {
    if (this.#interval === 0) return;
    this.#ping();
    this.#isPinged = true;
    this.#clock.clear(this.#timer);
    this.#timer = this.#clock.after(time, () => {
      if (this.#isPinged && !this.#isDeaf) this.#giveUp(this.silence);
      else this.#check();
    });
  }

  /** This side does not read until it has {@linkcode heard} again. */
  deaf(): void {
    this.#isDeaf = true;
  }

  /** No more of this. */
  stop(): void {
    this.#clock.clear(this.#timer);
  }

  #wait(time: number): void {
    this.#timer = this.#clock.after(time, () => this.#check());
  }

  #check(): void {
    const left = this.#interval - this.silence;
    if (!this.#isDeaf && left > 0) return this.#wait(left);
    if (this.#isPinged && !this.#isDeaf) return this.#giveUp(this.silence);
    this.#isPinged = !this.#isDeaf;
    this.#ping();
    this.#wait(this.#interval);
  }
}
