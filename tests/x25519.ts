/** Fixed X25519 keys, for test vectors. */

import type { Bytes } from "../lib/lock/aes_gcm.ts";

const PKCS8_PREFIX = "302e020100300506032b656e04220420";

/** WebCrypto has no raw import of a private key: it goes through PKCS #8. */
export function importPrivateKey(raw: string): Promise<CryptoKey> {
  const pkcs8 = Uint8Array.fromHex(PKCS8_PREFIX + raw);
  return crypto.subtle.importKey("pkcs8", pkcs8, "X25519", false, [
    "deriveBits",
  ]);
}

export function importPublicKey(raw: Bytes): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", raw, "X25519", true, []);
}

export async function x25519(
  privateKey: CryptoKey,
  publicKey: CryptoKey,
): Promise<Bytes> {
  return new Uint8Array(
    await crypto.subtle.deriveBits(
      { name: "X25519", public: publicKey },
      privateKey,
      256,
    ),
  );
}

/** The key pair of a raw private key: its public key is X25519(k, 9). */
export async function keyPair(raw: string): Promise<CryptoKeyPair> {
  const privateKey = await importPrivateKey(raw);
  const base = new Uint8Array(32);
  base[0] = 9;
  const publicKey = await importPublicKey(
    await x25519(privateKey, await importPublicKey(base)),
  );
  return { privateKey, publicKey };
}
