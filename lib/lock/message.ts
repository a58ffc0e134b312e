/**
 * Transport messages: a plaintext of `type u8 ‖ body`, sealed by the cipher
 * state of its direction, whose key is replaced from time to time.
 *
 * @module
 */

import { type Bytes, TAG_LENGTH } from "./aes_gcm.ts";
import { ChannelError } from "./errors.ts";
import { type CipherState, EMPTY } from "./noise.ts";

/** The types of transport messages, numbered without a gap. */
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
  const type = plaintext[0]!;
  const { length } = plaintext;
  const isWellFormed = type === Type.data
    ? length > TYPE_LENGTH
    : type === Type.bye
    ? length === BYE_LENGTH
    : type <= Type.offer && length === TYPE_LENGTH;
  if (isWellFormed) return type as Type;
  throw new ChannelError("protocol", "The peer sent a malformed message");
}

/** Seals or opens one direction's messages, in order. */
export interface Seal {
  /**
   * Whether every call gives its result at once. If not, several messages are
   * worth sealing side by side.
   */
  readonly isSynchronous: boolean;
  /**
   * Seals in place: a plaintext, and room for the tag. If it returns a promise, the
   * bytes are not the caller's until that resolves.
   */
  seal(bytes: Bytes): void | Promise<void>;
  /**
   * Opens a frame. The plaintext stands in the frame's place, or in a buffer of
   * its own. If it returns a promise, the caller may use the frame's bytes again.
   *
   * @throws {ChannelError} `protocol` if it is not authentic. A promise rejects
   * with it.
   */
  open(frame: Bytes): Bytes | Promise<Bytes>;
  /** Lets the key go. */
  close(): void;
}

/** A direction's cipher state, whose key is replaced when its time has come. */
export class MessageSeal implements Seal {
  readonly #cipher: CipherState;

  /** @param cipher One of those that `Split()` made; nobody else uses it. */
  constructor(cipher: CipherState) {
    this.#cipher = cipher;
  }

  /** {@linkcode Seal.isSynchronous}. */
  get isSynchronous(): boolean {
    return this.#cipher.isSynchronous;
  }

  /** {@linkcode Seal.seal}. */
  seal(bytes: Bytes): void | Promise<void> {
    const sealing = this.#cipher.encryptWithAd(EMPTY, bytes);
    this.#rekeyIfDue();
    return sealing;
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

  /** {@linkcode Seal.close}. */
  close(): void {
    this.#cipher.close();
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
