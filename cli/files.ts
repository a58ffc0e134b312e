/**
 * The files that a program is told of: certificates, and secrets, which nobody
 * else may read. Reads them, and replaces those that are made anew.
 *
 * @module
 */

import { createPrivateKey } from "node:crypto";
import { promptSecret } from "@std/cli/prompt-secret";
import { parsePsk, type PskMap } from "../lib/mod.ts";
import { checkCertificates, isEncryptedKey } from "./certificates.ts";
import { messageOf, UsageError } from "./main.ts";

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

/** Reads certificates. */
export async function readCertificates(
  path: string,
  origin?: string,
): Promise<string> {
  const text = await readText(path, origin);
  checkCertificates(path, text);
  return text;
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
let decrypted: { pem: string; key: string } | undefined;

/**
 * Reads a private key; one that is encrypted with the passphrase in a file, or
 * asks for it at the terminal if it may.
 */
export async function readPrivateKey(
  path: string,
  { file, mayAsk = true, advice, origin }: KeyOptions,
): Promise<string> {
  const pem = await readText(path, origin);
  const isEncrypted = isEncryptedKey(path, pem);
  await checkMode(path);
  if (!isEncrypted) return pem;
  if (decrypted?.pem !== pem) {
    const passphrase = file
      ? await readSecret(file)
      : mayAsk && Deno.stdin.isTerminal()
      ? promptSecret(`Passphrase of ${path}:`)
      : null;
    if (passphrase === null) {
      const what = advice ?? `decrypt it with 'openssl pkey -in ${path}'`;
      throw new UsageError(`Cannot use ${path}: it is encrypted; ${what}`);
    }
    decrypted = { pem, key: decrypt(path, pem, passphrase) };
  }
  return decrypted.key;
}

/** Reads a secret that is one line: a passphrase, a password. */
export async function readSecret(path: string): Promise<string> {
  const text = await readText(path);
  await checkMode(path);
  return text.replace(/\r?\n$/, "");
}

function decrypt(path: string, pem: string, passphrase: string): string {
  try {
    return createPrivateKey({ key: pem, passphrase })
      .export({ type: "pkcs8", format: "pem" }) as string;
  } catch {
    throw new UsageError(`Cannot decrypt ${path}: the passphrase is wrong`);
  }
}

/** A file to be. */
export interface NewFile {
  path: string;
  text: string;
  mode: number;
}

/** Writes all files beside their places, then renames each into its own. */
export async function replaceFiles(files: NewFile[]): Promise<void> {
  const temporary = (path: string) => `${path}.${Deno.pid}.new`;
  try {
    for (const { path, text, mode } of files) {
      await Deno.writeTextFile(temporary(path), text, {
        mode,
        createNew: true,
      });
    }
    for (const { path } of files) await Deno.rename(temporary(path), path);
  } catch (error) {
    throw new UsageError(`Cannot write ${files[0]!.path}: ${whyNot(error)}`);
  } finally {
    for (const { path } of files) {
      await Deno.remove(temporary(path)).catch(() => {});
    }
  }
}
