/**
 * What a running program proves itself with. Its files are read again when they
 * change, and on request.
 *
 * @module
 */

import { messageOf } from "./advice/errors.ts";

/** How often the files are looked at, in milliseconds. */
const INTERVAL = 500;

/** The longest pause before unusable files are tried again, in ms. */
const LONGEST_PAUSE = 60_000;

/** What is done with the files' last state. */
export interface Follower<T> {
  /** Puts it in force. */
  take(credentials: T): Promise<void> | void;
  /** It is in force now. */
  taken(credentials: T): void;
  /** It is unusable, and the state before stays in force; called once. */
  failed(error: unknown): void;
}

/**
 * Credentials that live in files.
 *
 * Files are not watched but polled. On every file system, that finds a file that
 * was renamed into place, is behind a link, or was away for a moment. A change
 * counts when a second look finds the same, so a file that is being written is
 * left alone.
 *
 * One state is taken at a time. Changes meanwhile ask for one more, so the last
 * state of the files counts in the end.
 */
export class Credentials<T> implements Disposable {
  readonly #files: string[];
  readonly #read: (isFirst: boolean) => Promise<T>;
  readonly #interval: number;
  readonly #stat: (file: string) => Promise<Deno.FileInfo>;
  #looks = { last: "", taken: "" };
  #isAsked = false;
  #isTaking = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failure: { message: string; pause: number; next: number } | undefined;
  #follower: Follower<T> | undefined;

  /**
   * @param files The files that `read` reads.
   * @param interval How often they are looked at, in milliseconds.
   * @param stat Stands in for `Deno.stat` in tests.
   */
  constructor(
    files: string[],
    read: (isFirst: boolean) => Promise<T>,
    interval = INTERVAL,
    stat: (file: string) => Promise<Deno.FileInfo> = Deno.stat,
  ) {
    this.#files = files;
    this.#read = read;
    this.#interval = interval;
    this.#stat = stat;
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
    if (this.#follower && !this.#isTaking) this.#wait();
  }

  /** Stops polling. */
  [Symbol.dispose](): void {
    this.#follower = undefined;
    clearTimeout(this.#timer);
  }

  #wait(): void {
    clearTimeout(this.#timer);
    const time = this.#isAsked ? 0 : this.#interval;
    this.#timer = setTimeout(() => this.#check(), time);
  }

  async #check(): Promise<void> {
    this.#isTaking = true;
    const isAsked = this.#isAsked;
    this.#isAsked = false;
    const look = await this.#look();
    const isSettled = look === this.#looks.last;
    const isOther = look !== this.#looks.taken;
    const isDue = performance.now() >= (this.#failure?.next ?? Infinity);
    this.#looks.last = look;
    if (isAsked || (isOther && isSettled) || isDue) {
      this.#looks.taken = look;
      await this.#take(isAsked);
    }
    this.#isTaking = false;
    if (this.#follower) this.#wait();
  }

  async #take(isAsked: boolean): Promise<void> {
    try {
      const credentials = await this.#read(false);
      await this.#follower?.take(credentials);
      this.#failure = undefined;
      this.#follower?.taken(credentials);
    } catch (error) {
      const message = messageOf(error);
      const isNews = isAsked || message !== this.#failure?.message;
      // It may be the system's: a lack of descriptors, say.
      const pause = isNews
        ? 2 * this.#interval
        : Math.min(2 * this.#failure!.pause, LONGEST_PAUSE);
      this.#failure = { message, pause, next: performance.now() + pause };
      if (isNews) this.#follower?.failed(error);
    }
  }

  /** What tells one state of the files from another. */
  async #look(): Promise<string> {
    const looks = this.#files.map(async (file) => {
      try {
        const info = await this.#stat(file);
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
