/**
 * The library as npm's package has it: the modules of `lib/` that run anywhere,
 * as JavaScript and with their types.
 *
 * @module
 */

import { posix } from "node:path";

/** `using` needs types that the standard library of ES2022 does not have. */
const REFERENCE = '/// <reference lib="esnext.disposable" />\n';

/** What a module takes from another by its path. */
const IMPORT = /\b(?:from |import\()"(\.[^"]+)\.js"/g;

/** What the comments' examples import, which has another name on npm. */
const OURS = /"@innerlock\/innerlock(|\/websocket)"/g;

/**
 * Translates modules and all that they import.
 *
 * @param root The project's folder, which the paths start from.
 * @param entries The modules' paths, such as `lib/mod.ts`.
 * @returns The texts of the new files by their paths.
 * @throws {Error} If a module cannot be translated.
 */
export async function translate(
  root: string,
  entries: string[],
): Promise<Record<string, string>> {
  const folder = await Deno.makeTempDir({ prefix: "innerlock-" });
  try {
    // All that the project publishes.
    const archive = `${folder}/innerlock.tgz`;
    await run(root, Deno.execPath(), [
      ...["pack", "--quiet", "--allow-dirty", "--no-source-maps"],
      ...["--output", archive],
    ]);
    await run(folder, "tar", ["-xzf", archive]);
    return {
      ...await reached(`${folder}/package`, entries, ".js"),
      ...await reached(`${folder}/package`, entries, ".d.ts"),
    };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Runs a program in a folder; throws what it says if it fails. */
async function run(cwd: string, name: string, args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(name, { args, cwd })
    .output();
  if (!success) throw new Error(new TextDecoder().decode(stderr).trim());
}

/** The files of one kind that the entries need: types need fewer. */
async function reached(
  folder: string,
  entries: string[],
  extension: ".js" | ".d.ts",
): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  // A set that grows while it is walked.
  const bases = new Set(entries.map((entry) => entry.replace(/\.ts$/, "")));
  for (const base of bases) {
    const text = await Deno.readTextFile(`${folder}/${base}${extension}`);
    for (const [, to] of text.matchAll(IMPORT)) {
      bases.add(posix.join(posix.dirname(base), to!));
    }
    const start = extension === ".d.ts" ? REFERENCE : "";
    files[base + extension] = start + text.replaceAll(OURS, '"innerlock$1"');
  }
  return files;
}
