/**
 * Replaces files: each whole or not at all, one program at a time.
 *
 * @module
 */

import { open } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { UsageError } from "../advice/errors.ts";
import { ifThere, orCannot } from "../files.ts";

/** A file to write. */
export interface NewFile {
  path: string;
  text: string;
  /** The permission bits, if the file is new; otherwise the most for others. */
  mode: number;
  /** Whether it has these bits in any case, even in the place of another file. */
  isPrivate?: boolean;
}

/**
 * Does the work while no other program does such work in the same folders,
 * wherever links lead.
 *
 * The folders themselves are locked. That leaves nothing behind, and the system
 * releases a lock whenever the program ends.
 */
export async function withFiles<T>(
  paths: string[],
  work: () => Promise<T>,
): Promise<T> {
  using locked = new DisposableStack();
  for (const folder of await foldersOf(paths)) {
    const what = `use the folder ${folder}`;
    const opened = await orCannot(what, Deno.open(folder));
    await locked.use(opened).lock(true);
  }
  return await work();
}

/**
 * The folders in which files are, once all links are followed; sorted, so that
 * two programs that lock several do so in the same order.
 */
export async function foldersOf(paths: string[]): Promise<string[]> {
  const places = await Promise.all(paths.map(placeOf));
  return [...new Set(places.map((place) => dirname(place)))].sort();
}

/** Makes a folder for secrets, unless it is there. */
export async function makeFolder(path: string): Promise<void> {
  const made = Deno.mkdir(path, { recursive: true, mode: 0o700 });
  await orCannot(`make ${path}`, made);
}

/** Where a file is, or is to be, once all links are followed. */
async function placeOf(path: string): Promise<string> {
  const place = await orCannot(`write ${path}`, ifThere(Deno.realPath(path)));
  if (place !== undefined) return place;
  // A link may lead to a file that is not there yet.
  const target = await Deno.readLink(path).catch(() => undefined);
  return target === undefined
    ? join(await placeOf(dirname(path)), basename(path))
    : await placeOf(resolve(dirname(path), target));
}

/**
 * Writes all files beside their places, then renames each into its own, in this
 * order, with the owner and, unless it is private, the mode of the one that it
 * replaces. Others get no more rights than they have to a new file. What root makes
 * anew belongs to whoever the folder belongs to, such as a service. If one of them
 * cannot be written, all are as they were before. To be called within
 * {@linkcode withFiles}. A run that is killed between two renames leaves the
 * first files new and the others old; the next run replaces them all.
 *
 * @param rename Stands in for `Deno.rename` in tests.
 */
export async function replaceFiles(
  files: NewFile[],
  rename = Deno.rename,
): Promise<void> {
  const written: Written[] = [];
  const renamed: Written[] = [];
  try {
    for (const [index, file] of files.entries()) {
      const to = await placeOf(file.path);
      // The same name each time, so that a killed run leaves nothing for long.
      const from = join(dirname(to), `.${basename(to)}.${index}.new`);
      const work = async () => {
        const old = await ifThere(readOld(to));
        written.push({ ...file, from, to, old });
        await ifThere(Deno.remove(from));
        const kept = file.isPrivate ? undefined : old?.info.mode;
        // What others may not read of a new file, they may not read of this one.
        const mode = (kept ?? file.mode) & (0o770 | file.mode);
        await writeAs(from, file.text, mode, old?.info);
      };
      await orCannot(`write ${file.path}`, work());
    }
    for (const file of written) {
      await orCannot(`write ${file.path}`, rename(file.from, file.to));
      renamed.push(file);
    }
  } catch (error) {
    for (const file of renamed.reverse()) await restore(file).catch(() => {});
    throw error;
  } finally {
    for (const { from } of written) await Deno.remove(from).catch(() => {});
  }
  const last = new Map(written.map((file) => [file.to, file]));
  for (const { path, to, text } of last.values()) {
    if (await Deno.readTextFile(to) === text) continue;
    throw new UsageError(
      `Cannot write ${path}: another program has changed it meanwhile`,
    );
  }
}

/** A file that is written beside its place. */
interface Written extends NewFile {
  from: string;
  to: string;
  /** What is in its place; undefined if nothing is. */
  old: Awaited<ReturnType<typeof readOld>> | undefined;
}

async function readOld(path: string) {
  const info = await Deno.stat(path);
  // To read a pipe could take for ever.
  if (!info.isFile && !info.isDirectory) throw new Error("it is no file");
  return { bytes: await Deno.readFile(path), info };
}

/** Puts back what was in a file's place. */
async function restore({ from, to, old }: Written): Promise<void> {
  if (old === undefined) return await Deno.remove(to);
  await writeAs(from, old.bytes, old.info.mode ?? 0o600, old.info);
  await Deno.rename(from, to);
}

/**
 * Writes a file that is not there yet. Its owner and mode are set on the open
 * file: root may be at work in the folder of a user who puts a link in its
 * place.
 */
async function writeAs(
  path: string,
  text: string | Uint8Array,
  mode: number,
  old?: Deno.FileInfo,
): Promise<void> {
  // Nobody else may open it before it has its owner and its mode.
  const file = await open(path, "wx", 0o600);
  try {
    const now = await file.stat();
    const isRoot = now.uid === 0;
    const owner = old ?? (isRoot ? await Deno.stat(dirname(path)) : now);
    if (owner.uid !== now.uid || owner.gid !== now.gid) {
      await file.chown(owner.uid!, owner.gid!);
    }
    await file.chmod(mode & 0o777);
    await file.writeFile(text);
    // After a power cut, too, a name leads to the old file or to the new one.
    await file.sync();
  } finally {
    await file.close();
  }
}
