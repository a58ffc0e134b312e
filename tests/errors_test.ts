/** What can be thrown is exported, and each class has a name of its own. */

import { assert, assertEquals } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { lacksPermissions, testUnless } from "./requirements.ts";

testUnless(
  lacksPermissions("read"),
  "errors: each class of the library is exported, under its name",
  async () => {
    const exports: Record<string, unknown> = {};
    for (const path of Object.values(config.exports)) {
      Object.assign(exports, await import(`../${path}`));
    }
    const lib = new URL("../lib/", import.meta.url);
    const names: string[] = [];
    for (const folder of ["", "lock/", "carrier/"]) {
      for await (const { name } of Deno.readDir(new URL(folder, lib))) {
        if (!name.endsWith(".ts")) continue;
        const text = await Deno.readTextFile(new URL(folder + name, lib));
        // What is named otherwise never leaves the library.
        const classes = text.matchAll(/class (\w+Error) extends \w*Error\b/g);
        names.push(...Array.from(classes, ([_, name]) => name!));
      }
    }
    assert(names.length >= 4, names.join());
    for (const name of names) {
      const Class = exports[name] as ErrorConstructor;
      assert(Class, `${name} is not exported`);
      assertEquals(new Class("cut").name, name);
    }
  },
);
