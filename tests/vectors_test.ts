/**
 * Conformance with public vectors. `testdata/vectors/` has their figures, with
 * the source and licence of each.
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Bytes } from "../lib/lock/aes_gcm.ts";
import { EMPTY, HandshakeState } from "../lib/lock/noise.ts";
import cavp from "./testdata/vectors/aes_gcm_cavp.json" with { type: "json" };
import gcm from "./testdata/vectors/aes_gcm_wycheproof.json" with {
  type: "json",
};
import hkdf from "./testdata/vectors/hkdf_wycheproof.json" with {
  type: "json",
};
import cacophony from "./testdata/vectors/noise_cacophony.json" with {
  type: "json",
};
import dh from "./testdata/vectors/x25519_wycheproof.json" with {
  type: "json",
};
import { decrypt, encrypt, encrypted, ENGINES } from "./engines.ts";
import {
  importPrivateKey,
  importPublicKey,
  keyPair,
  x25519,
} from "./x25519.ts";

const hex = (text: string): Bytes => Uint8Array.fromHex(text);

/** A file's rows, each by the names of its columns. */
function rowsOf(
  { columns, rows }: { columns: string; rows: string[] },
): Record<string, string>[] {
  const names = columns.split(" ");
  return rows.map((row) => {
    const values = row.split(" ");
    assertEquals(values.length, names.length, row);
    return Object.fromEntries(names.map((name, i) => [name, values[i]!]));
  });
}

/** How many rows have each result. */
function countsOf(rows: Record<string, string>[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { result = "" } of rows) {
    counts[result] = (counts[result] ?? 0) + 1;
  }
  return counts;
}

async function checkGcm(row: Record<string, string>): Promise<void> {
  const [key, iv, aad, pt, sealed] = ["key", "iv", "aad", "pt", "sealed"]
    .map((name) => hex(row[name]!)) as [Bytes, Bytes, Bytes, Bytes, Bytes];
  for (const engine of Object.values(ENGINES)) {
    const opening = async () => await decrypt(key, iv, aad, sealed, engine);
    if (row.result === "valid") {
      assertEquals(await opening(), pt);
      assertEquals(await encrypt(key, iv, aad, pt, engine), sealed);
    } else await assertRejects(opening, Error);
  }
}

Deno.test("AES-256-GCM: Wycheproof, 256/96/128", async () => {
  const rows = rowsOf(gcm);
  assertEquals(countsOf(rows), { valid: 39, invalid: 27 });
  for (const row of rows) await checkGcm(row);
});

Deno.test("AES-256-GCM: NIST CAVP, 256/96/128", async () => {
  const rows = rowsOf(cavp);
  assertEquals(countsOf(rows), { valid: 559, invalid: 191 });
  for (const row of rows) await checkGcm(row);
});

Deno.test("X25519: Wycheproof; an all-zero shared secret is refused", async () => {
  const rows = rowsOf(dh);
  assertEquals(rows.length, 518);
  let zeros = 0;
  for (const { private: ours, public: theirs, shared } of rows) {
    const privateKey = await importPrivateKey(ours!);
    const publicKey = await importPublicKey(hex(theirs!));
    if (/^0+$/.test(shared!)) {
      zeros++;
      await assertRejects(() => x25519(privateKey, publicKey), DOMException);
    } else {
      assertEquals((await x25519(privateKey, publicKey)).toHex(), shared);
    }
  }
  assertEquals(zeros, 31);
});

Deno.test("HKDF: Wycheproof", async () => {
  const rows = rowsOf(hkdf);
  assertEquals(countsOf(rows), { valid: 83, invalid: 3 });
  for (const { result, ikm, salt, info, size, okm } of rows) {
    const derive = async () => {
      const key = await crypto.subtle.importKey(
        "raw",
        hex(ikm!),
        "HKDF",
        false,
        [
          "deriveBits",
        ],
      );
      return await crypto.subtle.deriveBits(
        {
          name: "HKDF",
          hash: "SHA-256",
          salt: hex(salt!),
          info: hex(info!),
        },
        key,
        Number(size) * 8,
      );
    };
    if (result === "invalid") await assertRejects(derive, DOMException);
    else assertEquals(new Uint8Array(await derive()).toHex(), okm);
  }
});

Deno.test("HandshakeState: cacophony's NNpsk0, and its transport messages", async () => {
  const v = cacophony;
  const side = async (who: "init" | "resp") =>
    await HandshakeState.initialize({
      prologue: hex(v[`${who}_prologue`]),
      psk: hex(v[`${who}_psk`]),
      e: await keyPair(v[`${who}_ephemeral`]),
    });
  const [init, resp] = [await side("init"), await side("resp")];
  type Message = typeof v.messages[number];
  const [m1, m2, ...transport] = v.messages as [Message, Message, ...Message[]];
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
    const sealed = await encrypted(send, EMPTY, hex(payload));
    assertEquals(sealed.toHex(), ciphertext);
    assertEquals((await receive.decryptWithAd(EMPTY, sealed)).toHex(), payload);
  }
});
