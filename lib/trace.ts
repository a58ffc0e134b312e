/**
 * Shows the frames of a channel to whoever wants to learn what is on the wire.
 *
 * @module
 */

import type { Bytes } from "./aes_gcm.ts";
import { Type, TYPE_LENGTH } from "./message.ts";

/** One frame, as it passed. */
export interface FrameTrace {
  /** Which way it went, seen from this side. */
  readonly direction: "sent" | "received";
  /** Its number in that direction, from 1: the handshake's frames count too. */
  readonly number: number;
  /** What it is. */
  readonly type: "hello" | "noise" | "data" | "end" | "ping" | "pong";
  /** What it says, without the type; empty for a Noise message. */
  readonly plaintext: Uint8Array;
  /** What the frame carries, without its length; empty for a hello. */
  readonly ciphertext: Uint8Array;
}

const TYPE_NAMES = Object.keys(Type) as (keyof typeof Type)[];
const NOTHING = new Uint8Array(0);

/** Numbers the frames of a channel and hands them to a function, if there is one. */
export class Tracer {
  readonly #trace: ((frame: FrameTrace) => void) | undefined;
  readonly #count = { sent: 0, received: 0 };

  /** @param trace Takes each frame. It sees plaintext. */
  constructor(trace?: (frame: FrameTrace) => void) {
    this.#trace = trace;
  }

  /** Whether somebody looks: a ciphertext need not be kept otherwise. */
  get active(): boolean {
    return this.#trace !== undefined;
  }

  /** A hello passes. */
  hello(direction: FrameTrace["direction"], plaintext: Bytes): void {
    this.#show(direction, "hello", plaintext, NOTHING);
  }

  /** A Noise handshake message passes. */
  noise(direction: FrameTrace["direction"], ciphertext: Bytes): void {
    this.#show(direction, "noise", NOTHING, ciphertext);
  }

  /** A transport message passes. */
  message(
    direction: FrameTrace["direction"],
    plaintext: Bytes,
    ciphertext: Bytes,
  ): void {
    const type = TYPE_NAMES[plaintext[0]!]!;
    this.#show(direction, type, plaintext.subarray(TYPE_LENGTH), ciphertext);
  }

  #show(
    direction: FrameTrace["direction"],
    type: FrameTrace["type"],
    plaintext: Uint8Array,
    ciphertext: Uint8Array,
  ): void {
    const number = ++this.#count[direction];
    this.#trace?.({ direction, number, type, plaintext, ciphertext });
  }
}
