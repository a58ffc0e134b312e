/**
 * Sessions with the server, for callers to come.
 *
 * @module
 */

import { CLOCK, type Clock, type Timer } from "../lib/lock/clock.ts";
import { type Channel, ChannelError } from "../lib/mod.ts";

/** The first pause after a failure, in milliseconds; it doubles each time. */
const FIRST_PAUSE = 100;

/**
 * How long it may take until both sides know a replaced certificate, in
 * milliseconds.
 */
const ROTATION_TIME = 2_000;

/** The longest pause, in milliseconds: well within a caller's patience. */
const LONGEST_PAUSE = 2_000;

/** How many dials run at a time; more would only slow each other down. */
export const MAX_DIALS = 16;

/** The reserve drops what nobody has needed for this long, in milliseconds. */
const REVIEW_INTERVAL = 30_000;

/**
 * A taken session is replaced after this long, in milliseconds: a handshake at
 * once would delay the caller's first words.
 */
const REFILL_DELAY = 20;

/**
 * The server keeps a session that lives this long, in milliseconds. One that
 * dies younger counts as a failure.
 */
const SETTLING_TIME = 300;

/** Takes messages for people. */
export type Report = (message: string) => void;

/** The server could not be reached in time; the reason has been reported. */
export class Unreachable extends Error {}

/** What a reserve needs. */
export interface ReserveOptions {
  /** Makes a session in standby, looking the server's name up anew. */
  dial: (signal: AbortSignal) => Promise<Channel>;
  /**
   * Is called once when the server cannot be reached, and once when it can
   * again.
   */
  report: Report;
  /** Is called once, when the first session is there. */
  ready?: () => void;
  /** What to report if the server ends sessions at once. */
  diedYoung: string;
  /** How many sessions may wait for callers; with 0, none is made in advance. */
  max: number;
  /** Stands in for time in tests. */
  clock?: Clock;
}

/** One who waits for a session. */
type Waiting = PromiseWithResolvers<Channel>;

/**
 * Keeps as many sessions proved and idle as recent callers suggest, so that a
 * caller waits for only one round trip. If none is in reserve, a caller waits
 * for the next one.
 *
 * A server that is away is dialled less and less often, one dial at a time.
 */
export class Reserve {
  readonly #options: ReserveOptions;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  readonly #ready: Channel[] = [];
  readonly #waiting = new Set<Waiting>();
  /** How many are to be ready. */
  #target: number;
  /** The fewest that were ready since the last review. */
  #spare = 0;
  #dials = 0;
  /** How many sessions in a row the server has ended at once. */
  #youngDeaths = 0;
  #isAnnounced = false;
  /** What is wrong, while something is. */
  #trouble: string | undefined;
  #troubleSince = 0;
  #pause = FIRST_PAUSE;
  #retry: Timer | undefined;
  #refill: Timer | undefined;
  #review: Timer | undefined;

  /** Begins to dial at once, if it is to keep any. */
  constructor(options: ReserveOptions) {
    this.#options = options;
    this.#clock = options.clock ?? CLOCK;
    this.#target = Math.min(1, options.max);
    this.#reviewLater();
    this.#fill();
  }

