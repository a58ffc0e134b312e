/**
 * The library as npm's package has it: the modules of `lib/` that run anywhere,
 * as JavaScript and with their types.
 *
 * @module
 */

import { posix } from "node:path";
import { untar } from "./tar.ts";

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
  const texts = await translateAll(root);
  return {
    ...reached(texts, entries, ".js"),
    ...reached(texts, entries, ".d.ts"),
  };
}

/** All that the project publishes, as `deno pack` translates it. */
async function translateAll(root: string): Promise<Record<string, string>> {
  const archive = await Deno.makeTempFile({ prefix: "innerlock-" });
  try {
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["pack", "--quiet", "--allow-dirty", "--no-source-maps"],
        ...["--output", archive],
      ],
      cwd: root,
    }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr).trim());
    return await untar("package", await Deno.readFile(archive));
  } finally {
    await Deno.remove(archive);
  }
}

/** The files of one kind that the entries need: types need fewer. */
function reached(
  texts: Record<string, string>,
  entries: string[],
  extension: ".js" | ".d.ts",
): Record<string, string> {
  const files: Record<string, string> = {};
  // A set that grows while it is walked.
  const bases = new Set(entries.map((entry) => entry.replace(/\.ts$/, "")));
  for (const base of bases) {
    const text = texts[base + extension];
    if (text === undefined) {
      throw new Error(`Nothing became ${base}${extension}`);
    }
    for (const [, to] of text.matchAll(IMPORT)) {
      bases.add(posix.join(posix.dirname(base), to!));
    }
    const start = extension === ".d.ts" ? REFERENCE : "";
    files[base + extension] = start + text.replaceAll(OURS, '"innerlock$1"');
  }
  return files;
}
