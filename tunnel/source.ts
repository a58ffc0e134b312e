/**
 * What one end says, for whoever carries it.
 *
 * @module
 */

import type { Transport } from "../lib/mod.ts";

/** A buffer of a direction that says little, in bytes. */
const IDLE_BUFFER = 4 * 1024;

/** One of a direction that says much: what a write takes at most. */
const BUSY_BUFFER = 64 * 1024;

/** How much is kept to be said again, in bytes. */
const MAX_KEPT = 64 * 1024;

/** What was dropped and is kept. */
interface Kept {
  chunks: Uint8Array[];
  length: number;
  over: PromiseWithResolvers<void>;
}

/**
 * Reads an end, piece by piece. A piece stays until it is dropped, so that
 * another may carry it if the first fails; and what was dropped may be kept, for
 * as long as nobody can have received it.
 */
export class Source {
  readonly #from: Pick<Transport, "read">;
  #buffer = new Uint8Array(IDLE_BUFFER);
  /** The read of what comes next. */
  #reading: Promise<number | null> | undefined;
  /** How much the last read brought. */
  #length = 0;
  #hasEnded = false;
  #kept: Kept | undefined;
  /** What is to be said again, before all that has not been read yet. */
  #again: Uint8Array[] = [];

  /** Reads from one that nobody else reads. */
  constructor(from: Pick<Transport, "read">) {
    this.#from = from;
  }

  /** Whether it has said its end. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** What is to be said again; undefined if it is to be {@linkcode read}. */
  get again(): Uint8Array | undefined {
    return this.#again[0];
  }

  /**
   * Reads what comes next, once until it is dropped. What this resolves to goes to
   * {@linkcode took}: two steps take fewer promises than one.
   */
  read(): Promise<number | null> {
    if (this.#reading) return this.#reading;
    if (this.#length === this.#buffer.length && this.#length < BUSY_BUFFER) {
      this.#buffer = new Uint8Array(BUSY_BUFFER);
    }
    return this.#reading = this.#from.read(this.#buffer);
  }

  /** What was read, which stands until it is dropped; null at the end. */
  took(count: number | null): Uint8Array | null {
    this.#hasEnded = count === null;
    this.#length = count ?? 0;
    return count === null ? null : this.#buffer.subarray(0, count);
  }

  /**
   * Goes on to what follows. It waits if there is a promise: for as much as may
   * be kept has been.
   */
  drop(): Promise<void> | undefined {
    const said = this.#again.shift();
    if (!said) this.#reading = undefined;
    const kept = this.#kept;
    if (!kept) return undefined;
    const chunk = said ?? this.#buffer.slice(0, this.#length);
    kept.chunks.push(chunk);
    kept.length += chunk.length;
    return kept.length < MAX_KEPT ? undefined : kept.over.promise;
  }

  /** Keeps what is dropped from here on. */
  keep(): void {
    this.#kept ??= { chunks: [], length: 0, over: Promise.withResolvers() };
  }

  /** Forgets what was kept, and keeps no more. */
  forget(): void {
    this.#kept?.over.resolve();
    this.#kept = undefined;
  }

  /** What was kept comes again, and is kept no more. */
  rewind(): void {
    this.#again.unshift(...this.#kept?.chunks ?? []);
    this.forget();
  }
}
