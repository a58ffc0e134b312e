/**
 * Checks private keys before they are used: Deno's errors come late and do not
 * name the file.
 *
 * @module
 */

import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { UsageError } from "../advice/errors.ts";
import { derOf } from "./pem.ts";

/** What Deno's TLS takes, besides Ed25519. */
const CURVES = ["prime256v1", "secp384r1", "secp521r1"];
const MIN_RSA_LENGTH = 2048;

/**
 * What Deno decrypts, as object identifiers in hex: AES-CBC, with a key made
 * from the passphrase by PBKDF2 with HMAC-SHA-2 (RFC 8018) or scrypt (RFC 7914).
 */
const CIPHER = /608648016503040(102|116|12a)/;
const KEY_DERIVATION = /2a864886f70d02(08|09|0a|0b)|2b06010401da47040b/;
/** The same where the key is in the old format (RFC 1421). */
const OLD_CIPHER = /^DEK-Info: *(AES-(128|192|256)|DES-EDE3)-CBC,/m;

/** Whether a text has a private key, PEM, that takes a passphrase to open. */
export function isEncrypted(text: string): boolean {
  return /-----BEGIN ENCRYPTED |Proc-Type: *4, *ENCRYPTED/.test(text);
}

/**
 * The first of these keys that is the one of a certificate, in the clear: PKCS#8,
 * PEM.
 *
 * @param cert Undefined if the first will do.
 * @param passphrase Of those that are encrypted.
 */
export function findPrivateKey(
  path: string,
  keys: string[],
  cert: string | undefined,
  passphrase?: string,
): string | undefined {
  let failure: unknown;
  for (const pem of keys) {
    try {
      const key = passphrase === undefined
        ? read(path, pem)
        : decrypt(path, pem, passphrase);
      checkKind(path, key);
      if (cert && !new X509Certificate(cert).checkPrivateKey(key)) continue;
      return key.export({ type: "pkcs8", format: "pem" }) as string;
    } catch (error) {
      failure ??= error;
    }
  }
  if (failure !== undefined) throw failure;
  return undefined;
}

function read(path: string, pem: string): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch {
    throw new UsageError(
      `Cannot use ${path}: it is damaged, or not a key that TLS can use`,
    );
  }
}

function decrypt(path: string, pem: string, passphrase: string): KeyObject {
  if (!isCipherKnown(pem)) {
    throw new UsageError(
      `Cannot decrypt ${path}: Deno does not know its cipher; encrypt it again with ` +
        `'openssl pkcs8 -topk8 -v2 aes-256-cbc -in ${path}'`,
    );
  }
  try {
    return createPrivateKey({ key: pem, passphrase });
  } catch {
    throw new UsageError(`Cannot decrypt ${path}: the passphrase is wrong`);
  }
}

/** Deno's own error would not tell it from a wrong passphrase. */
function isCipherKnown(pem: string): boolean {
  // Only a key in the old format has headers.
  if (pem.includes(":")) return OLD_CIPHER.test(pem);
  const hex = derOf(pem).toHex();
  return CIPHER.test(hex) && KEY_DERIVATION.test(hex);
}

function checkKind(path: string, key: KeyObject): void {
  const { asymmetricKeyType: type, asymmetricKeyDetails } = key;
  const { namedCurve = "", modulusLength = 0 } = asymmetricKeyDetails ?? {};
  if (type === "ed25519") return;
  if (type === "ec" && CURVES.includes(namedCurve)) return;
  if (type === "rsa" && modulusLength >= MIN_RSA_LENGTH) return;
  const kind = [type, namedCurve || modulusLength || ""].join(" ").trim();
  throw new UsageError(
    `Cannot use ${path}: TLS takes no ${kind} key; make an EC P-256 key`,
  );
}
