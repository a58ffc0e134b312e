/**
 * The way of every program to its stdout and stderr, a line at a time.
 *
 * `console.error` throws when a disk is full, and stops the whole program while
 * nobody reads the pipe. Here a line waits instead, and the program goes on.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import { visible } from "./visible.ts";

/** How many lines may wait; those that come then are counted only. */
const MAX_WAITING = 1000;

/** A pipe that others made non-blocking, and that is full, is tried so often. */
const RETRY_PAUSE = 20;

/** How long a program that ends waits for its last lines, in milliseconds. */
const FLUSH_TIME = 1000;

/** Where bytes go, such as `Deno.stderr`. */
export interface Sink {
  /** Writes some of the bytes, and says how many. */
  write(bytes: Uint8Array): Promise<number>;
}

/**
 * Writes to a sink in order and in the background; never throws. What cannot be
 * written waits for the next line, and is tried again before it.
 */
export class Output {
  /** Says of lines that they were lost, in a line of its own. */
  describeLoss = (count: number): string => `${count} lines were lost here`;

  readonly #sink: Sink;
  readonly #encoder = new TextEncoder();
  /** What is to be written; a number is of lines that were lost there. */
  readonly #waiting: (Uint8Array | number)[] = [];
  #writing: Promise<unknown> | undefined;

  /** @param sink Gets the bytes, by one call of `write` at a time. */
  constructor(sink: Sink) {
    this.#sink = sink;
  }

  /** Whether all has been written. */
  get isIdle(): boolean {
    return this.#waiting.length === 0;
  }

  /** Writes a line, in which control characters are made visible. */
  line(text: string): void {
    this.raw(visible(text) + "\n");
  }

  /** Writes text as it is: none that others may have chosen. */
  raw(text: string): void {
    const last = this.#waiting.at(-1);
    if (this.#waiting.length < MAX_WAITING) {
      this.#waiting.push(this.#encoder.encode(text));
    } else if (typeof last === "number") this.#waiting.splice(-1, 1, last + 1);
    else this.#waiting.push(1);
    this.#writing ??= this.#write();
  }

  /**
   * Tries once more to write all, for a second at most. A program that ends
   * waits for it.
   *
   * @returns The error that has kept the rest from being written, if one has.
   */
  async flush(): Promise<unknown> {
    if (this.isIdle) return;
    this.#writing ??= this.#write();
    const limit = new AbortController();
    const error = await Promise.race([
      this.#writing,
      sleep(FLUSH_TIME, new Error("nobody reads it"), limit).catch(() => {}),
    ]);
    limit.abort();
    return error;
  }

  /** @returns The error that it was given up for. */
  async #write(): Promise<unknown> {
    try {
      while (!this.isIdle) {
        const first = this.#waiting[0]!;
        const bytes = typeof first === "number"
          ? this.#encoder.encode(visible(this.describeLoss(first)) + "\n")
          : first;
        // A number grows no more once it is being told.
        this.#waiting[0] = bytes;
        const count = await writeSome(this.#sink, bytes);
        if (count < bytes.length) this.#waiting[0] = bytes.subarray(count);
        else this.#waiting.shift();
      }
    } catch (error) {
      return error;
    } finally {
      this.#writing = undefined;
    }
  }
}

/** This program's stdout. */
export const stdout = new Output(Deno.stdout);

/** This program's stderr. */
export const stderr = new Output(Deno.stderr);

/** Writes all of these bytes, and waits for a reader as long as it takes. */
export async function writeAll(sink: Sink, bytes: Uint8Array): Promise<void> {
  while (bytes.length > 0) {
    bytes = bytes.subarray(await writeSome(sink, bytes));
  }
}

/** Waits for room, even in a pipe that others have made non-blocking. */
async function writeSome(sink: Sink, bytes: Uint8Array): Promise<number> {
  while (true) {
    try {
      return await sink.write(bytes);
    } catch (error) {
      if (!(error instanceof Deno.errors.WouldBlock)) throw error;
      await sleep(RETRY_PAUSE);
    }
  }
}
