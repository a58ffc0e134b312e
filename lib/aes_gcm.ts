/**
 * AES-256-GCM over WebCrypto, with a 96-bit nonce and a 128-bit tag
 * (NIST SP 800-38D). The only caller of `subtle.encrypt` and `subtle.decrypt`.
 *
 * WebCrypto copies its input before it returns its promise, so a caller may
 * use the buffers again at once.
 *
 * @module
 */

/** Bytes with a buffer of their own, as WebCrypto takes them. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** Length of a key, in bytes. */
export const KEY_LENGTH = 32;

/** Length of a nonce, in bytes. */
export const NONCE_LENGTH = 12;

/** Length of the tag that ends each ciphertext, in bytes. */
export const TAG_LENGTH = 16;

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

/**
 * Encrypts, and returns ciphertext ‖ tag.
 *
 * The caller guarantees that a nonce is used once for a key: a second use
 * gives away both plaintexts' difference and the authentication key.
 */
export async function encrypt(
  key: CryptoKey,
  nonce: Bytes,
  ad: Bytes,
  plaintext: Bytes,
): Promise<Bytes> {
  return new Uint8Array(
    await crypto.subtle.encrypt(params(nonce, ad), key, plaintext),
  );
}

/**
 * Decrypts ciphertext ‖ tag.
 *
 * @throws {DOMException} `OperationError` if key, nonce, additional data,
 * ciphertext or tag is not what was encrypted.
 */
export async function decrypt(
  key: CryptoKey,
  nonce: Bytes,
  ad: Bytes,
  ciphertext: Bytes,
): Promise<Bytes> {
  return new Uint8Array(
    await crypto.subtle.decrypt(params(nonce, ad), key, ciphertext),
  );
}

function params(iv: Bytes, additionalData: Bytes): AesGcmParams {
  return { name: "AES-GCM", iv, additionalData, tagLength: TAG_LENGTH * 8 };
}
