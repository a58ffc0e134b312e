/**
 * The key file: which identity holds which pre-shared key.
 *
 * One `identity:hex` per line, with 64 hex digits; `#` begins a comment. GnuTLS
 * `psktool` and stunnel's `PSKsecrets` use the same format.
 *
 * @module
 */

import type { Bytes } from "./aes_gcm.ts";
import { PSK_LENGTH } from "./noise.ts";

const IDENTITY = /^[A-Za-z0-9._@-]{1,64}$/;
const HEX_KEY = new RegExp(`^[0-9A-Fa-f]{${PSK_LENGTH * 2}}$`);

/** A line and what ends it. */
const LINE = /[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+$/g;

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
 * @throws {SyntaxError} If a line is not `identity:hex`, an identity is
 * repeated, or there is none. The message names the line and shows no key.
 */
export function parsePsk(text: string): PskMap {
  const keys = new Map<string, Bytes>();
  for (const { number, entry } of linesOf(text)) {
    if (entry === undefined) continue;
    const fail = (reason: string) => {
      throw new SyntaxError(`Cannot parse key file: line ${number} ${reason}`);
    };
    const { identity, key } = entry;
    if (key === undefined) fail("has no colon (identity:hex)");
    if (!isIdentity(identity)) {
      fail("has no identity of 1 to 64 letters, digits, '.', '_', '@', '-'");
    }
    if (!HEX_KEY.test(key!)) {
      fail(`has no key of ${PSK_LENGTH * 2} hex digits after its colon`);
    }
    if (keys.has(identity)) fail(`repeats the identity ${identity}`);
    keys.set(identity, fromHex(key!));
  }
  if (keys.size === 0) {
    throw new SyntaxError("Cannot parse key file: it has no key");
  }
  return keys;
}

/** A line of a key file. */
export interface KeyFileLine {
  /** All of it, with the characters that end it. */
  text: string;
  /** Its number, from 1. */
  number: number;
  /** What it says, if it says more than a comment. */
  entry?: { identity: string; key: string | undefined };
}

/** The lines of a key file, however they end: CR LF, LF or CR. */
export function linesOf(text: string): KeyFileLine[] {
  const lines = text.replace(/^\ufeff/, "").match(LINE) ?? [];
  return lines.map((text, index) => {
    const number = index + 1;
    const content = text.replace(/[#\r\n][^]*/, "").trim();
    if (content === "") return { text, number };
    const [identity = "", ...rest] = content.split(":");
    const key = rest.length > 0 ? rest.join(":") : undefined;
    return { text, number, entry: { identity, key } };
  });
}

// `Uint8Array.fromHex` is not yet in every runtime.
function fromHex(text: string): Bytes {
  return Uint8Array.from(
    { length: text.length / 2 },
    (_, i) => Number.parseInt(text.slice(2 * i, 2 * i + 2), 16),
  );
}

/** Parses a key file's text; a map passes through as it is. */
export function toPskMap(psk: string | PskMap): PskMap {
  return typeof psk === "string" ? parsePsk(psk) : psk;
}

/**
 * The key of an identity: the one of the whole identity if there is one,
 * otherwise the one of the part before its last `@`. So the key of `alice` opens
 * every service, and the key of `alice@db` only that one.
 */
export function findPsk(identity: string, psks: PskMap): Bytes | undefined {
  const at = identity.lastIndexOf("@");
  return psks.get(identity) ??
    (at < 0 ? undefined : psks.get(identity.slice(0, at)));
}

/**
 * The service that an identity asks for: what follows its last `@`. Undefined
 * if there is none.
 */
export function serviceOf(identity: string): string | undefined {
  const at = identity.lastIndexOf("@");
  return at < 0 ? undefined : identity.slice(at + 1);
}

/**
 * The key of an identity, as {@linkcode findPsk} finds it.
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
