/**
 * Identities and their pre-shared keys.
 *
 * An identity is `NAME`, or `NAME@SERVICE` where a client asks for a service by
 * its name. The line `alice` of a key file is for every service (`alice`,
 * `alice@db`, `alice@web`), the line `alice@db` for that identity alone.
 *
 * The key file has one `identity:hex` per line, with 64 hex digits; `#` begins a
 * comment. GnuTLS `psktool` and stunnel's `PSKsecrets` use the same format.
 *
 * @module
 */

import type { Bytes } from "./aes_gcm.ts";
import { PSK_LENGTH } from "./noise.ts";
import { nextTurn } from "./runtime.ts";

/** The longest identity, in characters. */
export const MAX_IDENTITY_LENGTH = 64;

/** What an identity is, for errors. */
export const IDENTITY_FORM = "NAME or NAME@SERVICE, of letters, digits, '.', " +
  `'_' and '-', ${MAX_IDENTITY_LENGTH} characters at most`;

const IDENTITY = /^[A-Za-z0-9._-]+(?:@[A-Za-z0-9._-]+)?$/;

/** The value of each hex digit, by its character's code; -1 of another. */
const DIGITS = new Int8Array(128).fill(-1);
for (const digit of "0123456789abcdefABCDEF") {
  DIGITS[digit.charCodeAt(0)] = Number.parseInt(digit, 16);
}

/** How many lines of a key file are parsed without a pause. */
const LINES_AT_ONCE = 1000;

