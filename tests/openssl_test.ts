import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Bytes } from "../lib/lock/aes_gcm.ts";
import { REKEY_INTERVAL } from "../lib/lock/message.ts";
import { openssl, OpenSslError } from "../lib/openssl.ts";
import { bytesOf, channels, endAll, random, send } from "./channels.ts";
import { duplex } from "./duplex.ts";
import { decrypt, encrypt, ENGINES, withRoom } from "./engines.ts";
import { pipe } from "./pipe.ts";
import {
  clientFlags,
  run,
  serverFlags,
  TestServer,
  withCerts,
} from "./programs.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const lacksFfi = lacksPermissions("ffi") ??
  (ENGINES["OpenSSL"] ? undefined : "OpenSSL 3 is not installed");
const test = (name: string, fn: () => Promise<void>) =>
  testUnless(lacksFfi, `openssl: ${name}`, fn);
const engine = () => ENGINES["OpenSSL"]!;

const EMPTY = new Uint8Array(0);
const nonce = new Uint8Array(12);
const raw = new Uint8Array(32).fill(7);

test("its name has the version", () => {
  assert(/^OpenSSL 3\.\d+\.\d+$/.test(engine().name), engine().name);
  return Promise.resolve();
});

for (const length of [0, 1, 15, 16, 17, 2047, 2048, 2049, 65_517, 65_518]) {
  test(`${length} bytes are sealed as by WebCrypto, and opened`, async () => {
    const text = random(length);
    for (const ad of [EMPTY, random(32)]) {
      const sealed = await encrypt(raw, nonce, ad, text, engine());
      assertEquals(sealed, await encrypt(raw, nonce, ad, text));
      assertEquals(await decrypt(raw, nonce, ad, sealed, engine()), text);
    }
  });
}

test("a raw key is overwritten, and stays as long as its key is used", async () => {
  const key = raw.slice();
  const aead = engine().createAead(key);
  assertEquals(key, new Uint8Array(32));
  const bytes = withRoom(new Uint8Array(5));
  aead.seal(nonce, EMPTY, bytes);
  assertEquals(bytes, await encrypt(raw, nonce, EMPTY, new Uint8Array(5)));
  aead.close();
  aead.close();
});

test("what is not authentic is overwritten, not handed on", async () => {
  const sealed = await encrypt(raw, nonce, EMPTY, new Uint8Array(40).fill(1));
  const aead = engine().createAead(raw.slice());
  for (let bit = 0; bit < 8 * sealed.length; bit += 13) {
    const forged = sealed.slice();
    forged[bit >> 3]! ^= 1 << (bit & 7);
    assertThrows(() => aead.open(nonce, EMPTY, forged), OpenSslError);
    assertEquals(forged, new Uint8Array(forged.length));
  }
  assertThrows(
    () => aead.open(nonce, new Uint8Array(1), sealed.slice()),
    Error,
  );
  // What failed leaves nothing behind.
  const opened = await aead.open(nonce, EMPTY, sealed.slice());
  assertEquals(opened, new Uint8Array(40).fill(1));
  aead.close();
});

test("lengths that cannot be are refused before a pointer is passed", () => {
  for (const length of [0, 31, 33]) {
    const key = new Uint8Array(length);
    assertThrows(() => engine().createAead(key), RangeError);
  }
  const aead = engine().createAead(raw.slice());
  for (const length of [0, 15]) {
    const bytes = new Uint8Array(length);
    assertThrows(() => aead.seal(nonce, EMPTY, bytes), RangeError);
    assertThrows(() => aead.open(nonce, EMPTY, bytes), RangeError);
  }
  for (const length of [0, 11, 13]) {
    const other = new Uint8Array(length);
    const bytes = new Uint8Array(16);
    assertThrows(() => aead.seal(other, EMPTY, bytes), RangeError);
    assertThrows(() => aead.open(other, EMPTY, bytes), RangeError);
  }
  const gone = new Uint8Array(100);
  gone.buffer.transfer();
  assertThrows(() => aead.seal(nonce, EMPTY, gone), RangeError);
  aead.close();
  const bytes = new Uint8Array(16);
  for (const use of ["seal", "open"] as const) {
    assertThrows(() => aead[use](nonce, EMPTY, bytes), OpenSslError, "closed");
  }
  return Promise.resolve();
});

test("a file that is no OpenSSL, or none at all, is told", () => {
  const none = "/nowhere/libcrypto.so.3";
  const error = assertThrows(() => openssl([none]), OpenSslError);
  assert(error.message.startsWith("Cannot load OpenSSL: "), error.message);
  assert(error.message.includes(none), error.message);
  assertThrows(() => openssl([]), OpenSslError, "no file is known");
  return Promise.resolve();
});

/** How many bytes go each way: past a few frames of full length. */
const LENGTH = 1_000_000;

for (const [theirs, name] of [[undefined, "WebCrypto"], ["same", "itself"]]) {
  test(`a channel talks to ${name}`, async () => {
    const other = theirs ? { engine: engine() } : {};
    for (const ends of [duplex(), pipe()]) {
      const [client, server] = await channels(
        ends,
        { engine: engine() },
        other,
      );
      const said = random(LENGTH);
      const [heard] = await Promise.all([
        bytesOf(server.readable),
        send(client, [said.subarray(0, 1), said.subarray(1)]),
        send(server, [said]),
        bytesOf(client.readable),
      ]);
      assertEquals(heard, said);
      await Promise.all([client.closed, server.closed]);
    }
  });
}

test("a channel goes on past a rekey", async () => {
  const [client, server] = await channels(pipe(), { engine: engine() });
  const count = Number(REKEY_INTERVAL) + 10;
  const p = new Uint8Array(10);
  for (let i = 0; i < count; i++) {
    await client.write(Uint8Array.of(i));
    assertEquals(await server.read(p), 1);
    assertEquals(p[0], i & 255);
  }
  await endAll(client, server);
});

Deno.test("createAead: a key that must be waited for is not OpenSSL's", () => {
  if (!ENGINES["OpenSSL"]) return;
  const later = Promise.resolve(new Uint8Array(32)) as Promise<Bytes>;
  assertThrows(() => engine().createAead(later), TypeError);
});

const mayRun = lacksPermissions("net", "read", "write", "run") ?? lacksFfi;

testUnless(
  mayRun,
  "openssl: both programs seal by it, and say so",
  withCerts(async (dir) => {
    await using server = await TestServer.start([
      ...serverFlags(dir),
      "--openssl",
    ]);
    await server.logged(`sealing with ${engine().name}`);
    for (const flags of [[], ["--openssl"]]) {
      const result = await run("client", [
        ...clientFlags(dir, server.port),
        ...flags,
        "hello",
      ]);
      assertEquals([result.code, result.text], [0, "HELLO\n"]);
    }
  }),
);

testUnless(
  mayRun,
  "openssl: without a library there is one line, and exit code 2",
  withCerts(async (dir) => {
    for (const program of ["server", "client"] as const) {
      const result = await run(program, ["--openssl", `${dir}/psk.txt`]);
      assertEquals(result.code, 2);
      const lines = result.stderr.trim().split("\n");
      assertEquals(lines.length, 1, result.stderr);
      assert(lines[0]!.startsWith(`${program}: Cannot load OpenSSL: `));
      assert(lines[0]!.includes("leave the flag out"));
    }
  }),
);
