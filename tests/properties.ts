/**
 * What holds for any input: run a few hundred times by the tests, for minutes
 * by `deno task fuzz`.
 *
 * @module
 */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { SHORT_LENGTH } from "../lib/lock/aes_gcm.ts";
import { decrypt, encrypt, encrypted, ENGINES } from "./engines.ts";
import { encodeFrames, FrameReader } from "../lib/lock/frame.ts";
import {
  acceptChannel,
  ChannelError,
  connectChannel,
  parsePsk,
} from "../lib/mod.ts";
import { CipherState, EMPTY } from "../lib/lock/noise.ts";
import { findPsk, isIdentity, takePsks } from "../lib/lock/psk.ts";
import { CARRIER_PROPERTIES } from "./carrier_properties.ts";
import { MESSAGE_PROPERTIES } from "./message_properties.ts";
import { SESSION_PROPERTIES } from "./session_properties.ts";
import { duplex, KEY, PSK } from "./duplex.ts";
import { aes, rekeyed } from "./reference.ts";
import {
  type Bytes,
  bytes,
  concat,
  cuts,
  equal,
  type Property,
  Scripted,
  within,
} from "./scripted.ts";
import transcript from "./testdata/transcript.json" with { type: "json" };

/** Fails unless the work fails with the one error. */
async function failsAsOne(work: Promise<unknown>): Promise<void> {
  try {
    await within(work);
  } catch (error) {
    if (error instanceof ChannelError) return;
    throw error;
  }
  throw new Error("It was accepted");
}

/** Bytes with some of them overwritten, put in or taken out. */
function mutated(original: Bytes): fc.Arbitrary<Bytes> {
  const change = fc.record({
    at: fc.nat(original.length),
    remove: fc.nat(8),
    insert: bytes(8),
  });
  return fc.array(change, { minLength: 1, maxLength: 3 }).map((changes) =>
    changes.reduce((text: Bytes, { at, remove, insert }) => {
      const start = Math.min(at, text.length);
      const rest = text.subarray(Math.min(start + remove, text.length));
      return concat([text.subarray(0, start), insert, rest]);
    }, original)
  ).filter((result) => !equal(result, original));
}

/** What a peer said in the golden transcript. */
const saidBy = (frames: { frame?: string }[]) =>
  concat(frames.map(({ frame = "" }) => Uint8Array.fromHex(frame)));
const clientSaid = saidBy(transcript.call.client_to_server);
const serverSaid = saidBy(transcript.call.server_to_client);

const line = fc.oneof(
  fc.string({ unit: "binary", maxLength: 100 }),
  fc.constantFrom("", "#", "alice:", `alice:${"0f".repeat(32)}`, ":"),
  fc.tuple(fc.string({ maxLength: 70 }), fc.string({ maxLength: 70 }))
    .map((parts) => parts.join(":")),
);

/** What is an identity more often than not: few letters, so that they meet. */
const name = fc.stringMatching(/^[ab@.-]{0,5}$/);

const raw = fc.uint8Array({ minLength: 32, maxLength: 32 }) as fc.Arbitrary<
  Bytes
>;
const nonce = fc.uint8Array({ minLength: 12, maxLength: 12 }) as fc.Arbitrary<
  Bytes
>;

/** Short ones take one way, long ones the other. */
const message = fc.oneof(
  bytes(50),
  fc.record({
    length: fc.integer({ min: SHORT_LENGTH - 20, max: SHORT_LENGTH + 20 }),
    byte: fc.nat(255),
  }).map(({ length, byte }): Bytes => new Uint8Array(length).fill(byte)),
  fc.constant<Bytes>(new Uint8Array(65_000)),
);

/** What a cipher state is asked for, in order; each asks in the same buffer. */
async function inOrder(
  cipher: CipherState,
  way: "encryptWithAd" | "decryptWithAd",
  steps: { text: Bytes; isAwaited: boolean; rekeys: number }[],
): Promise<Bytes[]> {
  const buffer = new Uint8Array(65_536);
  const results: (Bytes | Promise<Bytes>)[] = [];
  for (const { text, isAwaited, rekeys } of steps) {
    for (let i = 0; i < rekeys; i++) cipher.rekey();
    let result: Bytes | Promise<Bytes>;
    if (way === "encryptWithAd") result = encrypted(cipher, EMPTY, text);
    else {
      // The buffer serves for all: it is the caller's again at once.
      buffer.set(text);
      const opened = cipher[way](EMPTY, buffer.subarray(0, text.length));
      result = opened instanceof Promise ? opened : opened.slice();
      buffer.fill(0, 0, text.length);
    }
    results.push(isAwaited ? await result : result);
  }
  return await Promise.all(results);
}

