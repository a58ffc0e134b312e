import { assert, assertEquals, assertMatch } from "@std/assert";
import { outputOf } from "./limit.ts";
import { MAY_RUN } from "./programs.ts";
import { lacksPermissions, lacksProgram, testUnless } from "./requirements.ts";

const reason = lacksPermissions(...MAY_RUN);

async function demo(env: Record<string, string> = {}, ...args: string[]) {
  const { code, stdout, stderr } = await outputOf(Deno.execPath(), {
    args: ["task", "--quiet", "demo", ...args],
    env: { ...env, NO_COLOR: "1" },
  });
  const [text, said] = [stdout, stderr]
    .map((bytes) => new TextDecoder().decode(bytes));
  return { code, text: text!, stderr: said! };
}

testUnless(
  reason ?? lacksProgram(["openssl", "version"], "openssl"),
  "demo: all is as expected, and fits a terminal",
  async () => {
    const { code, text, stderr } = await demo();
    assertEquals([code, stderr], [0, ""], text);
    for (const line of text.split("\n")) assert(line.length <= 80, line);
    assertMatch(
      text,
      /^ {2}box saw +who talks \(default\), when, .*\n.*, but not what is said$/m,
    );
    // The mark stands below the digit that differs.
    const [, gets, sends, space] =
      /^ {2}box gets (.*)\n {2}box sends(.*)\n( +)\^ the flipped bit/m
        .exec(text)!;
    const column = space!.length - "  box gets ".length;
    assertEquals(
      [...gets!].flatMap((digit, i) => digit === sends![i] ? [] : [i]),
      [column],
    );
  },
);

testUnless(
  reason,
  "demo: --help shows how to use it, a word is refused",
  async () => {
    const help = await demo({}, "--help");
    assertEquals([help.code, help.stderr], [0, ""]);
    assertMatch(help.text, /^Usage: deno task demo\n/);
    const { code, text, stderr } = await demo({}, "fast");
    assertEquals([code, text], [2, ""]);
    assertMatch(stderr, /^demo: Unknown argument fast: --help/);
  },
);

testUnless(
  reason,
  "demo: without openssl it says what to install",
  async () => {
    const nowhere = await Deno.makeTempDir({ prefix: "innerlock-test-" });
    const { code, stderr } = await demo({ PATH: nowhere });
    assertEquals([code, stderr], [
      1,
      "demo: certs: Cannot find openssl: install it " +
      "(Debian: apt install openssl)\n",
    ]);
    await Deno.remove(nowhere);
  },
);
