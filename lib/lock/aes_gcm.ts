/**
 * AES-256-GCM with a 96-bit nonce and a 128-bit tag (NIST SP 800-38D). Nothing
 * else here encrypts.
 *
 * What encrypts is an {@linkcode Engine}, chosen once: {@linkcode webCrypto},
 * unless the caller passes another. All give the same bytes.
 *
 * @module
 */

import { free } from "./memory.ts";
import { type KeyObject, nodeCrypto, plain } from "./runtime.ts";

/** Bytes with a buffer of their own, as WebCrypto takes them. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** Length of a key, in bytes. */
export const KEY_LENGTH = 32;

/** Length of a nonce, in bytes. */
export const NONCE_LENGTH = 12;

/** Length of the tag that ends each ciphertext, in bytes. */
export const TAG_LENGTH = 16;

/**
 * Up to this length, in bytes, a change of threads takes longer than AES. Medians
 * of one call on two cores, in µs; both engines in one run:
 *
 * | | 64 B | 1 KiB | 2 KiB | 4 KiB | 64 KiB |
 * | --- | --- | --- | --- | --- | --- |
 * | WebCrypto, one at a time | 38 | 35 | 36 | 37 | 260 |
 * | WebCrypto, eight in flight | 19 | 21 | 21 | 22 | 134 |
 * | `node:crypto`, seal / open | 7 / 4 | 16 / 14 | 20 / 18 | 28 / 25 | 405 / 320 |
 */
export const SHORT_LENGTH = 2048;

/** A key of one engine. It cannot be read again. */
export interface Aead {
  /**
   * Encrypts in place: `bytes` is the plaintext and room for the tag, and
   * afterwards ciphertext ‖ tag. If it returns a promise, all that it was given
   * belongs to the engine until that resolves; otherwise it is the caller's again.
   *
   * The caller guarantees that a nonce is used once for a key: a second use gives
   * away both plaintexts' difference and the authentication key.
   */
  seal(nonce: Bytes, ad: Bytes, bytes: Bytes): void | Promise<void>;

  /**
   * Decrypts ciphertext ‖ tag. The plaintext stands in the same buffer, or in
   * another of its own. If it returns a promise, the caller may use `bytes` again
   * at once; the nonce belongs to the engine until that resolves.
   *
   * @throws {Error} If key, nonce, additional data, ciphertext or tag is not what
   * was encrypted. A promise rejects with it.
   */
  open(nonce: Bytes, ad: Bytes, bytes: Bytes): Bytes | Promise<Bytes>;

  /** Lets the key go. The key must not be used again. */
  close(): void;
}

/** A way to encrypt: {@linkcode webCrypto}, or the system's OpenSSL. */
export interface Engine {
  /** Its name and version, for people. */
  readonly name: string;

  /**
   * Whether every call gives its result at once. If not, several long messages
   * are sealed side by side, on other threads.
   */
  readonly isSynchronous: boolean;

  /**
   * Makes a key. The engine keeps no reference to the 32 raw bytes, and overwrites
   * them.
   *
   * @param raw They may come later from an engine that is not synchronous.
   * @throws {RangeError} If there are more or fewer.
   */
  createAead(raw: Bytes | Promise<Bytes>): Aead;
}

/**
 * WebCrypto, whose calls run on other threads, for all that is long. Where the
 * runtime has `node:crypto`, its synchronous calls are for what is short.
 */
export const webCrypto: Engine = {
  name: nodeCrypto ? "WebCrypto and node:crypto" : "WebCrypto",
  isSynchronous: false,
  createAead(raw) {
    if (raw instanceof Promise || !nodeCrypto) return new SubtleAead(raw);
    checkKey(raw);
    const short = new NodeAead(raw);
    raw.fill(0);
    // Most keys never meet a long message; a CryptoKey for each takes 1.8 KiB.
    let long: SubtleAead | undefined;
    const aeadFor = ({ length }: Bytes) =>
      length - TAG_LENGTH <= SHORT_LENGTH
        ? short
        : long ??= new SubtleAead(short.exportKey());
    return {
      seal: (nonce, ad, bytes) => aeadFor(bytes).seal(nonce, ad, bytes),
      open: (nonce, ad, bytes) => aeadFor(bytes).open(nonce, ad, bytes),
      close() {},
    };
  },
};

/** WebCrypto's way for all lengths. */
export class SubtleAead implements Aead {
  #key: CryptoKey | Promise<CryptoKey>;