/** By what they are of. */
export const PROPERTIES: Record<string, Property> = {
  "FrameReader: frames come out as they went in, however cut": fc
    .asyncProperty(
      fc.array(bytes(5000), { maxLength: 8 }),
      cuts,
      async (frames, cuts) => {
        const reader = new FrameReader(
          new Scripted(encodeFrames(frames), cuts),
        );
        for (const frame of frames) assertEquals(await reader.next(0), frame);
        assertEquals(await reader.next(0), null);
      },
    ) as Property,

  "FrameReader: any bytes are frames, a cut or the one error": fc
    .asyncProperty(
      bytes(3000),
      cuts,
      fc.nat(70),
      fc.nat(70_000),
      async (said, cuts, min, max) => {
        const reader = new FrameReader(new Scripted(said, cuts));
        const frames: Uint8Array[] = [];
        try {
          for (let frame; (frame = await reader.next(min, max)) !== null;) {
            frames.push(frame.slice());
          }
        } catch (error) {
          if (!(error instanceof ChannelError)) throw error;
        }
        const read = encodeFrames(frames as Bytes[]);
        assert(equal(read, said.subarray(0, read.length)));
      },
    ) as Property,

  "AES-256-GCM: all engines give the same bytes, and refuse the same": fc
    .asyncProperty(
      raw,
      nonce,
      bytes(40),
      message,
      fc.nat(),
      async (raw, nonce, ad, plaintext, bit) => {
        const sealed = await encrypt(raw, nonce, ad, plaintext);
        const engines = Object.values(ENGINES);
        for (const engine of engines) {
          const same = await encrypt(raw, nonce, ad, plaintext, engine);
          assert(equal(same, sealed));
          const opened = await decrypt(raw, nonce, ad, sealed, engine);
          assert(equal(opened, plaintext));
        }
        bit %= 8 * sealed.length;
        sealed[bit >> 3]! ^= 1 << (bit & 7);
        for (const engine of engines) {
          await assertRejects(
            () => decrypt(raw, nonce, ad, sealed, engine),
            Error,
          );
        }
      },
    ) as Property,

  "CipherState: any messages at once, of both ways, under key after key": fc
    .asyncProperty(
      raw,
      fc.array(
        fc.record({
          text: message,
          isAwaited: fc.boolean(),
          rekeys: fc.nat(2),
        }),
        { maxLength: 12 },
      ),
      (raw, steps) =>
        within((async () => {
          const [sender, receiver] = [
            CipherState.initializeKey(raw.slice()),
            CipherState.initializeKey(raw.slice()),
          ];
          const sealed = await inOrder(sender, "encryptWithAd", steps);
          let [key, n] = [raw, 0n];
          for (const [i, { text, rekeys }] of steps.entries()) {
            for (let j = 0; j < rekeys; j++) key = await rekeyed(key);
            // Its own nonce, and that under the key of its turn.
            assert(equal(sealed[i]!, await aes("encrypt", key, n++, text)));
          }
          const frames = steps.map((step, i) => ({
            ...step,
            text: sealed[i]!,
          }));
          const opened = await inOrder(receiver, "decryptWithAd", frames);
          for (const [i, { text }] of steps.entries()) {
            assert(equal(opened[i]!, text));
          }
        })()),
    ) as Property,

  "parsePsk: any text is keys or a SyntaxError that shows none": fc.property(
    fc.array(line, { maxLength: 6 }),
    (lines) => {
      try {
        for (const [identity, key] of parsePsk(lines.join("\n"))) {
          assert(isIdentity(identity));
          assertEquals(key.length, 32);
        }
      } catch (error) {
        assert(error instanceof SyntaxError, String(error));
        assert(!error.message.includes("0f0f"), error.message);
      }
    },
  ) as Property,

  "parsePsk: keys come out as they went in": fc.property(
    fc.dictionary(
      fc.stringMatching(/^[A-Za-z0-9._-]{1,30}(@[A-Za-z0-9._-]{1,33})?$/),
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      { minKeys: 1, maxKeys: 6, noNullPrototype: true },
    ),
    (keys) => {
      const entries = Object.entries(keys);
      const text = entries.map(([identity, key]) =>
        `${identity}:${(key as Bytes).toHex()}`
      );
      assertEquals([...parsePsk(text.join("\n"))], entries);
    },
  ) as Property,

  "findPsk: a line opens its identity, a NAME's its services, and no more": fc
    .property(
      fc.uniqueArray(name, { minLength: 1, maxLength: 8 }),
      fc.array(name, { maxLength: 20 }),
      (names, asked) => {
        const lines = names.filter(isIdentity);
        // What is not an identity cannot be in a key file.
        for (const other of names.filter((name) => !isIdentity(name))) {
          assertThrows(() => parsePsk(`${other}:${KEY}`), SyntaxError);
        }
        const keys = takePsks(
          new Map(lines.map((line, i) => [line, new Uint8Array(32).fill(i)])),
        );
        const more = lines.flatMap((line) => [`${line}@a`, `${line}@`]);
        for (const identity of [...asked, ...names, ...more]) {
          const [own] = findPsk(identity, keys) ?? [];
          const [, client] = /^([^@]+)@[^@]+$/.exec(identity) ?? [];
          const line = lines.find((line) => line === identity) ??
            lines.find((line) => line === client);
          assertEquals(own, line && lines.indexOf(line), identity);
        }
      },
    ) as Property,

  "acceptChannel: any bytes are the one error": fc.asyncProperty(
    fc.oneof(bytes(500), mutated(clientSaid), fc.constant(clientSaid)),
    cuts,
    (said, cuts) =>
      failsAsOne(acceptChannel(new Scripted(said, cuts), { psk: PSK })),
  ) as Property,

  "connectChannel: any bytes are the one error": fc.asyncProperty(
    fc.oneof(bytes(500), mutated(serverSaid), fc.constant(serverSaid)),
    cuts,
    (said, cuts) =>
      failsAsOne(connectChannel(new Scripted(said, cuts), { psk: PSK })),
  ) as Property,

  "Channel: any writes, cut anyhow, come out as one stream": fc.asyncProperty(
    fc.array(bytes(5000), { maxLength: 8 }),
    cuts,
    fc.boolean(),
    (writes, cuts, awaitEach) =>
      within((async () => {
        let count = 0;
        const wire = function* (chunk: Bytes) {
          while (chunk.length > 0) {
            const cut = cuts[count++ % cuts.length]!;
            yield chunk.subarray(0, cut).slice();
            chunk = chunk.subarray(cut);
          }
        };
        const [near, far] = duplex(wire, wire);
        const [client, server] = await Promise.all([
          connectChannel(near, { psk: PSK }),
          acceptChannel(far, { psk: PSK }),
        ]);
        const echoing = server.readable.pipeTo(server.writable);
        const writer = client.writable.getWriter();
        for (const bytes of writes) {
          const writing = writer.write(bytes);
          if (awaitEach) await writing;
        }
        const closing = writer.close();
        const reply = await new Response(client.readable).bytes();
        await Promise.all([closing, echoing, client.closed, server.closed]);
        assert(equal(reply, concat(writes)));
      })()),
  ) as Property,

  "Channel: one byte changed, and nothing false comes out": fc.asyncProperty(
    bytes(2000).filter(({ length }) => length > 0),
    fc.nat(),
    fc.integer({ min: 1, max: 255 }),
    cuts,
    (text, at, mask, cuts) =>
      within((async () => {
        // After the handshake and the open: hello, Noise message, ping, open.
        const target = 21 + 50 + 19 + 19 + at % (text.length + 19);
        let offset = 0;
        let count = 0;
        const wire = function* (chunk: Bytes) {
          const index = target - offset;
          if (index >= 0 && index < chunk.length) chunk[index]! ^= mask;
          offset += chunk.length;
          while (chunk.length > 0) {
            const cut = cuts[count++ % cuts.length]!;
            yield chunk.subarray(0, cut).slice();
            chunk = chunk.subarray(cut);
          }
        };
        const [near, far] = duplex(wire);
        const [client, server] = await Promise.all([
          connectChannel(near, { psk: PSK }),
          acceptChannel(far, { psk: PSK }),
        ]);
        const writer = client.writable.getWriter();
        const writing = writer.write(text).then(() => writer.close())
          .then(() => client.abort());
        writing.catch(() => {});
        const received: Uint8Array[] = [];
        const reading = (async () => {
          for await (const chunk of server.readable) received.push(chunk);
        })();
        await failsAsOne(reading);
        assert(
          equal(concat(received), text.subarray(0, concat(received).length)),
        );
        client.abort();
        await writing.catch(() => {});
      })()),
  ) as Property,

  ...MESSAGE_PROPERTIES,
  ...SESSION_PROPERTIES,
  ...CARRIER_PROPERTIES,
};
