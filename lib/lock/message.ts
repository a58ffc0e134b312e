/**
 * Transport messages: a plaintext of `type u8 ‖ body`, sealed by the cipher
 * state of its direction, whose key is replaced from time to time.
 *
 * @module
 */

import { type Bytes, TAG_LENGTH } from "./aes_gcm.ts";
import { ChannelError } from "./errors.ts";
import { type CipherState, EMPTY } from "./noise.ts";

/** The types of transport messages. */
export const Type = {
  data: 0,
  end: 1,
  ping: 2,
  pong: 3,
  open: 4,
  bye: 5,
  offer: 6,
} as const;

/** One of {@linkcode Type}. */
export type Type = typeof Type[keyof typeof Type];

/** Length of the type, in bytes. */
export const TYPE_LENGTH = 1;

/** Length of the shortest message when sealed: a type and a tag, in bytes. */
export const MIN_MESSAGE_LENGTH = TYPE_LENGTH + TAG_LENGTH;

/** Length of a bye's plaintext, in bytes: a type and a code. */
const BYE_LENGTH = 2;

/** After this many messages, a direction's key is replaced. */
export const REKEY_INTERVAL = 65_536n;

/**
 * The type of a transport plaintext.
 *
 * @throws {ChannelError} `protocol` if there is no such type, or its body may not
 * have this length.
 */
export function messageType(plaintext: Bytes): Type {
  const type = plaintext[0];
  const isEmpty = plaintext.length === TYPE_LENGTH;
  switch (type) {
    case Type.data:
      if (!isEmpty) return type;
      break;
    case Type.end:
    case Type.ping:
    case Type.pong:
    case Type.open:
    case Type.offer:
      if (isEmpty) return type;
      break;
    case Type.bye:
      if (plaintext.length === BYE_LENGTH) return type;
      break;
  }
  throw new ChannelError("protocol", "The peer sent a malformed message");
}

/** Seals and opens one direction's messages, in order. */
export interface Seal {
  /** Seals a plaintext; the buffer may be used again when this returns. */
  seal(plaintext: Bytes): Bytes | Promise<Bytes>;
  /**
   * Opens a frame; the buffer may be used again when this returns.
   *
   * @throws {ChannelError} `protocol` if it is not authentic. A promise rejects
   * with it.
   */
  open(frame: Bytes): Bytes | Promise<Bytes>;
}

/** A direction's cipher state, whose key is replaced when its time has come. */
export class MessageSeal implements Seal {
  readonly #cipher: CipherState;

  /** @param cipher One of those that `Split()` made; nobody else uses it. */
  constructor(cipher: CipherState) {
    this.#cipher = cipher;
  }

  /** {@linkcode Seal.seal}. */
  seal(plaintext: Bytes): Bytes | Promise<Bytes> {
    const frame = this.#cipher.encryptWithAd(EMPTY, plaintext);
    this.#rekeyIfDue();
    return frame;
  }

  /** {@linkcode Seal.open}. */
  open(frame: Bytes): Bytes | Promise<Bytes> {
    try {
      const plaintext = this.#cipher.decryptWithAd(EMPTY, frame);
      this.#rekeyIfDue();
      return plaintext instanceof Promise
        ? plaintext.catch(notAuthentic)
        : plaintext;
    } catch (cause) {
      return notAuthentic(cause);
    }
  }

  #rekeyIfDue(): void {
    if (this.#cipher.n % REKEY_INTERVAL === 0n) this.#cipher.rekey();
  }
}

function notAuthentic(cause: unknown): never {
  throw new ChannelError("protocol", "A frame was forged or damaged", {
    cause,
  });
}
