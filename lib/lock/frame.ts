/**
 * Frames: a u16 big-endian length, then that many bytes.
 *
 * @module
 */

import type { Bytes } from "./aes_gcm.ts";
import { ChannelError } from "./errors.ts";
import type { Transport } from "./transport.ts";

/** Length of the length field, in bytes. */
export const HEADER_LENGTH = 2;

/** Length of the longest frame, without its header, in bytes. */
export const MAX_FRAME_LENGTH = 65_535;

/** Writes a frame's length to where the frame begins in a buffer. */
export function putLength(length: number, into: Bytes, offset: number): void {
  into[offset] = length >> 8;
  into[offset + 1] = length;
}

/** Each payload behind its length, all in one buffer for one write. */
export function encodeFrames(payloads: Bytes[]): Bytes {
  const length = payloads.reduce((sum, p) => sum + HEADER_LENGTH + p.length, 0);
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (const payload of payloads) {
    putLength(payload.length, bytes, offset);
    bytes.set(payload, offset + HEADER_LENGTH);
    offset += HEADER_LENGTH + payload.length;
  }
  return bytes;
}

// A quiet connection keeps only a small buffer. A busy one reads a TLS record at
// a time (16 KiB) and has room for two frames.
const IDLE_BUFFER = 2 * 1024;
const BUSY_BUFFER = 128 * 1024;

/** Takes frames from a byte stream that may split them anywhere. */
export class FrameReader {
  readonly #source: Pick<Transport, "read">;
  #buffer = new Uint8Array(IDLE_BUFFER);
  #start = 0;
  #end = 0;
  #lastCount = 0;
  #held = 0;
  /** How many bytes the next frame takes, as far as that is known. */
  #wanted = HEADER_LENGTH;

  /** @param source Where the bytes come from. */
  constructor(source: Pick<Transport, "read">) {
    this.#source = source;
  }

  /**
   * The next frame, without its length; valid until the next call. Null if the
   * source ends, between frames or inside one: without the peer's authenticated
   * end, either is a cut.
   *
   * @param min The least length that is allowed here, in bytes.
   * @param max The greatest.
   * @throws {ChannelError} `protocol` if the length is another, as soon as it
   * is read.
   */
  async next(
    min: number,
    max: number = MAX_FRAME_LENGTH,
  ): Promise<Bytes | null> {
    while (true) {
      const frame = this.take(min, max);
      if (frame || !await this.fill()) return frame ?? null;
    }
  }

  /** The next frame, if all of it has been read; else as {@linkcode next}. */
  take(min: number, max: number = MAX_FRAME_LENGTH): Bytes | undefined {
    const count = this.#end - this.#start;
    if (count < HEADER_LENGTH) {
      this.#wanted = HEADER_LENGTH;
      return undefined;
    }
    const length = this.#buffer[this.#start]! << 8 |
      this.#buffer[this.#start + 1]!;
    if (length < min || length > max) {
      throw new ChannelError("protocol", "The peer sent a malformed frame");
    }
    if (count < HEADER_LENGTH + length) {
      this.#wanted = HEADER_LENGTH + length;
      return undefined;
    }
    const start = this.#start + HEADER_LENGTH;
    this.#start = start + length;
    return this.#buffer.subarray(start, this.#start);
  }

  /**
   * Keeps what {@linkcode take} gave, and all before it, where it is until
   * {@linkcode release}. What is held is not to be changed by others.
   */
  hold(): void {
    this.#held++;
  }

  /** Takes one {@linkcode hold} back. */
  release(): void {
    this.#held--;
  }

  /** What has been read and was no frame yet; valid until the next call. */
  get unread(): Bytes {
    return this.#buffer.subarray(this.#start, this.#end);
  }

  /**
   * Drops what has been read, what is held included, and reads once more; false if
   * the source has ended.
   */
  skip(): Promise<boolean> {
    this.#held = 0;
    this.#start = this.#end;
    this.#wanted = HEADER_LENGTH;
    return this.fill();
  }

  /** Reads once more of a frame that is not whole; false if the source has ended. */
  async fill(): Promise<boolean> {
    return this.filled(await this.read());
  }

  /**
   * {@linkcode fill} in two steps, which take fewer promises: what this resolves
   * to goes to {@linkcode filled} before anything else is done.
   */
  read(): Promise<number | null> {
    this.#makeRoom(this.#wanted);
    return this.#source.read(
      this.#end === 0 ? this.#buffer : this.#buffer.subarray(this.#end),
    );
  }

  /** The second step: false if the source has ended. */
  filled(count: number | null): boolean {
    this.#end += count ?? 0;
    this.#lastCount = count ?? 0;
    return count !== null;
  }

  /**
   * Makes room for this many bytes from `#start` on, and for one more read. While
   * something is held, what has been read stays where it is, and only the rest of
   * a frame moves to another buffer.
   */
  #makeRoom(length: number): void {
    const isHeld = this.#held > 0;
    if (this.#start === this.#end && !isHeld) {
      this.#start = this.#end = 0;
      const isBusy = Math.max(this.#lastCount, length) > IDLE_BUFFER;
      if (!isBusy && this.#buffer.length > IDLE_BUFFER) {
        this.#buffer = new Uint8Array(IDLE_BUFFER);
      }
    }
    const { length: size } = this.#buffer;
    const isFull = this.#end === size;
    if (!isFull && this.#start + length <= size) return;
    if (this.#start > 0 && length <= size && !isHeld) {
      this.#buffer.copyWithin(0, this.#start, this.#end);
    } else {
      const left = this.#buffer.subarray(this.#start, this.#end);
      this.#buffer = new Uint8Array(BUSY_BUFFER);
      this.#buffer.set(left);
    }
    this.#end -= this.#start;
    this.#start = 0;
  }
}
