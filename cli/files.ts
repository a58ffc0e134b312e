/**
 * The files that a program is told of: certificates, and secrets, which nobody
 * else may read.
 *
 * @module
 */

import { promptSecret } from "@std/cli/prompt-secret";
import { parsePsk, type PskMap } from "../lib/mod.ts";
import { certificatesOf } from "./certificates.ts";
import { messageOf, UsageError } from "./main.ts";
import { isEncrypted, openPrivateKey, privateKeyOf } from "./private_keys.ts";

/** The permission bits that a secret may not have: group's and others'. */
const OPEN_TO_OTHERS = 0o077;

/** What the system says of a file or a folder, in words for people. */
export function whyNot(error: unknown): string {
  const { errors } = Deno;
  if (error instanceof errors.IsADirectory) return "it is a folder";
  if (error instanceof errors.PermissionDenied) return "this user may not";
  // Of /proc, /dev and the like Deno asks for a flag that a task cannot take.
  return error instanceof errors.NotCapable
    ? "Deno lets no program in there; choose another place"
    : messageOf(error);
}

/** Reads a file; undefined if there is none. */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new UsageError(`Cannot read ${path}: ${whyNot(error)}`);
  }
}

/** @param origin Where to get one that is missing. */
async function readText(path: string, origin = ""): Promise<string> {
  const text = await readIfThere(path);
  if (text !== undefined) return text;
  const why = ["there is no such file", origin].filter(Boolean).join("; ");
  throw new UsageError(`Cannot read ${path}: ${why}`);
}

/** Reads certificates, without what may stand around them. */
export async function readCertificates(
  path: string,
  origin?: string,
): Promise<string> {
  return certificatesOf(path, await readText(path, origin));
}

/** Refuses a file that others than its owner may read. */
async function checkMode(path: string): Promise<void> {
  const { mode } = await Deno.stat(path);
  if (mode !== null && mode & OPEN_TO_OTHERS) {
    throw new UsageError(
      `Cannot use ${path}: others may read it; run 'chmod 600 ${path}'`,
    );
  }
}

/** Reads a key file. */
export async function readPsk(path: string, origin?: string): Promise<PskMap> {
  const text = await readText(path, origin);
  let psk: PskMap;
  try {
    psk = parsePsk(text);
  } catch (error) {
    throw new UsageError(`${messageOf(error)} (${path})`);
  }
  // After that: whoever named a wrong file need not close it to others.
  await checkMode(path);
  return psk;
}

/** How an encrypted private key may be read. */
export interface KeyOptions {
  /** A file with the passphrase. */
  file?: string | undefined;
  /** Whether a person may be asked. */
  mayAsk?: boolean;
  /** What to do where there is no passphrase. */
  advice?: string;
  /** Where to get a file that is missing. */
  origin?: string;
}

/** The last one: nobody is asked again as long as the file stays as it is. */
let decrypted: { text: string; key: string } | undefined;

/**
 * Reads a private key; one that is encrypted with the passphrase in a file, or
 * asks for it at the terminal if it may.
 */
export async function readPrivateKey(
  path: string,
  { file, mayAsk = true, advice, origin }: KeyOptions,
): Promise<string> {
  const text = await readText(path, origin);
  const block = privateKeyOf(path, text);
  await checkMode(path);
  if (!isEncrypted(block)) return openPrivateKey(path, block);
  if (decrypted?.text !== text) {
    const passphrase = file
      ? await readSecret(file)
      : mayAsk && Deno.stdin.isTerminal()
      ? promptSecret(`Passphrase of ${path}:`)
      : null;
    if (passphrase === null) {
      const what = advice ?? `decrypt it with 'openssl pkey -in ${path}'`;
      throw new UsageError(`Cannot use ${path}: it is encrypted; ${what}`);
    }
    decrypted = { text, key: openPrivateKey(path, block, passphrase) };
  }
  return decrypted.key;
}

/**
 * Reads a secret that is the first line of a file: a passphrase, a password.
 *
 * @throws {UsageError} If more follows than blank lines.
 */
export async function readSecret(path: string): Promise<string> {
  const text = await readText(path);
  await checkMode(path);
  const [secret = "", ...more] = text.replace(/^\ufeff/, "").split(
    /\r\n|\n|\r/,
  );
  if (more.every((line) => line === "")) return secret;
  throw new UsageError(`Cannot use ${path}: it has more than one line`);
}
