/**
 * Finds out whether a silent peer is still there.
 *
 * @module
 */

/** A peer that has been silent for so long is asked for a sign, in milliseconds. */
export const IDLE_TIMEOUT = 60_000;

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
  readonly #giveUp: () => void;
  #lastHeard = performance.now();
  #isPinged = false;
  #isDeaf = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param interval In milliseconds; 0 for none of this. */
  constructor(interval: number, ping: () => void, giveUp: () => void) {
    this.#interval = interval;
    this.#ping = ping;
    this.#giveUp = giveUp;
    if (interval > 0) this.#wait(interval);
  }

  /** The peer has sent something, and this side reads. */
  heard(): void {
    this.#lastHeard = performance.now();
    this.#isPinged = false;
    this.#isDeaf = false;
  }

  /** This side does not read until it has {@linkcode heard} again. */
  deaf(): void {
    this.#isDeaf = true;
  }

  /** No more of this. */
  stop(): void {
    clearTimeout(this.#timer);
  }

  #wait(time: number): void {
    this.#timer = setTimeout(() => this.#check(), time);
  }

  #check(): void {
    const silence = performance.now() - this.#lastHeard;
    if (!this.#isDeaf && silence < this.#interval) {
      return this.#wait(this.#interval - silence);
    }
    if (this.#isPinged && !this.#isDeaf) return this.#giveUp();
    this.#isPinged = !this.#isDeaf;
    this.#ping();
    this.#wait(this.#interval);
  }
}
