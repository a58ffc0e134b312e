/**
 * What goes wrong for many callers, in few lines.
 *
 * @module
 */

import { ChannelError } from "../lib/mod.ts";
import { NOTICE_INTERVAL } from "../lib/notice.ts";
import { Unreachable } from "../tunnel/reserve.ts";

/** A kind of complaint, of which the last line was told a short while ago. */
interface Kind {
  /** The latest. */
  message: string;
  /** How many have come since. */
  more: number;
  timer: ReturnType<typeof setTimeout>;
}

/**
 * Tells the first of each kind at once. Those that follow are counted, and told
 * together once a minute.
 */
export class Complaints {
  readonly #tell: (message: string) => void;
  readonly #interval: number;
  readonly #kinds = new Map<string, Kind>();

  /**
   * @param tell Gets each line.
   * @param interval For how long they are counted, in milliseconds.
   */
  constructor(
    tell: (message: string) => void,
    interval: number = NOTICE_INTERVAL,
  ) {
    this.#tell = tell;
    this.#interval = interval;
  }

  /** @param kind What tells it from another: its words may differ each time. */
  add(kind: string, message: string): void {
    const known = this.#kinds.get(kind);
    if (known) {
      known.more++;
      known.message = message;
    } else {
      this.#kinds.set(kind, { message, more: 0, timer: this.#countOn(kind) });
      this.#tell(message);
    }
  }

  /** Tells how many there were beyond those that were told. */
  tellRest(): void {
    for (const [kind, { message, more, timer }] of this.#kinds) {
      clearTimeout(timer);
      this.#kinds.delete(kind);
      if (more > 0) this.#tell(`${message} (${more} more)`);
    }
  }

  #countOn(kind: string): Kind["timer"] {
    const timer = setTimeout(() => this.#tellMore(kind), this.#interval);
    Deno.unrefTimer(timer);
    return timer;
  }

  #tellMore(kind: string): void {
    const known = this.#kinds.get(kind)!;
    if (known.more === 0) {
      this.#kinds.delete(kind);
      return;
    }
    this.#tell(`${known.message} (${known.more} more)`);
    known.more = 0;
    known.timer = this.#countOn(kind);
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
