/** What properties and tests of streams share: a peer that says what it is told,
 * cut anyhow, and deadlines. */

import { assert } from "@std/assert";
import fc from "fast-check";
import type { Transport } from "../lib/mod.ts";

/** A case that takes longer hangs, in milliseconds. */
const DEADLINE = 10_000;

/** The largest buffer that a frame may be read into, in bytes. */
const MAX_BUFFER = 128 * 1024;

export type Bytes = Uint8Array<ArrayBuffer>;

export const bytes = (maxLength: number) =>
  fc.uint8Array({ maxLength }) as fc.Arbitrary<Bytes>;

/** How the reads of a stream are cut, in bytes each, over and over. */
export const cuts = fc.array(fc.integer({ min: 1, max: 3000 }), {
  minLength: 1,
  maxLength: 8,
});

/** The same as a peer: it says `said`, cut up so, and takes what comes. */
export class Scripted implements Transport {
  /** What it took, one for each write. */
  readonly taken: Bytes[] = [];
  /** Whether this side has ended its direction. */
  isEnded = false;
  isClosed = false;
  #offset = 0;
  #reads = 0;

  constructor(readonly said: Uint8Array, readonly cuts: number[] = [65_536]) {}

  /** What has not been read. */
  get left(): Uint8Array {
    return this.said.subarray(this.#offset);
  }

  read(p: Uint8Array): Promise<number | null> {
    assert(p.length <= MAX_BUFFER, `a buffer of ${p.length} bytes`);
    if (this.#offset === this.said.length) return Promise.resolve(null);
    const cut = this.cuts[this.#reads++ % this.cuts.length]!;
    const end = this.#offset + Math.min(cut, p.length);
    const part = this.said.subarray(this.#offset, end);
    p.set(part);
    this.#offset += part.length;
    return Promise.resolve(part.length);
  }

  write(p: Uint8Array): Promise<number> {
    this.taken.push(p.slice() as Bytes);
    return Promise.resolve(p.length);
  }

  closeWrite(): Promise<void> {
    this.isEnded = true;
    return Promise.resolve();
  }

  close(): void {
    this.isClosed = true;
  }
}

export async function within<T>(work: Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error("It hangs")), DEADLINE);
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Reads to the end, `size` bytes at a time. */
export async function readAll(
  transport: Pick<Transport, "read">,
  size = 65_536,
): Promise<Bytes> {
  const parts: Bytes[] = [];
  const p = new Uint8Array(size);
  for (let count; (count = await transport.read(p)) !== null;) {
    parts.push(p.slice(0, count));
  }
  return concat(parts);
}

export function concat(parts: Uint8Array[]): Bytes {
  const all = new Uint8Array(
    parts.reduce((sum, { length }) => sum + length, 0),
  );
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}

export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** The cases of a property, and what must hold for each. */
export type Property = fc.IRawProperty<unknown>;
