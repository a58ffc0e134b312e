/**
 * Transport messages: a plaintext of `type u8 ‖ body`, sealed by the cipher
 * state of its direction, whose key is replaced from time to time.
 *
 * @module
 */

import { type Bytes, TAG_LENGTH } from "./aes_gcm.ts";
import { ChannelError } from "./errors.ts";
import { MAX_FRAME_LENGTH } from "./frame.ts";
import type { CipherState } from "./noise.ts";

/** The types of transport messages. */
export const Type = { data: 0, end: 1, ping: 2, pong: 3 } as const;

/** One of {@linkcode Type}. */
export type Type = typeof Type[keyof typeof Type];

/** Length of the type, in bytes. */
export const TYPE_LENGTH = 1;

/** Length of the shortest message when sealed: a type and a tag, in bytes. */
export const MIN_MESSAGE_LENGTH = TYPE_LENGTH + TAG_LENGTH;

/** Length of the longest body of a data message, in bytes. */
export const MAX_DATA_LENGTH = MAX_FRAME_LENGTH - MIN_MESSAGE_LENGTH;

/** After so many messages a direction's key is replaced. */
export const REKEY_INTERVAL = 65_536n;

/** The plaintext of a message without a body. */
export function control(type: Type): Bytes {
  return new Uint8Array([type]);
}

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
 * Replaces a direction's key, after every 65 536th message. To be asked, and
 * awaited, before each message.
 */
export async function rekeyIfDue(cipher: CipherState): Promise<void> {
  if (cipher.n > 0n && cipher.n % REKEY_INTERVAL === 0n) await cipher.rekey();
}
