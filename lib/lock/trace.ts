/**
 * Shows the frames of a channel, to learn what is on the wire.
 *
 * @module
 */

import { type Bytes, TAG_LENGTH } from "./aes_gcm.ts";
import { guarded } from "./callback.ts";
import { type Seal, Type, TYPE_LENGTH } from "./message.ts";

/** One frame, as it passed. */
export interface FrameTrace {
  /** Which way it went, seen from this side. */
  readonly direction: "sent" | "received";
  /** Its number in that direction, from 1: the handshake's frames count too. */
  readonly number: number;
  /** What it is. */
  readonly type:
    | "hello"
    | "noise"
    | "data"
    | "end"
    | "ping"
    | "pong"
    | "open"
    | "bye"
    | "offer";
  /** What it says, without the type; empty for a Noise message. */
  readonly plaintext: Uint8Array;
  /** What the frame carries, without its length; empty for a hello. */
  readonly ciphertext: Uint8Array;
}

/** A message's plaintext and ciphertext, which nobody else has. */
type Shown = [Bytes, Bytes];

const TYPE_NAMES = Object.keys(Type) as (keyof typeof Type)[];
const NOTHING = new Uint8Array(0);

/**
 * Numbers the frames of a channel and hands them to a function, if there is one.
 *
 * @internal
 */
export class Tracer {
  readonly #trace: ((frame: FrameTrace) => void) | undefined;
  readonly #count = { sent: 0, received: 0 };

  /** @param trace Takes each frame. It sees plaintext. */
  constructor(trace?: (frame: FrameTrace) => void) {
    this.#trace = trace && guarded(trace);
  }

  /** Shows what a direction's seal seals or opens, if somebody looks. */
  messages(direction: FrameTrace["direction"], seal: Seal): Seal {
    if (!this.#trace) return seal;
    // WebCrypto may finish in another order than it was asked.
    let last: Promise<unknown> | undefined;
    const show = (shown: Shown | Promise<Shown>) => {
      if (!last && !(shown instanceof Promise)) {
        return this.#message(direction, ...shown);
      }
      const mine = last = Promise.all([shown, last]).then(([shown]) => {
        if (last === mine) last = undefined;
        this.#message(direction, ...shown);
      }, () => {});
    };
    return {
      isSynchronous: seal.isSynchronous,
      seal: (bytes) => {
        const plaintext = bytes.slice(0, -TAG_LENGTH);
        const sealing = seal.seal(bytes);
        const shown = (): Shown => [plaintext, bytes.slice()];
        show(sealing ? sealing.then(shown) : shown());
        return sealing;
      },
      open: (frame) => {
        const ciphertext = frame.slice();
        const opening = seal.open(frame);
        const shown = (plaintext: Bytes): Shown => [
          plaintext.slice(),
          ciphertext,
        ];
        show(opening instanceof Promise ? opening.then(shown) : shown(opening));
        return opening;
      },
      close: () => seal.close(),
    };
  }

  /** A hello passes. */
  hello(direction: FrameTrace["direction"], plaintext: Bytes): void {
    this.#show(direction, "hello", plaintext, NOTHING);
  }

  /** A Noise handshake message passes. */
  noise(direction: FrameTrace["direction"], ciphertext: Bytes): void {
    this.#show(direction, "noise", NOTHING, ciphertext);
  }

  #message(
    direction: FrameTrace["direction"],
    plaintext: Bytes,
    ciphertext: Bytes,
  ): void {
    const type = TYPE_NAMES[plaintext[0]!];
    // An unknown type ends the channel.
    if (!type) return;
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
