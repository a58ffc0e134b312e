import { assertEquals } from "@std/assert";

/** What each folder may import, besides itself and packages. */
const BELOW: Record<string, string[]> = {
  lib: [],
  tunnel: ["lib"],
  handlers: ["lib", "tunnel"],
  cli: ["lib", "tunnel", "handlers"],
};

for (const [folder, below] of Object.entries(BELOW)) {
  Deno.test(`${folder}/ imports only ${["itself", ...below].join(", ")}`, async () => {
    const root = new URL(`../${folder}/`, import.meta.url);
    const others = [];
    for await (const { name } of Deno.readDir(root)) {
      const text = await Deno.readTextFile(new URL(name, root));
      for (
        const [, path] of text.matchAll(/(?:from|import) "\.\.\/(\w+)\/[^"]+"/g)
      ) {
        if (!below.includes(path!)) others.push(`${name}: ${path}`);
      }
    }
    assertEquals(others, []);
  });
}
