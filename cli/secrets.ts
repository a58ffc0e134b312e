/**
 * Whether anybody else may read a secret file.
 *
 * Who keeps a secret in a file says so by its mode, 0600. But platforms that put
 * secrets into containers and services mount them with a mode of their own: 0440
 * with a group (Kubernetes), 0444 (Docker), 0400 with an ACL, which looks like
 * 0440 (systemd). Those mounts are read-only, so nobody there can mend the mode.
 *
 * @module
 */

import { UsageError } from "./advice/errors.ts";

/** The permission bits of a file's group, and of all others. */
const [GROUP, OTHERS] = [0o070, 0o007];

/** What of a file's state counts here. */
type Info = { mode: number | null; dev: number };

/** The files that are on read-only mounts, each with its device. */
const mounted = new Set<string>();
const placeOf = (path: string, { dev }: Info) => `${dev} ${path}`;

/**
 * Who else may read or change a file; undefined if nobody may.
 *
 * @param mode Of the file, if the system has modes.
 */
export function whoElse(
  mode: number | null,
  os: typeof Deno.build.os = Deno.build.os,
): string | undefined {
  // There every file has 0666, and access lists say who may read it.
  if (mode === null || os === "windows") return undefined;
  if (mode & OTHERS) return "other users";
  // An access list (ACL) shows in these bits, too.
  return mode & GROUP ? "its group or its access list" : undefined;
}

/**
 * Refuses a secret that others may read and its owner can keep from them.
 *
 * @param info Of the file that was read.
 * @throws {UsageError} Unless nobody else may read it, or
 * {@linkcode acceptMounts} has found that it is mounted so.
 */
export function checkSecret(path: string, info: Info): void {
  const who = whoElse(info.mode);
  if (who === undefined || mounted.has(placeOf(path, info))) return;
  throw new UsageError(
    `Cannot use ${path}: ${who} may read it; run 'chmod 600 ${path}'`,
  );
}

/**
 * Accepts the secrets that others may read because they are mounted so: where
 * the mount is read-only, no owner can change the mode. To be called while the
 * program has the right to write, since nothing else tells; nothing is written.
 *
 * @param paths There need not be such files.
 * @param openToWrite Stands in for `Deno.open` in tests.
 * @returns A warning for each.
 */
export async function acceptMounts(
  paths: string[],
  openToWrite = (path: string): Promise<Disposable> =>
    Deno.open(path, { write: true }),
): Promise<string[]> {
  const warnings: string[] = [];
  for (const path of paths) {
    const info = await Deno.stat(path).catch(() => undefined);
    const who = info?.isFile && whoElse(info.mode);
    if (!who) continue;
    try {
      (await openToWrite(path))[Symbol.dispose]();
    } catch (error) {
      if ((error as { code?: unknown }).code !== "EROFS") continue;
      mounted.add(placeOf(path, info));
      warnings.push(
        `${path}: ${who} may read it, and it is mounted read-only, so that ` +
          "cannot be changed here",
      );
    }
  }
  return warnings;
}
