/**
 * Files that a running program reads again when they change, and on request.
 *
 * @module
 */

import { Backoff } from "../lib/backoff.ts";
import { CLOCK, type Timer } from "../lib/lock/clock.ts";
import { messageOf } from "./advice/errors.ts";

/** How often the files are looked at, in milliseconds. */
const INTERVAL = 500;

/** The longest pause before unusable files are tried again, in ms. */
const LONGEST_PAUSE = 60_000;

/** After so many looks, a file that always changes is read all the same. */
const MAX_LOOKS = 40;

/**
 * How long to wait for files that are being read, and for what they say to be in
 * force, before somebody is told, in milliseconds.
 */
const PATIENCE = 10_000;

/** What is done with the files' last state. */
interface Follower<T> {
  /** Puts it in force. */
  take(state: T): Promise<void> | void;
  /** It is in force now. */
  taken(state: T): void;
  /** It is unusable, and the state before stays in force; called once. */
  failed(error: unknown): void;
}

/** What is not the default, for tests. */
export interface FollowOptions {
  /** How often the files are looked at, in milliseconds. */
  interval?: number;
  /** How long is waited before somebody is told, in milliseconds. */
  patience?: number;
  /** Stands in for `Deno.stat`. */
  stat?: (file: string) => Promise<Deno.FileInfo>;
}

/**
 * Follows files.
 *
 * They are not watched but polled. On every file system, that finds a file that
 * was renamed into place, is behind a link, or was away for a moment. A change
 * counts when a second look finds the same, so a file that is being written is
 * left alone.
 *
 * One state is taken at a time. Changes meanwhile ask for one more, so the last
 * state of the files counts in the end. If that takes long, because a file system
 * does not answer, the follower is told: nothing else can be taken before.
 */
export class FollowedFiles<T> implements Disposable {
  readonly #files: string[];
  readonly #read: (isFirst: boolean) => Promise<T>;
  readonly #options: Required<FollowOptions>;
  #looks = { last: "", taken: "", unsettled: 0 };
  #isAsked = false;
  #state: "waiting" | "taking" | "late" = "waiting";
  #timer: Timer | undefined;
  #failure: { message: string; pauses: Backoff; next: number } | undefined;
  #follower: Follower<T> | undefined;

  /** @param files The files that `read` reads. */
  constructor(
    files: string[],
    read: (isFirst: boolean) => Promise<T>,
    options: FollowOptions = {},
  ) {
    this.#files = files;
    this.#read = read;
    this.#options = {
      interval: INTERVAL,
      patience: PATIENCE,
      stat: Deno.stat,
      ...options,
    };
  }

  /** Reads the files for the first time. */
  async read(): Promise<T> {
    this.#looks.taken = await this.#look();
    return await this.#read(true);
  }

  /** Takes each later state of the files. */
  follow(follower: Follower<T>): void {
    this.#follower = follower;
    this.#wait();
  }

  /** Takes the files as they are now, and reports the result. */
  reload(): void {
    this.#isAsked = true;
    if (this.#follower && this.#state === "waiting") this.#wait();
    if (this.#state === "late") this.#tellLate();
  }

  /** Stops polling. */
  [Symbol.dispose](): void {
    this.#follower = undefined;
    CLOCK.clear(this.#timer);
  }

  #wait(): void {
    this.#state = "waiting";
    CLOCK.clear(this.#timer);
    const time = this.#isAsked ? 0 : this.#options.interval;
    this.#timer = CLOCK.after(time, () => this.#check());
  }

  async #check(): Promise<void> {
    this.#state = "taking";
    this.#timer = CLOCK.after(this.#options.patience, () => {
      this.#state = "late";
      this.#tellLate();
    });
    try {
      await this.#takeIfOther();
    } finally {
      CLOCK.clear(this.#timer);
      if (this.#follower) this.#wait();
    }
  }

  async #takeIfOther(): Promise<void> {
    const isAsked = this.#isAsked;
    this.#isAsked = false;
    const look = await this.#look();
    const isOther = look !== this.#looks.taken;
    const unsettled = look === this.#looks.last ? 0 : this.#looks.unsettled + 1;
    const isSettled = unsettled === 0 || unsettled >= MAX_LOOKS;
    const isDue = CLOCK.now() >= (this.#failure?.next ?? Infinity);
    this.#looks = { ...this.#looks, last: look, unsettled };
    if (isAsked || (isOther && isSettled) || isDue) {
      this.#looks = { ...this.#looks, taken: look, unsettled: 0 };
      await this.#take(isAsked);
    }
  }

  #tellLate(): void {
    const files = this.#files.join(", ");
    const seconds = this.#options.patience / 1000;
    const message = `${files}: reading them, or taking what they say, has ` +
      `not ended within ${seconds} s; it goes on`;
    this.#follower?.failed(new Error(message));
  }

  async #take(isAsked: boolean): Promise<void> {
    try {
      const state = await this.#read(false);
      await this.#follower?.take(state);
      this.#failure = undefined;
      this.#follower?.taken(state);
    } catch (error) {
      const message = messageOf(error);
      const isNews = isAsked || message !== this.#failure?.message;
      // It may be the system's: a lack of descriptors, say.
      const pauses = isNews
        ? new Backoff(2 * this.#options.interval, LONGEST_PAUSE)
        : this.#failure!.pauses;
      const next = CLOCK.now() + pauses.next();
      this.#failure = { message, pauses, next };
      if (isNews) this.#follower?.failed(error);
    }
  }

  /** What tells one state of the files from another. */
  async #look(): Promise<string> {
    const looks = this.#files.map(async (file) => {
      try {
        const info = await this.#options.stat(file);
        // A pipe cannot be read twice.
        if (!info.isFile) return "";
        const { dev, ino, size, mtime, ctime } = info;
        return [dev, ino, size, mtime?.getTime(), ctime?.getTime()].join();
      } catch (error) {
        return (error as Error).name;
      }
    });
    return (await Promise.all(looks)).join("\n");
  }
}
