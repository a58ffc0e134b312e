/**
 * The key file: which identity holds which pre-shared key.
 *
 * One `identity:hex` on a line, 64 hex digits; `#` begins a comment: the format
 * of GnuTLS `psktool` and of stunnel's `PSKsecrets`.
 *
 * @module
 */

import type { Bytes } from "./aes_gcm.ts";
import { PSK_LENGTH } from "./noise.ts";

const IDENTITY = /^[A-Za-z0-9._@-]{1,64}$/;
const HEX_KEY = new RegExp(`^[0-9A-Fa-f]{${PSK_LENGTH * 2}}$`);

/** Each identity's key, 32 bytes. */
export type PskMap = ReadonlyMap<string, Uint8Array<ArrayBuffer>>;

/** Whether a text is an identity: 1 to 64 of `A-Z a-z 0-9 . _ @ -`. */
export function isIdentity(text: string): boolean {
  return IDENTITY.test(text);
}

/**
 * Parses the text of a key file.
 *
 * @example
 * ```ts
 * import { parsePsk } from "@innerlock/innerlock";
 *
 * const psk = parsePsk(`# the laptop\nalice:${"0f".repeat(32)}\n`);
 * if (psk.get("alice")?.length !== 32) throw new Error();
 * ```
 *
 * @param text The file's text.
 * @returns The key of each identity, in the file's order; at least one.
 * @throws {SyntaxError} If a line is not `identity:hex`, an identity comes
 * twice, or there is none. The message names the line and shows no key.
 */
export function parsePsk(text: string): PskMap {
  const keys = new Map<string, Bytes>();
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const entry = line.replace(/#.*/, "").trim();
    if (entry === "") continue;
    const fail = (reason: string) => {
      throw new SyntaxError(
        `Cannot parse key file: line ${index + 1} ${reason}`,
      );
    };
    const colon = entry.indexOf(":");
    if (colon === -1) fail("has no colon (identity:hex)");
    const identity = entry.slice(0, colon);
    const key = entry.slice(colon + 1);
    if (!isIdentity(identity)) {
      fail("has no identity of 1 to 64 letters, digits, '.', '_', '@', '-'");
    }
    if (!HEX_KEY.test(key)) {
      fail(`has no key of ${PSK_LENGTH * 2} hex digits after its colon`);
    }
    if (keys.has(identity)) fail(`names the identity ${identity} once more`);
    keys.set(identity, Uint8Array.fromHex(key));
  }
  if (keys.size === 0) {
    throw new SyntaxError("Cannot parse key file: there is no key in it");
  }
  return keys;
}

/** Parses a key file's text; a map passes through as it is. */
export function toPskMap(psk: string | PskMap): PskMap {
  return typeof psk === "string" ? parsePsk(psk) : psk;
}

/** The key of an identity; undefined if there is none. */
export function findPsk(identity: string, psks: PskMap): Bytes | undefined {
  return psks.get(identity);
}

/**
 * The key of an identity.
 *
 * @throws {TypeError} If there is none.
 * @throws {SyntaxError} If the key file's text is malformed.
 */
export function pskOf(identity: string, psk: string | PskMap): Bytes {
  const key = findPsk(identity, toPskMap(psk));
  if (key === undefined) {
    throw new TypeError(`The key file has no identity ${identity}`);
  }
  return key;
}
