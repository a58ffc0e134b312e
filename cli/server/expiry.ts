/**
 * Says in time that a certificate is about to expire.
 *
 * @module
 */

import { timeWarning } from "../keys/certificates.ts";
import { CLOCK, type Clock, type Timer } from "../../lib/lock/clock.ts";
import type { Log } from "./log.ts";

/** How often a certificate's dates are looked at, in milliseconds. */
const DAY = 86_400_000;

/** Looks at the dates of the certificate in use, and again each day. */
export class Expiry implements Disposable {
  readonly #path: string;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #date: () => number;
  #cert: string | undefined;
  #timer: Timer | undefined;

  /**
   * @param path Where the certificate is, for the log.
   * @param clock Stands in for time in tests.
   * @param date Stands in for `Date.now` in tests.
   */
  constructor(path: string, log: Log, clock = CLOCK, date = Date.now) {
    this.#path = path;
    this.#log = log;
    this.#clock = clock;
    this.#date = date;
  }

  /** Looks at a certificate from now on; undefined if there is none. */
  follow(cert: string | undefined): void {
    this.#cert = cert;
    this.#look();
  }

  /** Looks no more. */
  [Symbol.dispose](): void {
    this.follow(undefined);
  }

  #look(): void {
    this.#clock.clear(this.#timer);
    if (this.#cert === undefined) return;
    const warning = timeWarning(this.#path, this.#cert, this.#date());
    if (warning !== undefined) this.#log("warning", warning);
    this.#timer = this.#clock.after(DAY, () => this.#look());
  }
}
