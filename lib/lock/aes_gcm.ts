/**
 * AES-256-GCM with a 96-bit nonce and a 128-bit tag (NIST SP 800-38D), under
 * WebCrypto keys that cannot be exported. Nothing else here encrypts.
 *
 * Short messages use the runtime's synchronous functions, where it has them; all
 * others use WebCrypto's, which run on other threads. Both give the same bytes.
 * Both have finished with their input when they return, be it a result or a
 * promise, so a caller may use the buffers again at once.
 *
 * @module
 */

import {
  type KeyObject,
  nodeCrypto,
  plain,
  takesCryptoKeys,
} from "./runtime.ts";

/** Bytes with a buffer of their own, as WebCrypto takes them. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** Length of a key, in bytes. */
export const KEY_LENGTH = 32;

/** Length of a nonce, in bytes. */
export const NONCE_LENGTH = 12;

/** Length of the tag that ends each ciphertext, in bytes. */
export const TAG_LENGTH = 16;

/** Up to this length, in bytes, a change of threads takes longer than AES. */
export const SHORT_LENGTH = 2048;

/** Imports 32 raw bytes as a key that cannot be exported again. */
export function importKey(raw: Bytes): Promise<CryptoKey> {
  if (raw.length !== KEY_LENGTH) {
    throw new RangeError(
      `Cannot import AES-256 key: ${raw.length} bytes instead of ${KEY_LENGTH}`,
    );
  }
  return crypto.subtle.importKey("raw", raw, "AES-GCM", false, [
    "encrypt",
    "decrypt",
  ]);
}

/** One way to encrypt and decrypt: with a result, or with a promise of one. */
export interface Way<Result> {
  /** Encrypts, and returns ciphertext ‖ tag. */
  encrypt(key: CryptoKey, nonce: Bytes, ad: Bytes, plaintext: Bytes): Result;
  /** Decrypts ciphertext ‖ tag; throws or rejects if it is not authentic. */
  decrypt(key: CryptoKey, nonce: Bytes, ad: Bytes, ciphertext: Bytes): Result;
}

/**
 * Encrypts, and returns ciphertext ‖ tag.
 *
 * The caller guarantees that a nonce is used once for a key: a second use
 * gives away both plaintexts' difference and the authentication key.
 */
export function encrypt(
  key: CryptoKey,
  nonce: Bytes,
  ad: Bytes,
  plaintext: Bytes,
): Bytes | Promise<Bytes> {
  const way = plaintext.length <= SHORT_LENGTH && synchronous || subtle;
  return way.encrypt(key, nonce, ad, plaintext);
}

/**
 * Decrypts ciphertext ‖ tag.
 *
 * @throws {Error} If key, nonce, additional data, ciphertext or tag is not what
 * was encrypted. A promise rejects with it.
 */
export function decrypt(
  key: CryptoKey,
  nonce: Bytes,
  ad: Bytes,
  ciphertext: Bytes,
): Bytes | Promise<Bytes> {
  const length = ciphertext.length - TAG_LENGTH;
  const way = length <= SHORT_LENGTH && synchronous || subtle;
  return way.decrypt(key, nonce, ad, ciphertext);
}

/** WebCrypto's way. */
export const subtle: Way<Promise<Bytes>> = {
  async encrypt(key, nonce, ad, plaintext) {
    return new Uint8Array(
      await crypto.subtle.encrypt(params(nonce, ad), key, plaintext),
    );
  },
  async decrypt(key, nonce, ad, ciphertext) {
    return new Uint8Array(
      await crypto.subtle.decrypt(params(nonce, ad), key, ciphertext),
    );
  },
};

function params(iv: Bytes, additionalData: Bytes): AesGcmParams {
  return { name: "AES-GCM", iv, additionalData, tagLength: TAG_LENGTH * 8 };
}

/** The runtime's synchronous way, where there is one. */
export const synchronous: Way<Bytes> | undefined = takesCryptoKeys
  ? {
    encrypt(key, nonce, ad, plaintext) {
      const cipher = nodeCrypto!.createCipheriv(NAME, keyObject(key), nonce);
      cipher.setAAD(ad);
      const ciphertext = new Uint8Array(plaintext.length + TAG_LENGTH);
      ciphertext.set(cipher.update(plaintext));
      cipher.final();
      ciphertext.set(cipher.getAuthTag(), plaintext.length);
      return ciphertext;
    },
    decrypt(key, nonce, ad, ciphertext) {
      const length = ciphertext.length - TAG_LENGTH;
      if (length < 0) throw new RangeError("Cannot decrypt: there is no tag");
      const decipher = nodeCrypto!.createDecipheriv(
        NAME,
        keyObject(key),
        nonce,
      );
      decipher.setAAD(ad);
      decipher.setAuthTag(ciphertext.subarray(length));
      const plaintext = decipher.update(ciphertext.subarray(0, length));
      decipher.final();
      return plain(plaintext);
    },
  }
  : undefined;

const NAME = "aes-256-gcm";

const keyObjects = new WeakMap<CryptoKey, KeyObject>();

/** The same key for `node:crypto`; it is no more extractable than before. */
function keyObject(key: CryptoKey): KeyObject {
  let object = keyObjects.get(key);
  if (!object) keyObjects.set(key, object = nodeCrypto!.KeyObject.from(key));
  return object;
}
