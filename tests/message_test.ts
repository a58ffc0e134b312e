import { assertEquals } from "@std/assert";
import { type Bytes, SHORT_LENGTH, webCrypto } from "../lib/lock/aes_gcm.ts";
import { MessageSeal } from "../lib/lock/message.ts";
import { CipherState, EMPTY } from "../lib/lock/noise.ts";
import { aes, rekeyed } from "./reference.ts";
import { encrypted, sealed } from "./engines.ts";

const raw = new Uint8Array(32).fill(7);

/** The last message under a key and its neighbours: their nonces and keys. */
const [second, third] = [await rekeyed(raw), await rekeyed(await rekeyed(raw))];
const BOUNDS = [
  [65_534n, raw],
  [65_535n, raw],
  [65_536n, second],
  [65_537n, second],
] as const;
const LATER_BOUNDS = [[131_071n, raw], [131_072n, second]] as const;

for (const length of [1, SHORT_LENGTH + 1]) {
  for (const isAwaited of [false, true]) {
    const how = isAwaited ? "one by one" : "at once";
    const name = `of ${length} bytes, ${how}`;

    Deno.test(`MessageSeal: the 65 537th message is the first under the next key, ${name}`, async () => {
      for (const bounds of [BOUNDS, LATER_BOUNDS]) {
        const seal = sealAt(bounds[0][0]);
        const texts = bounds.map((_, i) => new Uint8Array(length).fill(i));
        const frames: (Bytes | Promise<Bytes>)[] = [];
        for (const text of texts) {
          const frame = sealed(seal, text);
          frames.push(isAwaited ? await frame : frame);
        }
        const opened = bounds.map(async ([n, key], i) =>
          await aes("decrypt", key, n, await frames[i]!)
        );
        assertEquals(await Promise.all(opened), texts);
      }
    });

    Deno.test(`MessageSeal: it opens what was sealed so, ${name}`, async () => {
      for (const bounds of [BOUNDS, LATER_BOUNDS]) {
        const seal = sealAt(bounds[0][0]);
        const texts = bounds.map((_, i) => new Uint8Array(length).fill(i));
        const frames = await Promise.all(
          bounds.map(([n, key], i) => aes("encrypt", key, n, texts[i]!)),
        );
        const opened: (Bytes | Promise<Bytes>)[] = [];
        for (const frame of frames) {
          const plaintext = seal.open(frame);
          frame.fill(0);
          opened.push(isAwaited ? await plaintext : plaintext);
        }
        assertEquals(await Promise.all(opened), texts);
      }
    });
  }
}

Deno.test("CipherState: of keys that are made at once the last one counts", async () => {
  const cipher = CipherState.initializeKey(raw.slice());
  cipher.rekey();
  cipher.rekey();
  // At whatever point the first of them may be.
  const frames: (Bytes | Promise<Bytes>)[] = [];
  for (let n = 0; n < 200; n++) {
    frames.push(encrypted(cipher, EMPTY, new Uint8Array([7])));
    await undefined;
  }
  for (const [n, frame] of frames.entries()) {
    const text = await aes("decrypt", third, BigInt(n), await frame);
    assertEquals([...text], [7]);
  }
});

function sealAt(n: bigint): MessageSeal {
  return new MessageSeal(CipherState.initializeKey(raw.slice(), webCrypto, n));
}
