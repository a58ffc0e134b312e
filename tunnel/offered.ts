/**
 * Sessions that a client has offered, for callers on the server's side.
 *
 * @module
 */

import { CLOCK, type Clock, type Timer } from "../lib/lock/clock.ts";
import { nextTurn } from "../lib/lock/runtime.ts";
import { type Channel, ChannelError } from "../lib/mod.ts";
import type { Sessions } from "./caller.ts";
import { type Report, Unreachable, whenLate } from "./reserve.ts";

/**
 * A client that has offered nothing for so long is away, in milliseconds: it
 * needs less to replace what was taken.
 */
const AWAY_TIME = 3000;

/** What {@linkcode Offered} needs. */
interface OfferedOptions {
  /** Whose sessions they are. */
  identity: string;
  /** Gives the next that is offered, or throws the signal's reason. */
  open: (signal: AbortSignal) => Promise<Channel>;
  /** Is called once when the client goes, and once when it comes. */
  report: Report;
  /** Stands in for time in tests. */
  clock?: Clock;
}

/**
 * What one identity offers. If nothing is, a caller waits for the next session.
 * Whether the client is there is seen by what it offers, though nobody calls.
 */
export class Offered implements Sessions {
  readonly #options: OfferedOptions;
  readonly #clock: Clock;
  /** Those that nobody has taken. */
  readonly #idle = new Set<Channel>();
  /** Those that have ended, or were forsaken. */
  readonly #gone = new WeakSet<Channel>();
  /** When the last one was taken, by the clock. */
  #lastTaken = -Infinity;
  /** Whether the client is there; undefined before it has come. */
  #isThere: boolean | undefined;
  #away: Timer | undefined;

  /** For one identity. */
  constructor(options: OfferedOptions) {
    this.#options = options;
    this.#clock = options.clock ?? CLOCK;
  }

  /** The client has offered one more. */
  add(channel: Channel): void {
    this.#idle.add(channel);
    const gone = () => {
      this.#gone.add(channel);
      this.#remove(channel);
    };
    // One that is given up fails before it has closed.
    channel.opened.catch(gone);
    this.#clock.clear(this.#away);
    this.#away = undefined;
    if (this.#isThere) return;
    const { identity, report } = this.#options;
    report(`${identity} is there${this.#isThere === false ? " again" : ""}`);
    this.#isThere = true;
  }

  /**
   * A session whose stream has not begun: the one that has been idle for longest,
   * or the next that is offered.
   *
   * @param patience How long it may take, in milliseconds. While others get
   * theirs, it begins anew with each.
   * @throws {Unreachable} After that time.
   */
  async take(patience: number, signal: AbortSignal): Promise<Channel> {
    signal.throwIfAborted();
    const late = new AbortController();
    const stop = whenLate(
      this.#clock,
      patience,
      () => this.#lastTaken,
      () => late.abort(this.#unreachable()),
    );
    try {
      const either = AbortSignal.any([signal, late.signal]);
      const channel = await this.#next(either);
      this.#lastTaken = this.#clock.now();
      return channel;
    } finally {
      stop();
    }
  }

  /** As {@linkcode Sessions}: whatever killed one has killed these. */
  forsake(silence: number): void {
    for (const channel of this.#idle) {
      if (channel.silence < silence) continue;
      this.#gone.add(channel);
      channel.abort(new ChannelError("timeout", "It gave no sign of life"));
    }
  }

  /** The next that is not known to be dead. */
  async #next(signal: AbortSignal): Promise<Channel> {
    while (true) {
      const channel = await this.#options.open(signal);
      this.#remove(channel);
      // What killed another may have reached this one, and not been read yet.
      await nextTurn();
      if (this.#gone.has(channel)) continue;
      if (!signal.aborted) return channel;
      channel.abort(new ChannelError("stopping", "Its caller has left"));
      throw signal.reason;
    }
  }

  /** Tells nothing more. */
  close(): void {
    this.#clock.clear(this.#away);
    this.#isThere = undefined;
  }

  #remove(channel: Channel): void {
    if (!this.#idle.delete(channel) || this.#idle.size > 0) return;
    if (!this.#isThere) return;
    this.#away ??= this.#clock.after(AWAY_TIME, () => {
      this.#away = undefined;
      this.#isThere = false;
      const { identity, report } = this.#options;
      report(`${identity} is away, or offers nothing: callers wait for it`);
    });
  }

  #unreachable(): Unreachable {
    const { identity } = this.#options;
    return new Unreachable(
      this.#isThere
        ? `${identity} has offered no session in time`
        : `${identity} is away`,
    );
  }
}
