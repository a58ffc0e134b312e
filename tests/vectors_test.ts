/** Conformance with public vectors, which lie beside the project, not in it. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  type Bytes,
  importKey,
  subtle,
  synchronous,
} from "../lib/lock/aes_gcm.ts";
import { EMPTY, HandshakeState } from "../lib/lock/noise.ts";
import { lacksFile, lacksPermissions, testUnless } from "./requirements.ts";
import {
  importPrivateKey,
  importPublicKey,
  keyPair,
  x25519,
} from "./x25519.ts";

const FOLDER = new URL("../../shared/vectors/", import.meta.url);
const reason = lacksPermissions("read") ??
  lacksFile(FOLDER, "../shared/vectors, outside the repository,");
const test = (name: string, fn: () => Promise<void>) =>
  testUnless(reason, name, fn);

// deno-lint-ignore no-explicit-any
async function load(file: string): Promise<any> {
  return JSON.parse(await Deno.readTextFile(new URL(file, FOLDER)));
}

const hex = (text: string): Bytes => Uint8Array.fromHex(text);

async function checkGcm(
  t: Record<"key" | "iv" | "aad" | "ct" | "tag", string> & {
    pt: string | null;
    valid: boolean;
  },
): Promise<void> {
  const key = await importKey(hex(t.key));
  const [iv, aad, sealed] = [hex(t.iv), hex(t.aad), hex(t.ct + t.tag)];
  for (const way of [subtle, synchronous!]) {
    const decrypt = async () => await way.decrypt(key, iv, aad, sealed);
    if (t.valid) {
      assertEquals((await decrypt()).toHex(), t.pt);
      const encrypted = await way.encrypt(key, iv, aad, hex(t.pt!));
      assertEquals(encrypted.toHex(), sealed.toHex());
    } else await assertRejects(decrypt, Error);
  }
}

test("aes_gcm: Wycheproof, 256/96/128", async () => {
  const { testGroups } = await load("aes_gcm_test.json");
  const count = { valid: 0, invalid: 0 };
  for (const group of testGroups) {
    const { keySize, ivSize, tagSize } = group;
    if (keySize !== 256 || ivSize !== 96 || tagSize !== 128) continue;
    for (const t of group.tests) {
      const valid = t.result === "valid";
      count[valid ? "valid" : "invalid"]++;
      await checkGcm({ ...t, pt: t.msg, valid });
    }
  }
  assertEquals(count, { valid: 39, invalid: 27 });
});

test("aes_gcm: NIST CAVP, 256/96/128", async () => {
  const { tests } = await load("gcm256_iv96_tag128.json");
  const count = { valid: 0, invalid: 0 };
  for (const t of tests) {
    const valid = t.result === "valid";
    count[valid ? "valid" : "invalid"]++;
    await checkGcm({ ...t, valid });
  }
  assertEquals(count, { valid: 559, invalid: 191 });
});

test("X25519: Wycheproof; an all-zero shared secret is refused", async () => {
  const { testGroups } = await load("x25519_test.json");
  let count = 0;
  let zeros = 0;
  for (const t of testGroups.flatMap((g: { tests: unknown[] }) => g.tests)) {
    const privateKey = await importPrivateKey(t.private);
    const publicKey = await importPublicKey(hex(t.public));
    count++;
    if (/^0+$/.test(t.shared)) {
      zeros++;
      await assertRejects(() => x25519(privateKey, publicKey), DOMException);
    } else {
      assertEquals((await x25519(privateKey, publicKey)).toHex(), t.shared);
    }
  }
  assertEquals(count, 518);
  assert(zeros > 0);
});

test("HKDF: Wycheproof", async () => {
  const { testGroups } = await load("hkdf_sha256_test.json");
  let count = 0;
  const invalid: number[] = [];
  for (const t of testGroups.flatMap((g: { tests: unknown[] }) => g.tests)) {
    const key = await crypto.subtle.importKey(
      "raw",
      hex(t.ikm),
      "HKDF",
      false,
      [
        "deriveBits",
      ],
    );
    const derive = () =>
      crypto.subtle.deriveBits(
        { name: "HKDF", hash: "SHA-256", salt: hex(t.salt), info: hex(t.info) },
        key,
        t.size * 8,
      );
    count++;
    if (t.result === "invalid") {
      invalid.push(t.tcId);
      await assertRejects(derive, DOMException);
    } else {
      assertEquals(new Uint8Array(await derive()).toHex(), t.okm);
    }
  }
  assertEquals(count, 86);
  assertEquals(invalid, [25, 48, 74]);
});

test("HandshakeState: cacophony's NNpsk0, and its transport messages", async () => {
  const { vectors } = await load("cacophony.json");
  const v = vectors.find((v: { protocol_name: string }) =>
    v.protocol_name === "Noise_NNpsk0_25519_AESGCM_SHA256"
  );
  const side = async (who: "init" | "resp") =>
    await HandshakeState.initialize({
      prologue: hex(v[`${who}_prologue`]),
      psk: hex(v[`${who}_psks`][0]),
      e: await keyPair(v[`${who}_ephemeral`]),
    });
  const [init, resp] = [await side("init"), await side("resp")];
  const [m1, m2, ...transport] = v.messages;
  assertEquals(
    (await init.writeMessage1(hex(m1.payload))).toHex(),
    m1.ciphertext,
  );
  assertEquals(
    (await resp.readMessage1(hex(m1.ciphertext))).toHex(),
    m1.payload,
  );
  assertEquals(
    (await resp.writeMessage2(hex(m2.payload))).toHex(),
    m2.ciphertext,
  );
  assertEquals(
    (await init.readMessage2(hex(m2.ciphertext))).toHex(),
    m2.payload,
  );
  assertEquals(init.handshakeHash.toHex(), v.handshake_hash);
  assertEquals(resp.handshakeHash.toHex(), v.handshake_hash);
  const [initSend, initReceive] = await init.split();
  const [respReceive, respSend] = await resp.split();
  assert(transport.length > 0);
  for (const { from, payload, ciphertext } of transport) {
    const [send, receive] = from === "init"
      ? [initSend, respReceive]
      : [respSend, initReceive];
    const sealed = await send.encryptWithAd(EMPTY, hex(payload));
    assertEquals(sealed.toHex(), ciphertext);
    assertEquals((await receive.decryptWithAd(EMPTY, sealed)).toHex(), payload);
  }
});
