/**
 * Replaces files: whole or not at all, one program at a time.
 *
 * @module
 */

import { basename, dirname, join, resolve } from "node:path";
import { whyNot } from "./files.ts";
import { UsageError } from "./main.ts";

/** A file to be. */
export interface NewFile {
  path: string;
  text: string;
  /** The permission bits of one that is not there yet. */
  mode: number;
}

/**
 * Works while no other program does so on files of the same folders.
 *
 * The folders themselves are locked: that leaves nothing behind, and the system
 * lets go of a lock whenever the program ends.
 */
export async function withFolders<T>(
  files: string[],
  work: () => Promise<T>,
): Promise<T> {
  const folders = new Set(files.map((path) => dirname(path)));
  using locked = new DisposableStack();
  // Two programs that lock several do so in the same order.
  for (const folder of [...folders].sort()) {
    await locked.use(await openFolder(folder)).lock(true);
  }
  return await work();
}

async function openFolder(path: string): Promise<Deno.FsFile> {
  try {
    return await Deno.open(path);
  } catch (error) {
    throw new UsageError(`Cannot lock ${path}: ${whyNot(error)}`);
  }
}

/** Where a file is, or is to be, once all links are followed. */
export async function placeOf(path: string): Promise<string> {
  try {
    return await Deno.realPath(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) {
      throw new UsageError(`Cannot write ${path}: ${whyNot(error)}`);
    }
  }
  // A link may lead to a file that is not there yet.
  const target = await Deno.readLink(path).catch(() => undefined);
  return target === undefined
    ? join(await placeOf(dirname(path)), basename(path))
    : await placeOf(resolve(dirname(path), target));
}

/**
 * Writes all files beside their places, then renames each into its own, with the
 * owner and the mode of the one that it replaces.
 */
export async function replaceFiles(files: NewFile[]): Promise<void> {
  const written: { from: string; to: string; text: string }[] = [];
  try {
    for (const { path, text, mode } of files) {
      const to = await placeOf(path);
      const from = join(dirname(to), `.${basename(to)}.${Deno.pid}.new`);
      written.push({ from, to, text });
      await writeAs(await infoOf(to), from, text, mode);
    }
    for (const { from, to } of written) await Deno.rename(from, to);
    for (const { to, text } of written) {
      if (await Deno.readTextFile(to) === text) continue;
      throw new Error(`${to} was changed by somebody else meanwhile`);
    }
  } catch (error) {
    throw new UsageError(`Cannot write ${files[0]!.path}: ${whyNot(error)}`);
  } finally {
    for (const { from } of written) await Deno.remove(from).catch(() => {});
  }
}

async function infoOf(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.stat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function writeAs(
  old: Deno.FileInfo | undefined,
  path: string,
  text: string,
  mode: number,
): Promise<void> {
  // Nobody else may open it before it has its owner and its mode.
  await Deno.writeTextFile(path, text, { mode: 0o600, createNew: true });
  const now = await Deno.stat(path);
  if (old && (old.uid !== now.uid || old.gid !== now.gid)) {
    await Deno.chown(path, old.uid, old.gid);
  }
  await Deno.chmod(path, (old?.mode ?? mode) & 0o777);
}
