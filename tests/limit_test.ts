import { assertEquals } from "@std/assert";
import { limited } from "./limit.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

testUnless(
  lacksPermissions("run"),
  "limited: a program that hangs is killed, one that ends is not",
  async () => {
    const start = (...args: string[]) =>
      new Deno.Command("sh", { args: ["-c", ...args] }).spawn();
    const hangs = await limited(start("trap '' TERM; exec sleep 600"), 50)
      .status;
    assertEquals(hangs.signal, "SIGKILL");
    const ends = await limited(start("exit 7")).status;
    assertEquals([ends.code, ends.signal], [7, null]);
  },
);
