/**
 * This program's stdout and stderr, right to the byte also where they are a pipe
 * that does not wait for its reader.
 *
 * `O_NONBLOCK` belongs to the pipe, not to a process: whoever shares it may have
 * set it, such as a parent that runs on Node. A write into a full pipe then fails
 * with `WouldBlock`.
 *
 * @module
 */

import { delay } from "@std/async/delay";
import { fstatSync } from "node:fs";

/** What a pipe takes whole or not at all, in bytes: `PIPE_BUF`, see pipe(7). */
const ATOMIC = Deno.build.os === "linux" ? 4096 : 512;

/** How much Deno's stdout may keep for later, in bytes. */
const KEPT = 1024;

/**
 * After so many bytes, as many as a pipe can hold, one that has never refused any
 * gets long writes: they are three times as fast.
 */
const PROBATION = 1024 * 1024;

/** How often to try a full pipe, in milliseconds. */
const RETRY_PAUSE = 5;

const NEWLINE = 10;

/** Where bytes go, such as {@linkcode standardError}. */
export interface Sink {
  /** Writes some of the bytes when there is room, and says how many. */
  write(bytes: Uint8Array): Promise<number>;
}

/**
 * Stdout, which Deno buffers as Rust does (`LineWriter`): what comes up to the
 * last line end goes out in one write, and of the rest up to {@linkcode KEPT}
 * bytes are kept and flushed. If a full pipe refuses either, the error is the
 * same, and tells not how much went before. So a pipe gets pieces of which that
 * is known.
 */
export class BufferedSink implements Sink {
  readonly #stdout: Sink;
  readonly #isPipe: boolean;
  /** How much was written while the pipe refused nothing. */
  #written = 0;
  /** Whether the pipe is known not to wait. */
  #isNonBlocking = false;

  /**
   * @param isPipe Whether it is a pipe. Of anything else, such as a terminal, no
   * length is known that is written whole or not at all.
   */
  constructor(stdout: Sink, isPipe: boolean) {
    this.#stdout = stdout;
    this.#isPipe = isPipe;
  }

  /**
   * Writes some of the bytes when there is room, and says how many.
   *
   * @throws {Error} If it cannot be known how many were written.
   */
  async write(bytes: Uint8Array): Promise<number> {
    const isTrusted = !this.#isNonBlocking && this.#written >= PROBATION;
    if (!this.#isPipe || isTrusted) return await this.#writeLong(bytes);
    const piece = atomicPart(bytes);
    try {
      const count = await this.#stdout.write(piece);
      if (!this.#isNonBlocking) this.#written += count;
      return count;
    } catch (error) {
      if (!isFull(error)) throw error;
    }
    this.#isNonBlocking = true;
    await delay(RETRY_PAUSE);
    const isKept = piece.length < KEPT && piece.at(-1) !== NEWLINE;
    if (!isKept) return await writeWhenThereIsRoom(this.#stdout, piece);
    // An empty write flushes what is kept.
    await writeWhenThereIsRoom(this.#stdout, new Uint8Array());
    return piece.length;
  }

  async #writeLong(bytes: Uint8Array): Promise<number> {
    try {
      return await this.#stdout.write(bytes);
    } catch (error) {
      if (!isFull(error)) throw error;
      throw new Error("it does not wait for its reader; put | cat behind");
    }
  }
}

/** A beginning that goes out in one write, which is whole or nothing. */
function atomicPart(bytes: Uint8Array): Uint8Array {
  const piece = bytes.subarray(0, ATOMIC);
  const end = piece.lastIndexOf(NEWLINE) + 1;
  return end > 0 ? piece.subarray(0, end) : piece;
}

const isFull = (error: unknown) => error instanceof Deno.errors.WouldBlock;

/** Writes to what writes some of it, or nothing and fails. */
async function writeWhenThereIsRoom(
  sink: Sink,
  bytes: Uint8Array,
): Promise<number> {
  while (true) {
    try {
      return await sink.write(bytes);
    } catch (error) {
      if (!isFull(error)) throw error;
      await delay(RETRY_PAUSE);
    }
  }
}

function isPipe(descriptor: number): boolean {
  try {
    return fstatSync(descriptor).isFIFO();
  } catch {
    // It is closed: whoever writes will be told.
    return false;
  }
}

/** This program's stdout. */
export const standardOutput: Sink = new BufferedSink(Deno.stdout, isPipe(1));

/** This program's stderr, which Deno does not buffer. */
export const standardError: Sink = {
  write: (bytes) => writeWhenThereIsRoom(Deno.stderr, bytes),
};