/** A line and what ends it. */
const LINE = /[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+$/g;

/**
 * Each identity's key: exactly 32 bytes, in a `Uint8Array` over any buffer.
 *
 * Whoever takes such a map copies it at once: later changes of the map or of its
 * bytes count no more, so a key may be wiped.
 */
export type PskMap = ReadonlyMap<string, Uint8Array>;

/**
 * Whether this is an identity: `NAME` or `NAME@SERVICE`, each of `A-Z a-z 0-9 .
 * _ -`, 64 characters at most.
 */
export function isIdentity(text: unknown): text is string {
  return typeof text === "string" && text.length <= MAX_IDENTITY_LENGTH &&
    IDENTITY.test(text);
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
export function parsePsk(
  text: string,
): ReadonlyMap<string, Uint8Array<ArrayBuffer>> {
  const keys = new Map<string, Bytes>();
  for (const _ of parsing(text, keys));
  return keys;
}

/**
 * Parses the text of a key file as {@linkcode takePsks} does, and gives the event
 * loop a turn now and then: a file may have any number of lines.
 */
export async function takePsksInTurns(text: string): Promise<TakenPsks> {
  const keys = new TakenPsks();
  for (const _ of parsing(text, keys)) await nextTurn();
  return keys;
}

/** Parses a key file step by step, so many lines each. */
function* parsing(text: string, keys: Map<string, Bytes>): Generator<void> {
  for (const { number, entry } of linesOf(text)) {
    if (number % LINES_AT_ONCE === 0) yield;
    if (entry === undefined) continue;
    const { identity, key } = entry;
    if (key === undefined) malformed(number, "has no colon (identity:hex)");
    if (!isIdentity(identity)) {
      malformed(number, `has no identity: ${IDENTITY_FORM}`);
    }
    const bytes = fromHex(key);
    if (bytes === undefined) {
      const digits = PSK_LENGTH * 2;
      malformed(number, `has no key of ${digits} hex digits after its colon`);
    }
    if (keys.has(identity)) {
      malformed(number, `repeats the identity ${identity}`);
    }
    keys.set(identity, bytes);
  }
  if (keys.size === 0) {
    throw new SyntaxError("Cannot parse key file: it has no key");
  }
}

function malformed(number: number, reason: string): never {
  throw new SyntaxError(`Cannot parse key file: line ${number} ${reason}`);
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
export function* linesOf(text: string): Generator<KeyFileLine> {
  let number = 0;
  for (const [line] of text.replace(/^\ufeff/, "").matchAll(LINE)) {
    yield lineOf(line, ++number);
  }
}

function lineOf(text: string, number: number): KeyFileLine {
  const end = text.search(/[#\r\n]/);
  const content = text.slice(0, end < 0 ? undefined : end).trim();
  if (content === "") return { text, number };
  const colon = content.indexOf(":");
  const entry = colon < 0
    ? { identity: content, key: undefined }
    : { identity: content.slice(0, colon), key: content.slice(colon + 1) };
  return { text, number, entry };
}

/**
 * The bytes of a key in hex; undefined if it is none. `Uint8Array.fromHex` is not
 * yet in every runtime.
 */
function fromHex(text: string): Bytes | undefined {
  if (text.length !== 2 * PSK_LENGTH) return undefined;
  const bytes = new Uint8Array(PSK_LENGTH);
  for (let i = 0; i < PSK_LENGTH; i++) {
    const high = DIGITS[text.charCodeAt(2 * i)] ?? -1;
    const low = DIGITS[text.charCodeAt(2 * i + 1)] ?? -1;
    if (high < 0 || low < 0) return undefined;
    bytes[i] = 16 * high + low;
  }
  return bytes;
}

/** The keys that one side works with: all sound, and nobody else's to change. */
export class TakenPsks extends Map<string, Bytes> {
  declare protected readonly isTaken: true;
}

/**
 * Takes the keys: parses the text of a key file, or checks and copies a map.
 * Those that have been taken pass through as they are.
 *
 * @throws {SyntaxError} If the key file's text is malformed.
 * @throws {TypeError} If it is neither, or if what is in the map is not an
 * identity and its bytes.
 * @throws {RangeError} If a key does not have exactly 32 bytes.
 */
export function takePsks(psk: string | PskMap): TakenPsks {
  if (psk instanceof TakenPsks) return psk;
  const taken = new TakenPsks();
  if (typeof psk === "string") {
    for (const _ of parsing(psk, taken));
    return taken;
  }
  for (const [identity, key] of entriesOf(psk)) {
    if (!isIdentity(identity)) throw new TypeError(noIdentity(identity));
    taken.set(identity, copyOf(key, identity));
  }
  return taken;
}

function entriesOf(psk: PskMap): Iterable<[string, unknown]> {
  // A map of another realm, such as a frame's, is one here too.
  if (typeof psk?.get === "function") return psk.entries();
  throw new TypeError(
    "Cannot use this psk: it takes the text of a key file, or a Map of " +
      "identities and keys",
  );
}

function copyOf(key: unknown, identity: string): Bytes {
  const isBytes = ArrayBuffer.isView(key) &&
    Object.prototype.toString.call(key) === "[object Uint8Array]";
  const cannot = `Cannot use the key of ${identity}`;
  if (!isBytes) throw new TypeError(`${cannot}: it is not a Uint8Array`);
  const { byteLength } = key;
  if (byteLength !== PSK_LENGTH) {
    const what = `it has ${byteLength} bytes, not ${PSK_LENGTH}`;
    throw new RangeError(`${cannot}: ${what}`);
  }
  return new Uint8Array(key as Uint8Array);
}

function noIdentity(identity: unknown): string {
  const shown = typeof identity === "string" ? identity : typeof identity;
  return `Cannot use the identity ${shown}: it is not ${IDENTITY_FORM}`;
}

/**
 * The key of an identity: its own if it has one, otherwise that of its NAME. So
 * the key of `alice` opens every service, and the key of `alice@db` no other
 * identity than that.
 */
export function findPsk(identity: string, psks: TakenPsks): Bytes | undefined {
  if (!isIdentity(identity)) return undefined;
  return psks.get(identity) ?? psks.get(nameOf(identity));
}

/** The NAME in an identity. */
export function nameOf(identity: string): string {
  return identity.split("@")[0]!;
}

/** The SERVICE that an identity asks for; undefined if it asks for none. */
export function serviceOf(identity: string): string | undefined {
  return identity.split("@")[1];
}

/**
 * The key of an identity, as {@linkcode findPsk} finds it.
 *
 * @throws {TypeError} If this is no identity, or has no key, or as
 * {@linkcode takePsks} does.
 * @throws {RangeError} As {@linkcode takePsks} does.
 * @throws {SyntaxError} If the key file's text is malformed.
 */
export function pskOf(identity: string, psk: string | PskMap): Bytes {
  if (!isIdentity(identity)) throw new TypeError(noIdentity(identity));
  const key = findPsk(identity, takePsks(psk));
  if (key === undefined) {
    throw new TypeError(`The key file has no identity ${identity}`);
  }
  return key;
}
