/**
 * SHA-256 and HKDF: by the runtime's synchronous functions where it has them, by
 * WebCrypto elsewhere. A handshake takes 13 of these calls. In Deno, one of
 * WebCrypto's takes 127 µs (SHA-256) or 41 µs (HKDF), one of `node:crypto` 6 or 8.
 *
 * @module
 */

import type { Bytes } from "./aes_gcm.ts";
import { nodeCrypto, plain } from "./runtime.ts";

/** Length of a hash, in bytes. */
export const HASHLEN = 32;

const EMPTY = new Uint8Array(0);

/** SHA-256 (FIPS 180-4). */
export async function sha256(data: Bytes): Promise<Bytes> {
  return nodeCrypto
    ? plain(nodeCrypto.createHash("sha256").update(data).digest())
    : new Uint8Array(await crypto.subtle.digest("SHA-256", data));
}

/**
 * HKDF with SHA-256 and an empty info (RFC 5869), cut in outputs of 32 bytes each,
 * which no other buffer shares.
 */
export async function hkdf(
  salt: Bytes,
  ikm: Bytes,
  outputs: number,
): Promise<Bytes[]> {
  const length = outputs * HASHLEN;
  const bits = new Uint8Array(
    nodeCrypto
      ? nodeCrypto.hkdfSync("sha256", ikm, salt, EMPTY, length)
      : await hkdfBits(salt, ikm, length),
  );
  const parts = Array.from(
    { length: outputs },
    (_, i) => bits.slice(i * HASHLEN, (i + 1) * HASHLEN),
  );
  bits.fill(0);
  return parts;
}

async function hkdfBits(
  salt: Bytes,
  ikm: Bytes,
  length: number,
): Promise<ArrayBuffer> {
  const key = await crypto.subtle.importKey("raw", ikm, "HKDF", false, [
    "deriveBits",
  ]);
  return await crypto.subtle.deriveBits(
    { name: "HKDF", hash: "SHA-256", salt, info: EMPTY },
    key,
    length * 8,
  );
}
