import { assertEquals } from "@std/assert";
import { dirname, join, relative } from "node:path";
import { lacksPermissions, testUnless } from "./requirements.ts";

/** What each folder may import, besides itself and packages. */
const BELOW: Record<string, string[]> = {
  "lib/lock": [],
  "lib/carrier": ["lib/lock"],
  lib: [],
  tunnel: ["lib"],
  handlers: ["lib", "tunnel"],
  cli: ["lib", "tunnel", "handlers"],
};

const ROOT = join(import.meta.dirname!, "..");

for (const [folder, below] of Object.entries(BELOW)) {
  testUnless(
    await lacksPermissions("read"),
    `${folder}/ imports only ${["itself", ...below].join(", ")}`,
    async () => {
      const others = [];
      for await (const path of filesOf(join(ROOT, folder))) {
        const text = await Deno.readTextFile(path);
        for (
          const [, to] of text.matchAll(/(?:from|import) "(\.[^"]+\.ts)"/g)
        ) {
          const target = relative(ROOT, join(dirname(path), to!));
          const isAllowed = [folder, ...below]
            .some((folder) => target.startsWith(`${folder}/`));
          if (!isAllowed) others.push(`${relative(ROOT, path)}: ${target}`);
        }
      }
      assertEquals(others, []);
    },
  );
}

async function* filesOf(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const path = join(folder, name);
    if (isDirectory) yield* filesOf(path);
    else yield path;
  }
}
