/**
 * Sessions with the server, for callers to come.
 *
 * @module
 */

import { abortable } from "@std/async/abortable";
import { type Channel, ChannelError } from "../lib/mod.ts";

/** The first pause after a failure, in milliseconds; it doubles each time. */
const FIRST_PAUSE = 100;

/** The longest pause, in milliseconds: well within the patience of a caller. */
const LONGEST_PAUSE = 2_000;

/** At so many dials at a time one more would only slow down the others. */
const MAX_DIALS = 16;

/** The reserve shrinks by what nobody has needed for so long, in milliseconds. */
const REVIEW_INTERVAL = 30_000;

/**
 * What was taken is replaced after so long, in milliseconds: a handshake takes
 * several of them, and would hold up the caller's first words.
 */
const REFILL_DELAY = 20;

/** A session is there for good if it is there after so long, in milliseconds. */
const SETTLING_TIME = 300;

/** A session that dies this young counts as a failure, in milliseconds. */
const MIN_AGE = 1_000;

/** Is told what people should know. */
export type Report = (message: string) => void;

/** The server could not be reached in time; why has been reported. */
export class Unreachable extends Error {}

/** What a reserve needs. */
export interface ReserveOptions {
  /** Makes a session in standby, looking the server's name up anew. */
  dial: (signal: AbortSignal) => Promise<Channel>;
  /**
   * Is told once that the server cannot be reached, and once that it can be
   * again.
   */
  report: Report;
  /** Is told once that the first session is there. */
  ready?: () => void;
  /** What to report of a session that the server ends at once. */
  diedYoung: string;
  /** How many sessions may wait for callers; with 0 each is made when one comes. */
  max: number;
}

/** One who waits for a session. */
type Waiting = PromiseWithResolvers<Channel>;

/**
 * Keeps sessions proved and idle, as many as recent callers suggest, so that a
 * caller waits for one round trip only. Without one in reserve a caller waits
 * for the next that is made.
 *
 * A server that is away is dialled ever more rarely, one dial at a time.
 */
export class Reserve {
  readonly #options: ReserveOptions;
  readonly #stop = new AbortController();
  readonly #ready: Channel[] = [];
  readonly #waiting = new Set<Waiting>();
  /** How many are to be ready. */
  #target: number;
  /** How many have been ready at least, since the last review. */
  #spare = 0;
  #dials = 0;
  #isAnnounced = false;
  /** What is wrong, while something is. */
  #trouble: string | undefined;
  #pause = FIRST_PAUSE;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #refill: ReturnType<typeof setTimeout> | undefined;
  readonly #review: ReturnType<typeof setInterval>;

  /** Begins to dial at once, if it is to keep any. */
  constructor(options: ReserveOptions) {
    this.#options = options;
    this.#target = Math.min(1, options.max);
    this.#review = setInterval(() => this.#shrink(), REVIEW_INTERVAL);
    this.#fill();
  }

