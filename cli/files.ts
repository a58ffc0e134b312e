/**
 * The files that the flags name: certificates, and secrets, which nobody else
 * may read.
 *
 * @module
 */

import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { resolve } from "node:path";
import { type TakenPsks, takePsksInTurns } from "../lib/lock/psk.ts";
import { certificatesOf } from "./keys/certificates.ts";
import { parsePem } from "./keys/pem.ts";
import { messageOf, UsageError } from "./advice/errors.ts";
import { checkSecret } from "./secrets.ts";
import { findPrivateKey, isEncrypted } from "./keys/private_keys.ts";
import { promptHidden } from "./terminal/prompt.ts";

/** The largest file that is read, in bytes: 600 000 lines of a key file. */
const MAX_LENGTH = 50_000_000;

/** Whether a pipe is waited for. */
let mayWait = true;

/**
 * From now on reads files alone. A program waits for a pipe when it starts; later
 * it would wait for ever for one that has been read, or that takes the place of
 * a file for a moment.
 */
export function readNoPipes(): void {
  mayWait = false;
}

/** Why a file or a folder cannot be used, written for people. */
function whyNoFile(error: unknown): string {
  const { errors } = Deno;
  if (error instanceof errors.IsADirectory) return "it is a folder";
  if (error instanceof errors.NotFound) return "there is no such folder";
  const { code } = error as { code?: unknown };
  if (error instanceof errors.PermissionDenied || code === "EACCES") {
    return "permission denied";
  }
  // Of /proc, /dev and the like Deno asks for a flag that a task cannot take.
  return error instanceof errors.NotCapable
    ? "Deno lets no program in there; choose another place"
    : messageOf(error);
}

/** What work on a file gives; undefined if there is no such file. */
export async function ifThere<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/**
 * What work on a file or a folder gives; its failure is written for people.
 *
 * @param what What cannot be done then, such as `read certs/cert.pem`.
 */
export async function orCannot<T>(what: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw new UsageError(`Cannot ${what}: ${whyNoFile(error)}`);
  }
}

/** A file's text, and what it was when it was read. */
interface Content {
  text: string;
  info: { mode: number | null; dev: number };
}

/**
 * Reads a file; undefined if there is none.
 *
 * @param most How many characters of a pipe are enough; more are not read to the
 * end.
 */
export async function readIfThere(
  path: string,
  most = Infinity,
): Promise<string | undefined> {
  const content = await orCannot(`read ${path}`, ifThere(read(path, most)));
  return content?.text;
}

async function read(path: string, most = Infinity): Promise<Content> {
  const info = await Deno.stat(path);
  if (info.isDirectory) throw new Error("it is a folder");
  if (info.isFile || !mayWait) return await readAtOnce(path);
  return { text: await readAtMost(await Deno.open(path), most), info };
}

/** Reads to the end, or until there are more characters than so many. */
export async function readAtMost(
  { readable }: { readable: ReadableStream<Uint8Array<ArrayBuffer>> },
  most: number,
): Promise<string> {
  let text = "";
  for await (const part of readable.pipeThrough(new TextDecoderStream())) {
    text += part;
    if (text.length > most) break;
  }
  return text;
}

/** Reads a file, and waits for nobody if a pipe is in its place by now. */
async function readAtOnce(path: string): Promise<Content> {
  const { O_RDONLY, O_NONBLOCK = 0 } = constants;
  const file = await open(path, O_RDONLY | O_NONBLOCK);
  try {
    const info = await file.stat();
    if (!info.isFile()) {
      throw new Error("it is no file; a pipe is read at the start alone");
    }
    if (info.size > MAX_LENGTH) throw new Error("it is too long");
    return { text: await file.readFile("utf8"), info };
  } finally {
    await file.close();
  }
}

/** @param origin Where to get one that is missing. */
async function readContent(path: string, origin = ""): Promise<Content> {
  const content = await orCannot(`read ${path}`, ifThere(read(path)));
  if (content !== undefined) return content;
  const why = ["there is no such file", origin].filter(Boolean).join("; ");
  // A path that is not absolute says little about where it was looked for.
  throw new UsageError(`Cannot read ${resolve(path)}: ${why}`);
}

/** Reads certificates, without what may stand around them. */
export async function readCertificates(
  path: string,
  origin?: string,
): Promise<string> {
  return certificatesOf(path, (await readContent(path, origin)).text);
}

/** Reads a key file. */
export async function readPsk(
  path: string,
  origin?: string,
): Promise<TakenPsks> {
  const { text, info } = await readContent(path, origin);
  let psk: TakenPsks;
  try {
    psk = await takePsksInTurns(text);
  } catch (error) {
    throw new UsageError(`${messageOf(error)} (${path})`);
  }
  // Only now: whoever named a wrong file need not change its mode.
  checkSecret(path, info);
  return psk;
}

/** How an encrypted private key may be read. */
interface KeyOptions {
  /** A file with the passphrase. */
  file?: string | undefined;
  /** Whether a person may be asked. */
  mayAsk?: boolean;
  /** What to do where there is no passphrase. */
  advice?: string;
  /** Where to get a file that is missing. */
  origin?: string;
}

/**
 * Reads certificates and, of the keys in another file, the one that fits, in the
 * clear.
 */
export async function readPair(
  certPath: string,
  keyPath: string,
  options: KeyOptions,
): Promise<{ cert: string; key: string }> {
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
  const { text, info } = await readContent(path, options.origin);
  const keys = parsePem(path, text, "PRIVATE KEY");
  checkSecret(path, info);
  const locked = keys.filter(isEncrypted);
  const plain = keys.filter((key) => !isEncrypted(key));
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
  const { text, info } = await readContent(path);
  checkSecret(path, info);
  const [secret = "", ...more] = text.replace(/^\ufeff/, "").split(
    /\r\n|\n|\r/,
  );
  if (more.every((line) => line === "")) return secret;
  throw new UsageError(`Cannot use ${path}: it has more than one line`);
}
