/**
 * Finds out whether a silent peer is still there.
 *
 * @module
 */

import { CLOCK, type Clock, type Timer } from "./clock.ts";

/**
 * How long a peer may be silent before it is pinged, in milliseconds. Many boxes
 * close a connection that has been silent for 60 s.
 */
export const IDLE_TIMEOUT = 25_000;

/**
 * Pings a peer that has been silent for an interval, and gives it up when it
 * stays silent for another.
 *
 * A side that has said nothing for an interval pings too, though it hears much.
 * So its peer need not wait for a pong, which a ping behind megabytes on a slow
 * way may not bring in time.
 *
 * While the application does not take what was received, this side does not
 * read. It cannot hear the peer then, and does not give it up. It still pings,
 * so that a peer with the same rule knows that this side is alive.
 */
export class Keepalive {
  readonly #interval: number;
  readonly #ping: () => void;
  readonly #giveUp: (silence: number) => void;
  readonly #clock: Clock;
  readonly #lastSaid: () => number;
  #lastHeard: number;
  #isPinged = false;
  #isDeaf = false;
  #isStopped = false;
  #timer: Timer | undefined;

  /**
   * @param interval In milliseconds; 0 turns keepalive off.
   * @param giveUp Is told how long the peer has been silent, in milliseconds.
   * @param clock Stands in for time in tests.
   * @param lastSaid When this side last said something, by the clock.
   */
  constructor(
    interval: number,
    ping: () => void,
    giveUp: (silence: number) => void,
    clock: Clock = CLOCK,
    lastSaid: () => number = clock.now,
  ) {
    this.#clock = clock;
    this.#lastSaid = lastSaid;
    this.#lastHeard = clock.now();
    this.#interval = interval;
    this.#ping = ping;
    this.#giveUp = giveUp;
    if (interval > 0) this.#wait(interval);
  }

  /** The peer has sent something. */
  heard(): void {
    this.#lastHeard = this.#clock.now();
    this.#isPinged = false;
  }

  /** How long the peer has been silent, in milliseconds. */
  get silence(): number {
    return this.#clock.now() - this.#lastHeard;
  }

  /** Whether this side does not read. */
  get isDeaf(): boolean {
    return this.#isDeaf;
  }

  /** This side does not read, or reads again. */
  deaf(isDeaf: boolean): void {
    this.#isDeaf = isDeaf;
    if (!isDeaf) this.heard();
  }

  /** Stops pinging. */
  stop(): void {
    this.#isStopped = true;
    this.#clock.clear(this.#timer);
  }

  #wait(time: number): void {
    // A ping may end the session.
    if (this.#isStopped) return;
    this.#timer = this.#clock.after(time, () => this.#check());
  }

  #check(): void {
    const left = this.#isDeaf ? 0 : this.#interval - this.silence;
    if (left > 0) {
      const quiet = this.#clock.now() - this.#lastSaid();
      if (quiet < this.#interval) {
        return this.#wait(Math.min(left, this.#interval - quiet));
      }
      this.#ping();
      return this.#wait(left);
    }
    if (this.#isPinged && !this.#isDeaf) return this.#giveUp(this.silence);
    this.#isPinged = !this.#isDeaf;
    this.#ping();
    this.#wait(this.#interval);
  }
}
