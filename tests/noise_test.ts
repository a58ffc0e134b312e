import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { CipherState, EMPTY } from "../lib/lock/noise.ts";
import { type Engine, SubtleAead, webCrypto } from "../lib/lock/aes_gcm.ts";
import { encrypt, encrypted, ENGINES, withRoom } from "./engines.ts";

for (const [delta, length] of [[-1, 31], [0, 32], [1, 33]] as const) {
  Deno.test(`CipherState: a key of ${length} bytes (limit ${delta})`, () => {
    const make = () => CipherState.initializeKey(new Uint8Array(length));
    if (delta === 0) assertEquals(make().n, 0n);
    else {
      const message = `Cannot import AES-256 key: ${length} bytes`;
      assertThrows(make, RangeError, message);
    }
  });
}

/** One that does not look at what it is given before its caller goes on. */
const tardy: Engine = {
  name: "tardy",
  isSynchronous: false,
  createAead(raw) {
    const aead = new SubtleAead(raw);
    return {
      seal: async (...args) => await aead.seal(...await later(args)),
      open: async (...args) => await aead.open(...await later(args)),
      close: () => aead.close(),
    };
  },
};

const later = <T>(args: T) => Promise.resolve(args);

for (const engine of [webCrypto, tardy]) {
  Deno.test(`CipherState: calls that overlap take their nonces in order, by ${engine.name}`, async () => {
    const make = () => CipherState.initializeKey(new Uint8Array(32), engine);
    const [sender, receiver] = [make(), make()];
    const texts = Array.from({ length: 50 }, (_, i) => new Uint8Array([i]));
    const sealed = await Promise.all(
      texts.map((text) => encrypted(sender, EMPTY, text)),
    );
    assertEquals(new Set(sealed.map((bytes) => bytes.toHex())).size, 50);
    const opened = await Promise.all(
      sealed.map((bytes) => receiver.decryptWithAd(EMPTY, bytes)),
    );
    assertEquals(opened, texts);
    assertEquals([sender.n, receiver.n], [50n, 50n]);
    // The first is of the first nonce, and not of a later one.
    const alone = CipherState.initializeKey(new Uint8Array(32));
    assertEquals(await alone.decryptWithAd(EMPTY, sealed[0]!), texts[0]);
  });
}

Deno.test("CipherState: a frame that does not open costs its nonce too", async () => {
  const cipher = CipherState.initializeKey(new Uint8Array(32));
  const forged = new Uint8Array(17);
  await assertRejects(
    async () => await cipher.decryptWithAd(EMPTY, forged),
    Error,
  );
  assertEquals(cipher.n, 1n);
});

Deno.test("CipherState: after a rekey the old key opens nothing", async () => {
  const make = () => CipherState.initializeKey(new Uint8Array(32));
  const [sender, stale, fresh] = [make(), make(), make()];
  sender.rekey();
  fresh.rekey();
  // The counter goes on.
  assertEquals(sender.n, 0n);
  const sealed = await encrypted(sender, EMPTY, new Uint8Array([7]));
  await assertRejects(
    async () => await stale.decryptWithAd(EMPTY, sealed),
    Error,
  );
  assertEquals([...await fresh.decryptWithAd(EMPTY, sealed)], [7]);
});

Deno.test("CipherState: the nonces end before the one that REKEY uses", async () => {
  const last = 2n ** 64n - 2n;
  const make = () =>
    CipherState.initializeKey(new Uint8Array(32), webCrypto, last);
  const [sender, receiver] = [make(), make()];
  const text = new Uint8Array([1]);
  const sealed = await encrypted(sender, EMPTY, text);
  assertEquals(await receiver.decryptWithAd(EMPTY, sealed), text);
  for (let i = 0; i < 2; i++) {
    for (
      const use of [
        () => sender.encryptWithAd(EMPTY, withRoom(text)),
        () => receiver.decryptWithAd(EMPTY, sealed),
      ]
    ) assertThrows(use, RangeError, "its nonces are used up");
  }
  assertEquals([sender.n, receiver.n], [last + 1n, last + 1n]);
});

Deno.test("createAead: the raw key is overwritten once there is a key", async () => {
  const nonce = new Uint8Array(12);
  const raw = new Uint8Array(32).fill(7);
  const expected = await encrypt(raw, nonce, EMPTY, raw);
  const aead = webCrypto.createAead(raw);
  assertEquals(raw, new Uint8Array(32));
  // For what is short, and for what is long.
  for (const length of [32, 5000]) {
    const bytes = withRoom(new Uint8Array(length).fill(7));
    await aead.seal(nonce, EMPTY, bytes);
    assertEquals(bytes.subarray(0, 32), expected.subarray(0, 32));
  }
});

for (const [name, engine] of Object.entries(ENGINES)) {
  Deno.test(`CipherState: a rekey lets the old key go, and no other, ${name}`, async () => {
    const log: string[] = [];
    let count = 0;
    const cipher = CipherState.initializeKey(new Uint8Array(32), {
      ...engine,
      createAead(raw) {
        const aead = engine.createAead(raw);
        const number = ++count;
        return {
          seal: (...args) => aead.seal(...args),
          open: (...args) => aead.open(...args),
          close: () => {
            log.push(`close ${number}`);
            aead.close();
          },
        };
      },
    });
    const sealing = encrypted(cipher, EMPTY, new Uint8Array(5000));
    cipher.rekey();
    // It is the new key's, though the old one is at work.
    await Promise.all([
      sealing,
      encrypted(cipher, EMPTY, new Uint8Array(5000)),
    ]);
    assertEquals(log, ["close 1"]);
    cipher.close();
    assertEquals(log, ["close 1", "close 2"]);
  });
}
