/**
 * Reads the files that a program is told of: certificates, and secrets, which
 * nobody else may read.
 *
 * @module
 */

import { createPrivateKey } from "node:crypto";
import { promptSecret } from "@std/cli/prompt-secret";
import { parsePsk, type PskMap } from "../lib/mod.ts";
import { messageOf, UsageError } from "./main.ts";

/** The permission bits that a secret may not have: group's and others'. */
const OPEN_TO_OTHERS = 0o077;

/** Reads a file that is no secret. */
export async function readText(path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    const why = error instanceof Deno.errors.NotFound
      ? "there is no such file; 'deno task certs' makes one"
      : messageOf(error);
    throw new UsageError(`Cannot read ${path}: ${why}`);
  }
}

/** Reads a file that only its owner may read. */
export async function readSecret(path: string): Promise<string> {
  const text = await readText(path);
  const { mode } = await Deno.stat(path);
  if (mode !== null && mode & OPEN_TO_OTHERS) {
    throw new UsageError(
      `Cannot use ${path}: others may read it; run 'chmod 600 ${path}'`,
    );
  }
  return text;
}

/** Reads a key file. */
export async function readPsk(path: string): Promise<PskMap> {
  const text = await readSecret(path);
  try {
    return parsePsk(text);
  } catch (error) {
    throw new UsageError(`${messageOf(error)} (${path})`);
  }
}

/**
 * Reads a private key; one that is encrypted with the passphrase in a file, or
 * asks for it at the terminal if it may.
 */
export async function readPrivateKey(
  path: string,
  { file, mayAsk = true }: { file?: string | undefined; mayAsk?: boolean },
): Promise<string> {
  const pem = await readSecret(path);
  if (!pem.includes("ENCRYPTED")) return pem;
  const passphrase = file
    ? (await readSecret(file)).replace(/\r?\n$/, "")
    : mayAsk && Deno.stdin.isTerminal()
    ? promptSecret(`Passphrase of ${path}:`)
    : null;
  if (passphrase === null) {
    throw new UsageError(
      `Cannot use ${path}: it is encrypted; give --passphrase-file FILE`,
    );
  }
  try {
    return createPrivateKey({ key: pem, passphrase })
      .export({ type: "pkcs8", format: "pem" }) as string;
  } catch {
    throw new UsageError(`Cannot decrypt ${path}: the passphrase is wrong`);
  }
}

/** Gives up the right to write, which only a Unix socket's path takes. */
export function keepWriteOnlyFor(address: string | undefined): void {
  if (address?.startsWith("unix:")) return;
  Deno.permissions.revokeSync({ name: "write" });
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
    throw new UsageError(
      `Cannot write ${files[0]!.path}: ${messageOf(error)}`,
    );
  } finally {
    for (const { path } of files) {
      await Deno.remove(temporary(path)).catch(() => {});
    }
  }
}