  /**
   * A session whose stream has not begun.
   *
   * @param patience How long it may take, in milliseconds.
   * @param isFresh Whether it must be a new one.
   * @throws {Unreachable} After that, and at once if the server is not trusted.
   */
  async take(
    patience: number,
    signal: AbortSignal,
    isFresh = false,
  ): Promise<Channel> {
    const ready = isFresh ? undefined : this.#ready.shift();
    this.#spare = Math.min(this.#spare, this.#ready.length);
    if (ready) {
      this.#refill ??= setTimeout(() => {
        this.#refill = undefined;
        this.#fill();
      }, REFILL_DELAY);
      return ready;
    }
    this.#target = Math.min(this.#target + 1, this.#options.max);
    const waiting = Promise.withResolvers<Channel>();
    this.#waiting.add(waiting);
    const timer = setTimeout(
      () => waiting.reject(new Unreachable("The server cannot be reached")),
      patience,
    );
    try {
      this.#fill();
      return await abortable(waiting.promise, signal);
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(waiting);
      // It may have been given one just when it gave up.
      waiting.promise.then(
        (late) => signal.aborted && this.#add(late),
        () => {},
      );
    }
  }

  /** Tries again now: what failed before may not fail any more. */
  renew(): void {
    for (const channel of this.#ready.splice(0)) channel.close();
    this.#pause = FIRST_PAUSE;
    this.#resume();
  }

  /** Keeps none any more; sessions that were taken live on. */
  close(): void {
    clearInterval(this.#review);
    clearTimeout(this.#retry);
    clearTimeout(this.#refill);
    this.#stop.abort(new Unreachable("The tunnel was closed"));
    for (const waiting of this.#waiting) {
      waiting.reject(this.#stop.signal.reason);
    }
    for (const channel of this.#ready.splice(0)) channel.close();
  }

  /** Dials as often as is wanted and allowed. */
  #fill(): void {
    const isPaused = this.#retry !== undefined || this.#stop.signal.aborted;
    if (isPaused) return;
    const max = this.#trouble === undefined ? MAX_DIALS : 1;
    const missing = this.#waiting.size + this.#target - this.#ready.length;
    for (let n = this.#dials; n < Math.min(max, missing); n++) this.#dial();
  }

  async #dial(): Promise<void> {
    this.#dials++;
    try {
      const channel = await this.#options.dial(this.#stop.signal);
      this.#succeeded();
      this.#announce(channel);
      this.#add(channel);
    } catch (error) {
      this.#failed(error as Error);
    } finally {
      this.#dials--;
      this.#fill();
    }
  }

  /** Tells of the first session that the server does not drop at once. */
  #announce(channel: Channel): void {
    if (this.#isAnnounced || !this.#options.ready) return;
    const timer = setTimeout(() => {
      if (!this.#isAnnounced) this.#options.ready?.();
      this.#isAnnounced = true;
    }, SETTLING_TIME);
    const stop = () => clearTimeout(timer);
    channel.closed.then(undefined, stop);
    this.#stop.signal.addEventListener("abort", stop);
  }

  #succeeded(): void {
    const { report, diedYoung } = this.#options;
    // Of a session that dies young one knows only later.
    if (this.#trouble === undefined || this.#trouble === diedYoung) return;
    report("Connected to the server again");
    this.#trouble = undefined;
  }

  /** Gives a session to who has waited longest, or keeps it. */
  #add(channel: Channel): void {
    if (this.#stop.signal.aborted) return channel.close();
    const [first] = this.#waiting;
    if (first) {
      this.#pause = FIRST_PAUSE;
      this.#waiting.delete(first);
      return first.resolve(channel);
    }
    const born = performance.now();
    this.#ready.push(channel);
    channel.closed.catch(() => {
      const index = this.#ready.indexOf(channel);
      if (index < 0) return;
      this.#ready.splice(index, 1);
      // A server that is being replaced, or a box that keeps no idle connection.
      if (performance.now() - born < MIN_AGE) {
        this.#failed(new Error(this.#options.diedYoung));
      } else {
        this.#pause = FIRST_PAUSE;
        this.#trouble = undefined;
      }
      this.#fill();
    });
  }

  #failed(error: Error): void {
    if (this.#stop.signal.aborted) return;
    const { message } = error;
    if (this.#trouble !== message) {
      this.#options.report(`${message}; trying again`);
    }
    this.#trouble = message;
    this.#waitABit();
    if (!isFinal(error)) return;
    for (const waiting of this.#waiting) waiting.reject(new Unreachable());
  }

  #waitABit(): void {
    if (this.#retry !== undefined) return;
    this.#retry = setTimeout(() => this.#resume(), this.#pause);
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
  }

  #resume(): void {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#fill();
  }

  #shrink(): void {
    this.#target = Math.max(
      Math.min(1, this.#options.max),
      this.#target - this.#spare,
    );
    while (this.#ready.length > this.#target) this.#ready.pop()!.close();
    this.#spare = this.#ready.length;
  }
}

/**
 * A certificate does not mend itself within seconds. But what looks like a
 * refusal may be a proxy whose servers are down, or a server that is full or
 * being replaced: each closes without a word, as one that does not know the key.
 */
function isFinal(error: Error): boolean {
  return error instanceof ChannelError && error.code === "untrusted";
}