  /** How many sessions are still to be made, for callers and for the reserve. */
  get missing(): number {
    const wanted = this.#waiting.size + this.#target;
    return Math.max(0, wanted - this.#ready.length);
  }

  /**
   * A session whose stream has not begun.
   *
   * @param patience How long it may take, in milliseconds.
   * @param isFresh Whether it must be a new one.
   * @throws {Unreachable} After that time, or at once if the server is not
   * trusted.
   */
  async take(
    patience: number,
    signal: AbortSignal,
    isFresh = false,
  ): Promise<Channel> {
    signal.throwIfAborted();
    const ready = isFresh ? undefined : this.#ready.shift();
    this.#spare = Math.min(this.#spare, this.#ready.length);
    if (ready) {
      this.#refill ??= this.#clock.after(REFILL_DELAY, () => {
        this.#refill = undefined;
        this.#fill();
      });
      return ready;
    }
    this.#target = Math.min(this.#target + 1, this.#options.max);
    const waiting = Promise.withResolvers<Channel>();
    this.#waiting.add(waiting);
    const timer = this.#clock.after(
      patience,
      () => this.#refuse(waiting, new Unreachable("No session in time")),
    );
    const onAbort = () => this.#refuse(waiting, signal.reason);
    signal.addEventListener("abort", onAbort);
    try {
      this.#fill();
      return await waiting.promise;
    } finally {
      this.#clock.clear(timer);
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Drops the reserve and dials again now: what failed before may work now. */
  renew(): void {
    for (const channel of this.#ready.splice(0)) channel.close();
    this.#pause = FIRST_PAUSE;
    this.#resume();
  }

  /** Closes the reserve; sessions that were taken live on. */
  close(): void {
    for (const timer of [this.#review, this.#retry, this.#refill]) {
      this.#clock.clear(timer);
    }
    this.#stop.abort(new Unreachable("The tunnel was closed"));
    this.#refuseAll(this.#stop.signal.reason);
    for (const channel of this.#ready.splice(0)) channel.close();
  }

  /** Dials as often as is wanted and allowed. */
  #fill(): void {
    const isPaused = this.#retry !== undefined || this.#stop.signal.aborted;
    if (isPaused) return;
    const max = this.#trouble === undefined ? MAX_DIALS : 1;
    const dials = Math.min(max, this.missing);
    while (this.#dials < dials) this.#dial();
  }

  async #dial(): Promise<void> {
    this.#dials++;
    try {
      const channel = await this.#options.dial(this.#stop.signal);
      this.#connected();
      this.#watch(channel);
      this.#add(channel);
    } catch (error) {
      this.#failed(error as Error);
    } finally {
      this.#dials--;
      this.#fill();
    }
  }

  #connected(): void {
    // Whether the server keeps the session is known only later.
    if (this.#trouble !== this.#options.diedYoung) this.#recovered();
  }

  #recovered(): void {
    if (this.#trouble !== undefined) {
      this.#options.report("Connected to the server again");
    }
    this.#trouble = undefined;
  }

  /**
   * Gives a session to whoever has waited longest, or keeps it if it is wanted.
   */
  #add(channel: Channel): void {
    const [first] = this.#waiting;
    if (this.#stop.signal.aborted) channel.close();
    else if (first) {
      this.#waiting.delete(first);
      first.resolve(channel);
    } else if (this.#ready.length < this.#target) this.#ready.push(channel);
    else channel.close();
  }

  /** Learns whether a session lives, and replaces one that dies in reserve. */
  #watch(channel: Channel): void {
    let isYoung = true;
    const timer = this.#clock.after(SETTLING_TIME, () => {
      isYoung = false;
      this.#settled();
    });
    const stop = () => this.#clock.clear(timer);
    this.#stop.signal.addEventListener("abort", stop);
    channel.closed.catch(() => {}).finally(() => {
      stop();
      this.#stop.signal.removeEventListener("abort", stop);
      const index = this.#ready.indexOf(channel);
      if (index < 0) return;
      this.#ready.splice(index, 1);
      if (isYoung) this.#diedYoung();
      this.#fill();
    });
  }

  /** The first time, the server may be stopping; again, it lacks the service. */
  #diedYoung(): void {
    if (++this.#youngDeaths === 1) this.#waitABit();
    else this.#failed(new Error(this.#options.diedYoung));
  }

  /** The server keeps a session. */
  #settled(): void {
    this.#youngDeaths = 0;
    this.#recovered();
    this.#pause = FIRST_PAUSE;
    if (!this.#isAnnounced) this.#options.ready?.();
    this.#isAnnounced = true;
  }

  #failed(error: Error): void {
    if (this.#stop.signal.aborted) return;
    const { message } = error;
    if (this.#trouble !== message) {
      this.#troubleSince = this.#clock.now();
      this.#options.report(`${message}; trying again`);
    }
    this.#trouble = message;
    this.#waitABit();
    const age = this.#clock.now() - this.#troubleSince;
    if (isFinal(error) && age >= ROTATION_TIME) {
      this.#refuseAll(new Unreachable(message));
    }
  }

  #refuse(waiting: Waiting, reason: unknown): void {
    if (this.#waiting.delete(waiting)) waiting.reject(reason);
  }

  #refuseAll(reason: unknown): void {
    for (const waiting of this.#waiting) this.#refuse(waiting, reason);
  }

  #waitABit(): void {
    if (this.#retry !== undefined) return;
    this.#retry = this.#clock.after(this.#pause, () => this.#resume());
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
  }

  #resume(): void {
    this.#clock.clear(this.#retry);
    this.#retry = undefined;
    this.#fill();
  }

  #reviewLater(): void {
    this.#review = this.#clock.after(REVIEW_INTERVAL, () => {
      this.#shrink();
      this.#reviewLater();
    });
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
 * An untrusted certificate does not fix itself, unless it is just being
 * replaced. What looks like a refusal may be a proxy whose servers are down, or
 * a server that is full or being replaced: each closes without a word, like one
 * that does not know the key.
 */
function isFinal(error: Error): boolean {
  return error instanceof ChannelError && error.code === "untrusted";
}
