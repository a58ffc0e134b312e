import { assertEquals } from "@std/assert";
import { Replacements } from "../cli/terminal/replacements.ts";

const encode = (text: string) => new TextEncoder().encode(text);
const BINARY = Uint8Array.of(0x61, 0xff, 0xef, 0xbf);

/** Whether a reply to something has replacements, however both are cut. */
function areSeen(sent: Uint8Array, received: Uint8Array): boolean {
  const results = new Set<boolean>();
  for (const size of [1, 2, 3, 1000]) {
    const replacements = new Replacements();
    for (let at = 0; at < sent.length; at += size) {
      replacements.sent(sent.subarray(at, at + size));
    }
    for (let at = 0; at < received.length; at += size) {
      replacements.received(received.subarray(at, at + size));
    }
    results.add(replacements.areSeen);
  }
  assertEquals(results.size, 1);
  return [...results][0]!;
}

Deno.test("Replacements: seen where bytes that are no text came back as U+FFFD", () => {
  const replaced = encode(new TextDecoder().decode(BINARY));
  assertEquals(areSeen(BINARY, replaced), true);
  assertEquals(areSeen(BINARY, Uint8Array.of(0xef, ...replaced)), true);
  assertEquals(areSeen(BINARY, BINARY), false);
});

Deno.test("Replacements: not seen in what was text, or had as many already", () => {
  const text = encode("straße \ufffd");
  assertEquals(areSeen(text, text), false);
  assertEquals(areSeen(encode("what is there?"), encode("\ufffd")), false);
  const both = Uint8Array.of(...BINARY, ...encode("\ufffd"));
  assertEquals(areSeen(both, encode("\ufffd")), false);
  assertEquals(areSeen(both, encode("\ufffd\ufffd")), true);
});
