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

/**
 * Looks at the dates of the certificate in use, and again each day.
 *
 * @param path Where the certificate is, for the log.
 * @param clock Stands in for time in tests.
 * @param date Stands in for `Date.now` in tests.
 * @returns What takes the certificate that is in use from now on; undefined if
 * there is none.
 */
export function watchExpiry(
  path: string,
  log: Log,
  clock: Clock = CLOCK,
  date: () => number = Date.now,
): (cert: string | undefined) => void {
  let timer: Timer | undefined;
  return function look(cert) {
    clock.clear(timer);
    if (cert === undefined) return;
    const warning = timeWarning(path, cert, date());
    if (warning !== undefined) log("warning", warning);
    timer = clock.after(DAY, () => look(cert));
  };
}
