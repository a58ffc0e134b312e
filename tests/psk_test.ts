import { assertEquals, assertThrows } from "@std/assert";
import {
  findPsk,
  isIdentity,
  parsePsk,
  pskOf,
  serviceOf,
} from "../lib/lock/psk.ts";

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
    ["an identity twice", `a:${HEX}\na:${HEX}`, "line 2 repeats"],
    ["nothing", "# nobody\n", "it has no key"],
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

const lines = ["alice", "bob@db", "carol", "carol@db", "a@b", "@", "x@"];
const keys = parsePsk(
  lines.map((name, i) => `${name}:${`0${i}`.repeat(32)}`).join("\n"),
);
for (
  const [identity, line, service] of [
    ["alice", "alice", undefined],
    ["alice@db", "alice", "db"],
    // A line for one service opens that one alone.
    ["bob@db", "bob@db", "db"],
    ["bob@web", undefined, "web"],
    ["bob", undefined, undefined],
    // Where there are both, each opens its own.
    ["carol@db", "carol@db", "db"],
    ["carol@web", "carol", "web"],
    // The last @ is what counts, and no other.
    ["a@b", "a@b", "b"],
    ["a@b@c", "a@b", "c"],
    ["a@b@c@d", undefined, "d"],
    ["alice@x@db", undefined, "db"],
    // What stands before or after it may be empty.
    ["alice@", "alice", ""],
    ["x@", "x@", ""],
    ["@@db", "@", "db"],
    ["@db", undefined, "db"],
    ["alice2", undefined, undefined],
    // Upper and lower case differ.
    ["Alice", undefined, undefined],
  ] as const
) {
  Deno.test(`findPsk, serviceOf: ${identity} has the key of ${line}`, () => {
    const key = line === undefined ? undefined : keys.get(line)!;
    assertEquals(findPsk(identity, keys), key);
    assertEquals(serviceOf(identity), service);
    if (key) assertEquals(pskOf(identity, keys), key);
    else {
      assertThrows(
        () => pskOf(identity, keys),
        TypeError,
        `The key file has no identity ${identity}`,
      );
    }
  });
}