  /** The raw bytes are overwritten once WebCrypto has them. */
  constructor(raw: Bytes | Promise<Bytes>) {
    const key = this.#key = raw instanceof Promise
      ? raw.then(importKey)
      : importKey(raw);
    key.then((key) => this.#key = key, () => {});
  }

  /** {@linkcode Aead.seal}: WebCrypto gives a copy, which goes back in place. */
  seal(nonce: Bytes, ad: Bytes, bytes: Bytes): Promise<void> {
    const key = this.#key;
    return key instanceof Promise
      ? key.then((key) => encrypt(key, nonce, ad, bytes))
      : encrypt(key, nonce, ad, bytes);
  }

  /** {@linkcode Aead.open}. */
  open(nonce: Bytes, ad: Bytes, bytes: Bytes): Promise<Bytes> {
    const key = this.#key;
    if (!(key instanceof Promise)) return decrypt(key, nonce, ad, bytes);
    const copy = bytes.slice();
    return key.then((key) => decrypt(key, nonce, ad, copy));
  }

  /** Nothing to do: the runtime frees a key that nobody holds. */
  close(): void {}
}

/** The runtime's synchronous way: `node:crypto`, for messages of any length. */
export class NodeAead implements Aead {
  readonly #key: KeyObject;

  /** `node:crypto` copies the raw bytes; the caller overwrites them. */
  constructor(raw: Bytes) {
    this.#key = nodeCrypto!.createSecretKey(raw);
  }

  /** The raw bytes, for another engine's key: it overwrites them. */
  exportKey(): Bytes {
    return plain(this.#key.export());
  }

  /** {@linkcode Aead.seal}. */
  seal(nonce: Bytes, ad: Bytes, bytes: Bytes): void {
    const length = bytes.length - TAG_LENGTH;
    const cipher = nodeCrypto!.createCipheriv(NAME, this.#key, nonce, OPTIONS);
    if (ad.length > 0) cipher.setAAD(ad);
    bytes.set(cipher.update(bytes.subarray(0, length)));
    cipher.final();
    bytes.set(cipher.getAuthTag(), length);
  }

  /** {@linkcode Aead.open}. */
  open(nonce: Bytes, ad: Bytes, bytes: Bytes): Bytes {
    const length = lengthOf(bytes);
    const decipher = nodeCrypto!.createDecipheriv(
      NAME,
      this.#key,
      nonce,
      OPTIONS,
    );
    if (ad.length > 0) decipher.setAAD(ad);
    decipher.setAuthTag(bytes.subarray(length));
    const plaintext = decipher.update(bytes.subarray(0, length));
    decipher.final();
    return plain(plaintext);
  }

  /** Nothing to do: the runtime frees a key that nobody holds. */
  close(): void {}
}

const NAME = "aes-256-gcm";
const OPTIONS = { authTagLength: TAG_LENGTH };

/** Imports raw bytes as a key that cannot be exported, and overwrites them. */
function importKey(raw: Bytes): Promise<CryptoKey> {
  checkKey(raw);
  const usages: KeyUsage[] = ["encrypt", "decrypt"];
  const key = crypto.subtle.importKey("raw", raw, "AES-GCM", false, usages);
  // WebCrypto has copied them by now.
  raw.fill(0);
  return key;
}

/** Throws if there are more or fewer bytes than a key has. */
export function checkKey(raw: Bytes): void {
  if (raw.length === KEY_LENGTH) return;
  throw new RangeError(
    `Cannot import AES-256 key: ${raw.length} bytes instead of ${KEY_LENGTH}`,
  );
}

/** The length of the plaintext. */
export function lengthOf(ciphertext: Bytes): number {
  const length = ciphertext.length - TAG_LENGTH;
  if (length < 0) throw new RangeError("Cannot decrypt: there is no tag");
  return length;
}

function encrypt(
  key: CryptoKey,
  nonce: Bytes,
  ad: Bytes,
  bytes: Bytes,
): Promise<void> {
  const plaintext = bytes.subarray(0, -TAG_LENGTH);
  return crypto.subtle.encrypt(parameters(nonce, ad), key, plaintext)
    .then((sealed) => {
      const copy = new Uint8Array(sealed);
      bytes.set(copy);
      free(copy);
    });
}

function decrypt(
  key: CryptoKey,
  nonce: Bytes,
  ad: Bytes,
  ciphertext: Bytes,
): Promise<Bytes> {
  return crypto.subtle.decrypt(parameters(nonce, ad), key, ciphertext)
    .then((plaintext) => new Uint8Array(plaintext));
}

function parameters(iv: Bytes, additionalData: Bytes): AesGcmParams {
  return { name: "AES-GCM", iv, additionalData, tagLength: TAG_LENGTH * 8 };
}
