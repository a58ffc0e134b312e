/**
 * Sessions with the server, for callers to come.
 *
 * @module
 */

import { Backoff } from "../lib/backoff.ts";
import { CLOCK, type Clock, type Timer } from "../lib/lock/clock.ts";
import {
  type Channel,
  ChannelError,
  type ChannelErrorCode,
} from "../lib/mod.ts";
import { Dials } from "./dials.ts";

/** The first pause after a failure, in milliseconds; it doubles each time. */
const FIRST_PAUSE = 100;

/** The longest pause, in milliseconds: well within a caller's patience. */
const LONGEST_PAUSE = 2_000;

/** A failure this long after the one before is a first one, in milliseconds. */
const QUIET_TIME = 2 * LONGEST_PAUSE;

/**
 * How long it may take until both sides know a replaced certificate, in
 * milliseconds.
 */
const ROTATION_TIME = 2_000;

/** The reserve drops what nobody has needed for this long, in milliseconds. */
const REVIEW_INTERVAL = 30_000;

/**
 * A taken session is replaced after this long, in milliseconds: a handshake at
 * once would delay the caller's first words.
 */
const REFILL_DELAY = 20;

/** By then a server has answered, counted from the dial, in milliseconds. */
const CONFIRM_TIME = 10_000;

/** However long the dial took, it gets this long, in milliseconds. */
const SHORTEST_CONFIRM_TIME = 1_500;

/**
 * What does not pass by itself, and after how long callers are refused because of
 * it, in milliseconds. An untrusted certificate may be just being replaced. What
 * looks like a refusal is not among them: it may be a box whose servers are down.
 */
const HOPELESS: Partial<Record<ChannelErrorCode, number>> = {
  untrusted: ROTATION_TIME,
  service: 0,
  revoked: 0,
  limit: 0,
};

/** Takes messages for people. */
export type Report = (message: string) => void;

/** There is no session for a caller; the message says why. */
export class Unreachable extends Error {
  /** What is wrong, where it is known. */
  declare readonly cause: Error | undefined;
}

/** Places for callers. */
export interface Places {
  /** How many are free. */
  readonly free: number;
  /** Resolves when the next one is left. */
  readonly left: Promise<void>;
}

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
  /** How many sessions may wait for callers; with 0, none is made in advance. */
  max: number;
  /**
   * Gets each session that the server begins: those that are dialled are offers,
   * which nobody takes here.
   */
  serve?: (channel: Channel) => void;
  /** Where those that the server begins are carried: no more may wait for that. */
  places?: Places;
  /** The places for dials. @default They are this reserve's own. */
  dials?: Dials;
  /** Stands in for time in tests. */
  clock?: Clock;
}

/** One who waits for a session. */
type Waiting = PromiseWithResolvers<Channel>;

/** What is wrong, while something is. */
interface Trouble {
  error: Error;
  /** Tells it from another: the words may differ each time. */
  kind: string;
  /** When it began, by the clock. */
  since: number;
}

/**
 * Keeps as many sessions proved and idle as recent callers suggest, so that a
 * caller waits for only one round trip. If none is in reserve, a caller waits
 * for the next one. A session counts only once the server has answered in it:
 * one that dies before costs no caller anything.
 *
 * A server that is away is dialled less and less often, one dial at a time.
 */
export class Reserve {
  readonly #options: ReserveOptions;
  readonly #clock: Clock;
  readonly #dials: Dials;
  readonly #stop = new AbortController();
  readonly #waiting = new Set<Waiting>();
  readonly #backoff = new Backoff(FIRST_PAUSE, LONGEST_PAUSE);
  /** Oldest first. */
  readonly #ready = new Set<Channel>();
  /** Those that the server has begun: they are not the reserve's any more. */
  readonly #begun = new WeakSet<Channel>();
  /** How many are to be ready. */
  #target: number;
  /** The fewest that were ready since the last review. */
  #spare = 0;
  #dialling = 0;
  #lastSuccess = -Infinity;
  #lastFailure = -Infinity;
  #isAnnounced = false;
  /** Whether it is told when the next place is left. */
  #isFull = false;
  #trouble: Trouble | undefined;
  #retry: Timer | undefined;
  #refill: Timer | undefined;
  #review: Timer | undefined;

  /** Begins to dial at once, if it is to keep any. */
  constructor(options: ReserveOptions) {
    this.#options = options;
    this.#clock = options.clock ?? CLOCK;
    this.#dials = options.dials ?? new Dials(this.#clock);
    this.#target = this.#least;
    this.#reviewLater();
    this.#fill();
  }

