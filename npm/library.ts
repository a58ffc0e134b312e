/**
 * The library as npm's package has it: the modules of `lib/` that run anywhere,
 * as JavaScript and with their types.
 *
 * @module
 */

import { posix, relative } from "node:path";
import ts from "typescript";

const OPTIONS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2022,
  lib: ["lib.esnext.d.ts", "lib.dom.d.ts", "lib.dom.asynciterable.d.ts"],
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  rewriteRelativeImportExtensions: true,
  verbatimModuleSyntax: true,
  declaration: true,
  // `deno check` does that, with more.
  noCheck: true,
  strict: true,
  exactOptionalPropertyTypes: true,
  types: [],
  // What only the other modules use is not among the types.
  stripInternal: true,
};

/** `using` needs types that the standard library of ES2022 does not have. */
const REFERENCE = '/// <reference lib="esnext.disposable" />\n';

/** What a module takes from another by its path. */
const IMPORT = /\b(from |import\()"(\.[^"]+)\.(?:js|ts)"/g;

/**
 * Translates modules and all that they import.
 *
 * @param root The folder that the paths start from.
 * @param entries The modules' paths, such as `lib/mod.ts`.
 * @returns The texts of the new files by their paths.
 * @throws {Error} If a module has no types that could be written.
 */
export function translate(
  root: string,
  entries: string[],
): Record<string, string> {
  const outDir = "/out";
  const names = entries.map((entry) => posix.join(root, entry));
  const options = { ...OPTIONS, rootDir: root, outDir };
  const program = ts.createProgram(names, options);
  const texts: Record<string, string> = {};
  const { diagnostics } = program.emit(undefined, (path, text) => {
    texts[relative(outDir, path)] = text;
  });
  for (const { messageText } of diagnostics) {
    throw new Error(ts.flattenDiagnosticMessageText(messageText, " "));
  }
  return {
    ...reached(texts, entries, ".js"),
    ...reached(texts, entries, ".d.ts"),
  };
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
    const text = withoutUnused(texts[base + extension]!);
    for (const [, , to] of text.matchAll(IMPORT)) {
      bases.add(posix.join(posix.dirname(base), to!));
    }
    const start = extension === ".d.ts" ? REFERENCE : "";
    files[base + extension] = start + text.replaceAll(IMPORT, '$1"$2.js"');
  }
  return files;
}

/** Without what is imported for nothing, once what is internal is gone. */
function withoutUnused(text: string): string {
  return text.replaceAll(
    /^import (?:type )?\{([^}]*)\} from .*\n/gm,
    (line, names: string) => {
      const uses = names.match(/\w+(?=\s*(?:,|$))/g) ?? [];
      const isUsed = (name: string) =>
        text.match(new RegExp(`\\b${name}\\b`, "g"))!.length > 1;
      return uses.some(isUsed) ? line : "";
    },
  );
}
