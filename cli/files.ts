/**
 * The files that the flags name: certificates, and secrets, which nobody else
 * may read.
 *
 * @module
 */

import { type TakenPsks, takePsks } from "../lib/lock/psk.ts";
import { certificatesOf } from "./keys/certificates.ts";
import { messageOf, UsageError } from "./advice/errors.ts";
import {
  findPrivateKey,
  isEncrypted,
  privateKeysOf,
} from "./keys/private_keys.ts";
import { promptHidden } from "./terminal/prompt.ts";

/** The permission bits that a secret may not have: group's and others'. */
const OPEN_TO_OTHERS = 0o077;

/** Why a file or a folder cannot be used, written for people. */
export function whyNot(error: unknown): string {
  const { errors } = Deno;
  if (error instanceof errors.IsADirectory) return "it is a folder";
  if (error instanceof errors.NotFound) return "there is no such folder";
  if (error instanceof errors.PermissionDenied) return "permission denied";
  // Of /proc, /dev and the like Deno asks for a flag that a task cannot take.
  return error instanceof errors.NotCapable
    ? "Deno lets no program in there; choose another place"
    : messageOf(error);
}

/**
 * Reads a file; undefined if there is none.
 *
 * @param most How many characters are enough; more are not read to the end.
 */
export async function readIfThere(
  path: string,
  most = Infinity,
): Promise<string | undefined> {
  try {
    return await readAtMost(await Deno.open(path), most);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new UsageError(`Cannot read ${path}: ${whyNot(error)}`);
  }
}

/** Reads to the end, or until there are more characters than so many. */
export async function readAtMost(
  { readable }: { readable: ReadableStream<Uint8Array> },
  most: number,
): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of readable) {
    text += decoder.decode(bytes, { stream: true });
    if (text.length > most) return text;
  }
  return text + decoder.decode();
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
      `Cannot use ${path}: other users may read it; run 'chmod 600 ${path}'`,
    );
  }
}

/** Reads a key file. */
export async function readPsk(
  path: string,
  origin?: string,
): Promise<TakenPsks> {
  const text = await readText(path, origin);
  let psk: TakenPsks;
  try {
    psk = takePsks(text);
  } catch (error) {
    throw new UsageError(`${messageOf(error)} (${path})`);
  }
  // Only now: whoever named a wrong file need not change its mode.
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

/** Certificates and the private key of the first, in the clear. */
export interface Pair {
  cert: string;
  key: string;
}

/** Reads certificates and, of the keys in another file, the one that fits. */
export async function readPair(
  certPath: string,
  keyPath: string,
  options: KeyOptions,
): Promise<Pair> {
  const cert = await readCertificates(certPath, options.origin);
  const key = await readPrivateKey(keyPath, cert, options);
  if (key !== undefined) return { cert, key };
  throw new UsageError(
    `Cannot use ${keyPath}: it is not the key of ${certPath}`,
  );
}

/**
 * Reads a private key; one that is encrypted with the passphrase in a file, or
 * asks for it at the terminal if it may.
 *
 * @param cert The certificate that it is to fit; undefined if any will do.
 */
export async function readPrivateKey(
  path: string,
  cert: string | undefined,
  options: KeyOptions,
): Promise<string | undefined> {
  const text = await readText(path, options.origin);
  const blocks = privateKeysOf(path, text);
  await checkMode(path);
  const { plain = [], locked = [] } = Object.groupBy(
    blocks,
    (block) => isEncrypted(block) ? "locked" : "plain",
  );
  const key = findPrivateKey(path, plain, cert);
  if (key !== undefined || locked.length === 0) return key;
  const passphrase = await readPassphrase(path, text, options);
  return findPrivateKey(path, locked, cert, passphrase);
}

/** The last answer: nobody is asked again while the file stays the same. */
let answered: { text: string; passphrase: string } | undefined;

async function readPassphrase(
  path: string,
  text: string,
  { file, mayAsk = true, advice }: KeyOptions,
): Promise<string> {
  if (file !== undefined) return await readSecret(file);
  if (answered?.text === text) return answered.passphrase;
  const passphrase = mayAsk
    ? promptHidden(`Passphrase for ${path}:`)
    : undefined;
  if (passphrase === undefined) {
    const what = advice ?? `decrypt it with 'openssl pkey -in ${path}'`;
    throw new UsageError(`Cannot use ${path}: it is encrypted; ${what}`);
  }
  answered = { text, passphrase };
  return passphrase;
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
