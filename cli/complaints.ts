/**
 * What goes wrong for many callers, in few lines.
 *
 * @module
 */

import { CLOCK, type Clock, type Timer } from "../lib/lock/clock.ts";
import { ChannelError } from "../lib/mod.ts";
import { NOTICE_INTERVAL } from "../lib/notice.ts";
import { Unreachable } from "../tunnel/reserve.ts";

/**
 * Tells the first of each kind at once. Those that follow are counted, and told
 * together once a minute.
 */
export class Complaints {
  readonly #tell: (message: string) => void;
  readonly #clock: Clock;
  /** The latest message of each kind, and how many have not been told. */
  readonly #kinds = new Map<string, { message: string; more: number }>();
  #timer: Timer | undefined;

  /**
   * @param tell Gets each line.
   * @param clock Stands in for time in tests.
   */
  constructor(tell: (message: string) => void, clock: Clock = CLOCK) {
    this.#tell = tell;
    this.#clock = clock;
  }

  /** @param kind What tells it from another: its words may differ each time. */
  add(kind: string, message: string): void {
    const known = this.#kinds.get(kind);
    if (!known) this.#tell(message);
    this.#kinds.set(kind, { message, more: known ? known.more + 1 : 0 });
    if (this.#timer === undefined) this.#countOn();
  }

  /** Tells how many there were beyond those that were told. */
  tellRest(): void {
    this.#tellMore();
    this.#kinds.clear();
    this.#countOn();
  }

  #tellMore(): void {
    for (const [kind, known] of this.#kinds) {
      if (known.more > 0) this.#tell(`${known.message} (${known.more} more)`);
      else this.#kinds.delete(kind);
      known.more = 0;
    }
  }

  /** Goes on as long as there is anything to count. */
  #countOn(): void {
    this.#clock.clear(this.#timer);
    this.#timer = undefined;
    if (this.#kinds.size === 0) return;
    this.#timer = this.#clock.after(NOTICE_INTERVAL, () => {
      this.#tellMore();
      this.#countOn();
    });
  }
}

/** What is said of a caller that has failed, and what tells it from another. */
export function complaintOf(error: Error): [kind: string, message: string] {
  if (!(error instanceof Unreachable)) return [kindOf(error), error.message];
  const kind = `refused: ${error.cause && kindOf(error.cause)}`;
  return [kind, `a caller was refused: ${error.message}`];
}

/** Its words may differ each time. */
function kindOf(error: Error): string {
  return error instanceof ChannelError ? error.code : error.message;
}
