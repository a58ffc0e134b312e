/**
 * Transport messages: a plaintext of `type u8 ‖ body`, sealed by the cipher
 * state of its direction, whose key is replaced from time to time.
 *
 * @module
 */

import { type Bytes, TAG_LENGTH } from "./aes_gcm.ts";
import { ChannelError } from "./errors.ts";
import type { CipherState } from "./noise.ts";

/** The types of transport messages. */
export const Type = { data: 0, end: 1, ping: 2, pong: 3 } as const;

/** One of {@linkcode Type}. */
export type Type = typeof Type[keyof typeof Type];

/** Length of the type, in bytes. */
export const TYPE_LENGTH = 1;

/** Length of the shortest message when sealed: a type and a tag, in bytes. */
export const MIN_MESSAGE_LENGTH = TYPE_LENGTH + TAG_LENGTH;

/** After so many messages a direction's key is replaced. */
export const REKEY_INTERVAL = 65_536n;

/**
 * The type of a transport plaintext.
 *
 * @throws {ChannelError} `protocol` if there is no such type, a data message is
 * empty or another one is not.
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
      if (isEmpty) return type;
      break;
  }
  throw new ChannelError("protocol", "The peer sent a malformed message");
}

/**
 * Replaces a direction's key if its last message was a 65 536th. To be called
 * after each message; what it returns is to be awaited before the next.
 */
export function rekeyIfDue(cipher: CipherState): Promise<void> | undefined {
  return cipher.n % REKEY_INTERVAL === 0n ? cipher.rekey() : undefined;
}