  /** How many are ready though nobody needs them. */
  get #least(): number {
    const { serve, max } = this.#options;
    return serve ? 1 : Math.min(1, max);
  }

  /** How many sessions are still to be made, for callers and for the reserve. */
  get missing(): number {
    const free = this.#options.places?.free ?? Infinity;
    const wanted = this.#waiting.size + Math.min(this.#target, free);
    return Math.max(0, wanted - this.#ready.size);
  }

  /**
   * A session whose stream has not begun: the one that was heard last, or the
   * next that is made.
   *
   * @param patience How long it may take, in milliseconds. While others get
   * theirs, it begins anew with each.
   * @param isFresh Whether it must be a new one.
   * @throws {Unreachable} After that time, or at once if there is no hope.
   */
  async take(
    patience: number,
    signal: AbortSignal,
    isFresh = false,
  ): Promise<Channel> {
    signal.throwIfAborted();
    const ready = isFresh ? undefined : this.#pick();
    this.#spare = Math.min(this.#spare, this.#ready.size);
    if (ready) {
      this.#refill ??= this.#clock.after(REFILL_DELAY, () => {
        this.#refill = undefined;
        this.#fill();
      });
      return ready;
    }
    if (this.#retry !== undefined && this.#isHopeless) {
      throw this.#unreachable();
    }
    this.#grow();
    return await this.#wait(patience, signal);
  }

  /**
   * Drops those that have been silent for so long, in milliseconds: whatever
   * killed one that was heard later has killed them.
   */
  forsake(silence: number): void {
    for (const channel of this.#ready) {
      if (channel.silence >= silence) this.#drop(channel);
    }
    this.#fill();
  }

  /** Drops the reserve and dials again now: what failed before may work now. */
  renew(): void {
    for (const channel of this.#ready) this.#drop(channel);
    this.#backoff.reset();
    this.#resume();
  }

  /** Closes the reserve; sessions that were taken live on. */
  close(): void {
    for (const timer of [this.#review, this.#retry, this.#refill]) {
      this.#clock.clear(timer);
    }
    this.#stop.abort(new Unreachable("The tunnel was closed"));
    this.#refuseAll(this.#stop.signal.reason);
    for (const channel of this.#ready) this.#drop(channel);
  }

  #pick(): Channel | undefined {
    const [latest] = [...this.#ready].toSorted((a, b) => a.silence - b.silence);
    if (latest) this.#ready.delete(latest);
    return latest;
  }

  /** The next time, one more is to be ready. */
  #grow(): void {
    if (this.#target < this.#options.max) this.#target++;
  }

  async #wait(patience: number, signal: AbortSignal): Promise<Channel> {
    const waiting = Promise.withResolvers<Channel>();
    this.#waiting.add(waiting);
    const lastSuccess = () =>
      this.#trouble ? -Infinity : this.#dials.lastSuccess;
    const late = () => this.#refuse(waiting, this.#unreachable());
    const stop = whenLate(this.#clock, patience, lastSuccess, late);
    const onAbort = () => this.#refuse(waiting, signal.reason);
    signal.addEventListener("abort", onAbort);
    try {
      this.#fill();
      return await waiting.promise;
    } finally {
      stop();
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Dials as often as is wanted and allowed. */
  #fill(): void {
    if (this.#retry !== undefined || this.#stop.signal.aborted) return;
    const max = this.#trouble === undefined ? Infinity : 1;
    while (this.#dialling < Math.min(max, this.missing)) {
      const over = this.#dials.begin(this.#fillLater);
      if (!over) return;
      this.#dial(over);
    }
    this.#watchPlaces();
  }

  /** Where places limit what is offered, more may be wanted when one is left. */
  #watchPlaces(): void {
    const { places } = this.#options;
    if (!places || this.#isFull || places.free >= this.#target) return;
    this.#isFull = true;
    places.left.then(() => {
      this.#isFull = false;
      this.#fill();
    });
  }

  readonly #fillLater = () => this.#fill();

  async #dial(over: (hasSucceeded: boolean) => void): Promise<void> {
    this.#dialling++;
    const start = this.#clock.now();
    let hasSucceeded = false;
    try {
      const channel = await this.#options.dial(this.#stop.signal);
      if (this.#options.serve) {
        channel.opened.then(() => this.#serve(channel), () => {});
      }
      await this.#confirm(channel, start);
      hasSucceeded = true;
      this.#succeeded(start);
      this.#add(channel);
    } catch (error) {
      this.#failed(error as Error, start);
    }
    this.#dialling--;
    over(hasSucceeded);
    this.#fill();
  }

  /** Waits until the server has taken the session. */
  async #confirm(channel: Channel, start: number): Promise<void> {
    const left = CONFIRM_TIME - (this.#clock.now() - start);
    const time = Math.max(left, SHORTEST_CONFIRM_TIME);
    const timer = this.#clock.after(time, () => {
      const message = "The server proved its key, and then said nothing";
      channel.abort(new ChannelError("timeout", message));
    });
    const stop = () => this.#drop(channel);
    const { signal } = this.#stop;
    signal.addEventListener("abort", stop);
    if (signal.aborted) stop();
    try {
      await channel.confirmed;
      if (!this.#options.serve) return;
      // What may be refused yet is not the proof, but the offer behind it.
      await Promise.race([channel.opened, channel.probe()]);
    } finally {
      this.#clock.clear(timer);
      signal.removeEventListener("abort", stop);
    }
  }

  /** @param start When the dial began, by the clock. */
  #succeeded(start: number): void {
    this.#lastSuccess = this.#clock.now();
    // One that was under way when the trouble began does not end it.
    if (this.#trouble && start >= this.#trouble.since) {
      this.#options.report("Connected to the server again");
      this.#backoff.reset();
      this.#trouble = undefined;
    }
    if (!this.#isAnnounced) this.#options.ready?.();
    this.#isAnnounced = true;
  }

  /**
   * Gives a session to whoever has waited longest, or keeps it if it is wanted.
   */
  #add(channel: Channel): void {
    const [first] = this.#waiting;
    if (this.#begun.has(channel)) return;
    if (this.#stop.signal.aborted) this.#drop(channel);
    else if (first) {
      this.#waiting.delete(first);
      first.resolve(channel);
    } else if (this.#ready.size < this.#target) this.#keep(channel);
    else this.#drop(channel);
  }

  /** Gives up one that is not needed; the peer may go on with another. */
  #drop(channel: Channel): void {
    this.#ready.delete(channel);
    if (this.#begun.has(channel)) return;
    channel.abort(new ChannelError("stopping", "It was not needed any more"));
  }

  /** The server has begun one: another takes its place, or two if it was the last. */
  #serve(channel: Channel): void {
    this.#begun.add(channel);
    this.#ready.delete(channel);
    this.#spare = Math.min(this.#spare, this.#ready.size);
    if (this.#ready.size === 0) this.#grow();
    this.#options.serve!(channel);
    this.#fill();
  }

  /** Keeps a session, and replaces it if it dies in reserve. */
  #keep(channel: Channel): void {
    this.#ready.add(channel);
    channel.closed.catch((error) => {
      if (this.#ready.delete(channel)) this.#lost(error);
    });
  }

  #lost(error: unknown): void {
    const code = codeOf(error);
    if (code === "service" || code === "revoked") {
      return this.#failed(error as Error, Infinity);
    }
    // The server has no room for those that wait.
    if (code === "limit") this.#atLimit();
    this.#waitABit();
  }

  /** @param start When the dial began, by the clock; `Infinity` if none did. */
  #failed(error: Error, start: number): void {
    if (this.#stop.signal.aborted) return;
    if (codeOf(error) === "limit" && !this.#options.serve) {
      return this.#reachedLimit(error);
    }
    // Others came through meanwhile: this one had bad luck.
    const isAlone = this.#lastSuccess < start;
    if (!isAlone) this.#backoff.reset();
    this.#waitABit();
    if (!isAlone) return;
    const kind = codeOf(error) ?? error.message;
    if (this.#trouble?.kind !== kind) {
      this.#options.report(`${error.message}; trying again`);
      this.#trouble = { error, kind, since: this.#clock.now() };
    }
    if (this.#isHopeless) this.#refuseAll(this.#unreachable());
  }

  #atLimit(): void {
    const least = this.#options.serve ? 1 : 0;
    this.#target = Math.max(least, this.#ready.size);
  }

  /** Only those that are in use have room. */
  #reachedLimit(cause: Error): void {
    this.#atLimit();
    this.#backoff.reset();
    this.#waitABit();
    this.#refuseAll(new Unreachable(cause.message, { cause }));
  }

  /** Whether it is in vain to wait for a session. */
  get #isHopeless(): boolean {
    if (!this.#trouble) return false;
    const { error, since } = this.#trouble;
    const time = HOPELESS[codeOf(error) ?? "cut"] ?? Infinity;
    return this.#clock.now() - since >= time;
  }

  #unreachable(): Unreachable {
    const cause = this.#trouble?.error;
    const message = cause?.message ?? "No session with the server came in time";
    return new Unreachable(message, { cause });
  }

  #refuse(waiting: Waiting, reason: unknown): void {
    if (this.#waiting.delete(waiting)) waiting.reject(reason);
  }

  #refuseAll(reason: unknown): void {
    for (const waiting of this.#waiting) this.#refuse(waiting, reason);
  }

  #waitABit(): void {
    const now = this.#clock.now();
    if (now - this.#lastFailure > QUIET_TIME) this.#backoff.reset();
    this.#lastFailure = now;
    if (this.#retry !== undefined) return;
    const pause = this.#backoff.next();
    this.#retry = this.#clock.after(pause, () => this.#resume());
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
    this.#target = Math.max(this.#least, this.#target - this.#spare);
    for (const channel of this.#ready) {
      if (this.#ready.size <= this.#target) break;
      this.#drop(channel);
    }
    this.#spare = this.#ready.size;
  }
}

/**
 * Calls back when nobody has had a session for so long, in milliseconds: not since
 * now, and not since others had theirs.
 *
 * @param last When they had the last one, by the clock.
 * @returns What takes this back.
 */
export function whenLate(
  clock: Clock,
  patience: number,
  last: () => number,
  callback: () => void,
): () => void {
  const start = clock.now();
  const watch = () => {
    const left = Math.max(start, last()) + patience - clock.now();
    if (left <= 0) callback();
    else timer = clock.after(left, watch);
  };
  let timer = clock.after(patience, watch);
  return () => clock.clear(timer);
}

function codeOf(error: unknown): ChannelErrorCode | undefined {
  return error instanceof ChannelError ? error.code : undefined;
}
