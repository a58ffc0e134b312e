import { assertEquals, assertThrows } from "@std/assert";
import { isIdentity, parsePsk } from "../lib/psk.ts";

const HEX = "0123456789abcdefABCDEF0123456789".repeat(2);

Deno.test("parsePsk: comments, blank lines, CRLF and spaces are no matter", () => {
  const text = `# first\r\n\r\n alice:${HEX} # hers\r\nb@x.y_z-1:${HEX}`;
  const keys = parsePsk(text);
  assertEquals([...keys.keys()], ["alice", "b@x.y_z-1"]);
  assertEquals(keys.get("alice")!.toHex(), HEX.toLowerCase());
});

for (
  const [name, text, line] of [
    ["no colon", "alice", "line 1 has no colon"],
    ["a short key", `a:${HEX}\nb:${HEX.slice(1)}`, "line 2 has no key"],
    ["a long key", `a:${HEX}0`, "line 1 has no key"],
    ["no hex", `#\n\na:${HEX.replace("0", "g")}`, "line 3 has no key"],
    ["an empty identity", `:${HEX}`, "line 1 has no identity"],
    ["a space in it", `a b:${HEX}`, "line 1 has no identity"],
    ["an identity twice", `a:${HEX}\na:${HEX}`, "line 2 names"],
    ["nothing", "# nobody\n", "no key in it"],
  ] as const
) {
  Deno.test(`parsePsk: ${name} is refused`, () => {
    const error = assertThrows(() => parsePsk(text), SyntaxError, line);
    assertEquals(error.message.includes(HEX.slice(0, 8)), false);
  });
}

Deno.test("isIdentity: 1 to 64 characters", () => {
  const valid = [0, 1, 63, 64, 65].map((n) => isIdentity("a".repeat(n)));
  assertEquals(valid, [false, true, true, true, false]);
  assertEquals(isIdentity("a\n"), false);
  assertEquals(isIdentity("ä"), false);
});
