/**
 * Turns of the event loop, for loops that a peer can feed.
 *
 * Where data is in a buffer already, awaiting it lets nothing else run: no timer,
 * no other connection. A peer that sends without pause could then stop a whole
 * process. So such a loop counts what it costs, and waits for a turn in time.
 *
 * @module
 */

import { nextTurn } from "./runtime.ts";

/**
 * How much work a loop may do in one turn: bytes, or what costs as much. A frame of
 * full length is a turn, and so are sixteen of whatever is short. With 64 KiB and
 * 64 of them, others waited up to half as long again, and bulk was no faster.
 */
const BUDGET = 16_384;

/** What the smallest piece of work costs: a read, or a short frame and its AES. */
const LEAST_COST = 1024;

/** Counts what a loop does, and says when others must have their turn. */
export class Turns {
  #left = BUDGET;

  /**
   * Counts a piece of work.
   *
   * @param cost How many bytes it deals with.
   * @returns What to wait for, if it is time.
   */
  spend(cost: number): Promise<void> | undefined {
    this.#left -= Math.max(cost, LEAST_COST);
    if (this.#left > 0) return undefined;
    this.#left = BUDGET;
    return nextTurn();
  }
}
