import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { UsageError } from "../cli/advice/errors.ts";
import { KeyFile } from "../cli/keys/key_file.ts";
import { linesOf, parsePsk } from "../lib/lock/psk.ts";

const A = "a".repeat(64);
const B = "b".repeat(64);

Deno.test("KeyFile: the first key, another, and another for the same", () => {
  const file = new KeyFile("psk.txt", undefined);
  assertEquals(file.keys().size, 0);
  file.setKey("alice");
  const first = file.text;
  assertMatch(first, /^# [^\n]+\nalice:[0-9a-f]{64}\n$/);
  file.setKey("bob");
  assertEquals(file.text.startsWith(first), true);
  file.setKey("alice");
  assertEquals([...parsePsk(file.text).keys()], ["bob", "alice"]);
  assertEquals(file.text.includes(first.slice(-66)), false);
});

Deno.test("KeyFile: a last line without its end gets one", () => {
  const file = new KeyFile("psk.txt", `alice:${A}`);
  file.setKey("bob");
  assertEquals([...file.keys().keys()], ["alice", "bob"]);
});

Deno.test("KeyFile: all but the identity's own line stays, however lines end", () => {
  for (const end of ["\n", "\r\n", "\r"]) {
    const text = `# both${end}${end}alice:${A} # hers${end} bob : ${B}`;
    assertThrows(() => new KeyFile("psk.txt", text), UsageError, "(psk.txt)");
    const good = text.replace(" bob : ", " bob:");
    const file = new KeyFile("psk.txt", good);
    assertEquals(file.remove("carol"), false);
    assertEquals(file.text, good);
    assertEquals(file.remove("alice"), true);
    assertEquals(file.text, `# both${end}${end} bob:${B}`);
  }
});

Deno.test("KeyFile: what the parser sees is what can be taken out", () => {
  for (
    const text of [
      `# old\ralice:${A}\nbob:${B}\n`,
      `bob:${B} # b\u2028b:c\nalice:${A}`,
      `bob:${B} # \ralice:${A}\n`,
      `\ufeffalice:${A}\r\nbob:${B}`,
      `\u0085#\nalice:${A}\n\u2028\nbob:${B}\n`.slice(1),
      `\talice:${A}#bob\n\n#alice:\nbob:${B}`,
    ]
  ) {
    assertEquals([...parsePsk(text).keys()].sort(), ["alice", "bob"], text);
    const file = new KeyFile("psk.txt", text);
    assertEquals(file.remove("alice"), true);
    assertEquals([...parsePsk(file.text).keys()], ["bob"]);
    assertEquals(file.text.includes(A), false);
  }
});

Deno.test("linesOf: together they are the text", () => {
  for (const text of ["", "\n", "a\rb\r\nc\n\n", "\r\r\n\r", "a:b#c\rd"]) {
    assertEquals(Array.from(linesOf(text), (line) => line.text).join(""), text);
  }
});
