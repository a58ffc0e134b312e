import { assertEquals } from "@std/assert";
import { launch } from "./limit.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

testUnless(
  lacksPermissions("run"),
  "launch: a program that hangs is killed, one that ends is not",
  async () => {
    const start = (script: string, time?: number) =>
      launch("sh", { args: ["-c", script] }, time).status;
    const hangs = await start("trap '' TERM; exec sleep 600", 50);
    assertEquals(hangs.signal, "SIGKILL");
    const ends = await start("exit 7");
    assertEquals([ends.code, ends.signal], [7, null]);
  },
);

testUnless(
  lacksPermissions("read"),
  "every program that a test runs has a limit",
  async () => {
    const starting = [];
    for await (const { name } of Deno.readDir(import.meta.dirname!)) {
      if (!name.endsWith(".ts")) continue;
      const text = await Deno.readTextFile(`${import.meta.dirname}/${name}`);
      if (/\bDeno\s*\.Command\(/.test(text)) starting.push(name);
    }
    assertEquals(starting, ["limit.ts"]);
  },
);
