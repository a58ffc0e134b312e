import { assertEquals } from "@std/assert";
import { visible, visibleText } from "../cli/terminal/visible.ts";

Deno.test("visible: control characters are escaped, text stays", () => {
  for (
    const [line, shown] of [
      ["naïve straße 𝔘 👩‍🚀 \\u001b", "naïve straße 𝔘 👩‍🚀 \\u001b"],
      ["\x1b]0;title\x07\x7f", "\\u001b]0;title\\u0007\\u007f"],
      ["a\r\n\tb\0", "a\\u000d\\u000a\\u0009b\\u0000"],
      ["C1: \x9b2J\x85", "C1: \\u009b2J\\u0085"],
      ["\u202egnp.exe\u2066\u2069", "\\u202egnp.exe\\u2066\\u2069"],
      ["\u2028\u2029\ud800", "\\u2028\\u2029\\ud800"],
    ] as const
  ) assertEquals(visible(line), shown);
});

Deno.test("visible: a line of JSON still says the same", () => {
  const said = { identity: 'x"\x1b\x9b\u202e\\u001b\ud800' };
  const line = visible(JSON.stringify(said));
  assertEquals(/[\p{Cc}\p{Cs}\u202e]/u.test(line), false);
  assertEquals(JSON.parse(line), said);
});

const encoder = new TextEncoder();

async function shown(...chunks: Uint8Array<ArrayBuffer>[]): Promise<string> {
  const source = ReadableStream.from(chunks);
  return await new Response(visibleText(source)).text();
}

Deno.test("visibleText: lines and tabs stay, escape sequences do not, however cut", async () => {
  const bytes = encoder.encode(
    "ä\tb\r\nc\rd\n\x1b]52;c;aGk=\x07\x9b1m\u202e𝔘\r",
  );
  const expected = "ä\tb\r\nc\\u000dd\n" +
    "\\u001b]52;c;aGk=\\u0007\\u009b1m\\u202e𝔘\\u000d";
  assertEquals(await shown(bytes), expected);
  const each = Array.from(bytes, (byte) => Uint8Array.of(byte));
  assertEquals(await shown(...each), expected);
});

Deno.test("visibleText: what is no text, and a mark, a first and a last", async () => {
  assertEquals(await shown(), "");
  const bytes = Uint8Array.of(0x9b, 0x32, 0x4a, 0xc3);
  assertEquals(await shown(bytes), "\ufffd2J\ufffd");
  const source = ReadableStream.from([encoder.encode("\ufeffa")]);
  const marked = await new Response(visibleText(source))
    .bytes();
  assertEquals(marked, encoder.encode("\ufeffa"));
});
