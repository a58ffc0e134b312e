/**
 * How every program writes to its stdout and stderr, a line at a time.
 *
 * `console.error` throws when a disk is full, and stops the whole program while
 * nobody reads the pipe. Here a line waits instead, and the program goes on.
 *
 * @module
 */

import { abortable } from "@std/async/abortable";
import {
  type Sink,
  standardError,
  standardOutput,
} from "./standard_streams.ts";
import { visible } from "./visible.ts";
import { count } from "./words.ts";

/**
 * How many lines may wait while others are being written. Further lines are only
 * counted.
 */
const MAX_WAITING = 1000;

/** How long a program that ends waits for its last lines, in milliseconds. */
const FLUSH_TIME = 1000;

/** The width of a terminal that does not report its own. */
const COLUMNS = 80;

/**
 * Writes to a sink in order and in the background; never throws. What cannot be
 * written waits for the next line, and is tried again before it.
 */
export class Output {
  /** The line that says how many lines were lost. */
  describeLoss = (lost: number): string =>
    `${count(lost, "line was", "lines were")} lost here`;

  /** Where the bytes go, by one call of `write` at a time. */
  sink: Sink;

  /** Whether more than notes was to be written. */
  hasResult = false;

  readonly #encoder = new TextEncoder();
  /** What is being written. */
  #pending: Uint8Array = new Uint8Array(0);
  /** What comes after that. */
  #waiting: string[] = [];
  /** How many lines were lost after those. */
  #lost = 0;
  #writing: Promise<unknown> | undefined;

  /** Writes to a sink, which may be another later. */
  constructor(sink: Sink) {
    this.sink = sink;
  }

  /** Whether all has been written. */
  get isIdle(): boolean {
    return this.#pending.length === 0 && this.#waiting.length === 0;
  }

  /** Writes a line, in which control characters are made visible. */
  line(text: string): void {
    this.raw(visible(text) + "\n");
  }

  /**
   * Writes what the program was run for, however many lines: if it cannot be
   * written, the program has failed.
   */
  result(lines: string[]): void {
    this.hasResult = true;
    this.raw(lines.map((line) => visible(line) + "\n").join(""));
  }

  /** Writes text as it is; never text that others may have chosen. */
  raw(text: string): void {
    if (this.#waiting.length < MAX_WAITING) this.#waiting.push(text);
    else this.#lost++;
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
    return await abortable(this.#writing, AbortSignal.timeout(FLUSH_TIME))
      .catch(() => new Error("nobody reads it"));
  }

  /** @returns The error that stopped it, if one did. */
  async #write(): Promise<unknown> {
    try {
      while (!this.isIdle) {
        if (this.#pending.length === 0) this.#pending = this.#takeWaiting();
        const count = await this.sink.write(this.#pending);
        this.#pending = this.#pending.subarray(count);
      }
    } catch (error) {
      return error;
    } finally {
      this.#writing = undefined;
    }
  }

  /** All at once: a write takes long, however little it writes. */
  #takeWaiting(): Uint8Array {
    const lost = this.#lost;
    if (lost > 0) this.#waiting.push(visible(this.describeLoss(lost)) + "\n");
    const bytes = this.#encoder.encode(this.#waiting.join(""));
    this.#waiting = [];
    this.#lost = 0;
    return bytes;
  }
}

/** This program's stdout. */
export const stdout = new Output(standardOutput);

/** This program's stderr. */
export const stderr = new Output(standardError);

/** How wide the terminal is. */
export function columns(): number {
  return Deno.consoleSize().columns || COLUMNS;
}
