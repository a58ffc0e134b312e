/**
 * What docs/PROTOCOL.md gives as the reason of each choice: an attack that works
 * where the choice is not made, and fails here.
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { TAG_LENGTH } from "../lib/lock/aes_gcm.ts";
import { encodeBye, reasonOf } from "../lib/lock/bye.ts";
import { encodeFrames, FrameReader, HEADER_LENGTH } from "../lib/lock/frame.ts";
import {
  MessageSeal,
  REKEY_INTERVAL,
  type Seal,
  Type,
} from "../lib/lock/message.ts";
import {
  acceptChannel,
  type Channel,
  ChannelError,
  type ChannelErrorCode,
  type ClientOptions,
  connectChannel,
  parsePsk,
} from "../lib/mod.ts";
import {
  CipherState,
  EMPTY,
  HANDSHAKE_MESSAGE_LENGTH,
  HandshakeState,
} from "../lib/lock/noise.ts";
import { Sender } from "../lib/lock/sender.ts";
import { toTransport, type Transport } from "../lib/lock/transport.ts";
import { endAll } from "./channels.ts";
import { decrypt, encrypt, sealed } from "./engines.ts";
import { duplex, KEY, PSK, whole, type Wire } from "./duplex.ts";
import { data, open, RawPeer } from "./raw_peer.ts";
import { rekeyed } from "./reference.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";
import { importPrivateKey, importPublicKey } from "./x25519.ts";

const psk = Uint8Array.fromHex(KEY);
const secret = new TextEncoder().encode("attack at dawn");

/** The attacks, by the names that the page gives them. */
const attacks: Record<string, () => Promise<void>> = {
  async "a recorded session, the key stolen later"() {
    // Under a plain key, whoever steals it reads all that was ever recorded.
    const plainKey = psk;
    const recording = await encrypt(plainKey, nonce(0n), EMPTY, secret);
    const read = await decrypt(
      psk,
      nonce(0n),
      EMPTY,
      recording,
    );
    assertEquals(read.toHex(), secret.toHex());

    // Here the thief can be the client again, but for its ephemeral key.
    const { frames, message2 } = await recordSession();
    const [hello, message1] = frames;
    const privateKey = await importPrivateKey("7e".repeat(32));
    const publicKey = await importPublicKey(message1!.slice(0, 32));
    const e = { publicKey, privateKey };
    const thief = await HandshakeState.initialize({ prologue: hello!, psk, e });
    assertEquals(await thief.writeMessage1(), message1);
    await assertRejects(() => thief.readMessage2(message2), Error);
  },

  async "two sessions laid over each other"() {
    const other = new TextEncoder().encode("attack at noon");
    // Under a plain key each session begins with the same key and nonce: the
    // ciphertexts differ by what the plaintexts differ by.
    const key = psk;
    assertEquals(
      xor(
        await encrypt(key, nonce(0n), EMPTY, secret),
        await encrypt(key, nonce(0n), EMPTY, other),
        secret.length,
      ),
      xor(secret, other, secret.length),
    );

    // Here no two sessions share a key. (One byte of type comes first.)
    const [one, two] = [await recordSession(), await recordSession(other)];
    const apart = xor(
      one.frames[4]!.subarray(1),
      two.frames[4]!.subarray(1),
      secret.length,
    );
    assert(apart.toHex() !== xor(secret, other, secret.length).toHex());
  },

  async "a replayed handshake opens a session"() {
    const { frames, bytes } = await recordSession();
    const [hello, message1] = frames;
    // The key's holder wrote message 1, so it opens: a server that is content
    // with it serves a client that is not there.
    const content = await HandshakeState.initialize({ prologue: hello!, psk });
    assertEquals((await content.readMessage1(message1!)).length, 0);

    // Ours wants a ping under keys that its own, fresh message went into.
    const [attacker, server] = duplex();
    const accepting = acceptChannel(server, { psk: PSK });
    attacker.readable.pipeTo(new WritableStream()).catch(() => {});
    const writer = attacker.writable.getWriter();
    writer.write(bytes).catch(() => {});
    await assertFails(accepting, "refused");
  },

  async "a stream cut short passes for whole"() {
    // Without an end of its own, an end of the connection is all there is.
    const [cut, server] = duplex();
    const reading = new Response(server.readable).text();
    const writer = cut.writable.getWriter();
    await writer.write(new TextEncoder().encode("pay 10"));
    await writer.close();
    assertEquals(await reading, "pay 10");

    // Here whoever ends TLS can close it, but cannot say the end.
    const { client, channel, end } = await sessionThroughAttacker();
    await channel.writable.close();
    const writing = client.writable.getWriter();
    await writing.write(secret);
    const reader = channel.readable.getReader();
    assertEquals((await reader.read()).value, secret);
    end();
    await assertFails(reader.read(), "cut");
    client.abort();
    await assertFails(client.closed, "aborted");
  },

  async "a key stolen late opens what came before"() {
    // Without REKEY a session has one key, and whoever takes it reads all of it.
    const raw = crypto.getRandomValues(new Uint8Array(32));
    const sealed = await encrypt(
      raw,
      nonce(0n),
      EMPTY,
      secret,
    );
    const old = await decrypt(raw, nonce(0n), EMPTY, sealed);
    assertEquals(old.toHex(), secret.toHex());

    // Here the key in memory is another by then.
    const frames: Uint8Array<ArrayBuffer>[] = [];
    const seal = new MessageSeal(CipherState.initializeKey(raw.slice()));
    const sender = new Sender(SINK, recorded(seal, frames), fail);
    sender.send(secret);
    for (let n = 1n; n < REKEY_INTERVAL; n++) {
      sender.sendControl(Type.ping);
      if (n % 256n === 0n) await sender.flush();
    }
    sender.send(secret);
    await sender.flush();
    const key = await rekeyed(raw);
    const late = await decrypt(
      key,
      nonce(REKEY_INTERVAL),
      EMPTY,
      frames.at(-1)!,
    );
    assertEquals(late.subarray(1).toHex(), secret.toHex());
    await assertRejects(
      async () => await decrypt(key, nonce(0n), EMPTY, frames[0]!),
      Error,
    );
  },

  async "identities guessed one by one"() {
    // An answer that differs tells which of them exist.
    const answer = async (identity: string) => {
      const [client, server] = duplex();
      const [accepted, connected] = await Promise.allSettled([
        acceptChannel(server, { psk: PSK }),
        connectChannel(client, {
          psk: `${identity}:${"ee".repeat(32)}`,
          identity,
        }),
      ]);
      assertEquals(accepted.status, "rejected");
      assert(connected.status === "rejected");
      return String(connected.reason).replaceAll(identity, "IDENTITY");
    };
    assertEquals(await answer("alice"), await answer("nobody"));
  },

  async "a key for one service opens another"() {
    // Where a key is looked up by what stands before the last @, that of carol@db
    // is good for carol@db@ssh as well: for ssh.
    const keys = new Map([["carol@db", psk]]);
    const asked = "carol@db@ssh";
    const before = asked.slice(0, asked.lastIndexOf("@"));
    assertEquals(keys.get(asked) ?? keys.get(before), psk);

    // Here an identity has one @ at most, and a line with one is for it alone.
    for (const identity of [asked, "carol@ssh", "carol"]) {
      const [near, far] = duplex();
      const accepting = acceptChannel(far, { psk: keys });
      const peer = new RawPeer(near);
      await assertRejects(() => peer.initiate(identity), TypeError);
      await assertFails(accepting, "refused");
    }
  },

  async "a client sent to another service"() {
    const psks = `alice:${KEY}`;
    const change: Wire = function* (chunk) {
      const text = new TextDecoder("latin1").decode(chunk);
      const at = text.indexOf("alice@web");
      if (at >= 0) chunk.set(new TextEncoder().encode("alice@dbs"), at);
      yield chunk;
    };
    // Where the hello is in no prologue, message 1 opens whatever it says.
    const careless = { prologue: EMPTY, psk };
    const [initiator, responder] = await Promise.all([
      HandshakeState.initialize(careless),
      HandshakeState.initialize(careless),
    ]);
    const message1 = await initiator.writeMessage1();
    assertEquals((await responder.readMessage1(message1)).length, 0);

    // Here it is: what another hello came with does not open.
    const [client, channel] = duplex(change);
    const accepting = acceptChannel(channel, { psk: psks });
    const connecting = connectChannel(client, {
      psk: psks,
      identity: "alice@web",
    });
    await Promise.all([
      assertFails(accepting, "refused"),
      assertFails(connecting, "refused"),
    ]);
  },

  async "a client led to another server"() {
    const [one, other] = [`alice:${KEY}`, `alice:${"5e".repeat(32)}`];
    // Where both servers have the same key of hers, the second answers as well.
    await assertMeet(one, one);
    await assertStrangers(one, other);
  },

  async "a client led to itself"() {
    // Its own key file, and the one of the server that it calls.
    const [served, called] = [`alice:${KEY}`, `alice:${"5e".repeat(32)}`];
    // With one key for both roles, it takes its own call for the server's answer.
    await assertMeet(served, served);
    await assertStrangers(called, served);
  },

  async "a reason that the box made up"() {
    const made = encodeBye(new ChannelError("revoked", "The box says so"));
    // Where a reason is not sealed, the box's is as good as the peer's.
    assertEquals(reasonOf(made), "revoked");

    // Here it needs a key.
    const { client, channel, insert } = await sessionThroughAttacker();
    const tag = new Uint8Array(TAG_LENGTH);
    insert(encodeFrames([new Uint8Array([...made, ...tag])]));
    const error = await assertFails(channel.closed, "protocol");
    assertEquals(error.isFromPeer, false);
    client.abort();
    await assertFails(client.closed, "aborted");
  },

  async "a reason read off the length"() {
    // Where a reason is a text, its length tells which.
    assert("revoked".length !== "limit".length);

    // Here all are as long.
    const seal = new MessageSeal(CipherState.initializeKey(psk.slice()));
    const reasons = ["service", "backend", "limit", "revoked", "stopping"];
    const byes = [...reasons, "aborted", "timeout"].map((code) =>
      encodeBye(new ChannelError(code as ChannelErrorCode, "Why"))
    );
    assertEquals(new Set(byes.map((bye) => bye.toHex())).size, 7);
    const frames = await Promise.all(byes.map((bye) => sealed(seal, bye)));
    assertEquals(new Set(frames.map(({ length }) => length)), new Set([18]));
  },

  async "what was given up passes for whole"() {
    // Where a farewell is an end, half of what was to be said is all.
    const [near, far] = duplex();
    const reading = new Response(far.readable).text();
    const giving = near.writable.getWriter();
    await giving.write(new TextEncoder().encode("pay 10"));
    await giving.close();
    assertEquals(await reading, "pay 10");

    // Here it comes, and then an error.
    const { client, channel } = await sessionThroughAttacker();
    await client.write(secret);
    client.abort();
    const p = new Uint8Array(100);
    assertEquals(await channel.read(p), secret.length);
    await assertFails(channel.read(p), "aborted");
  },

  async "a replay asks for services"() {
    const { frames, bytes } = await recordSession(secret, "alice@db");
    const [hello, message1] = frames;
    // A server that says at once what it lacks answers a replay with more bytes.
    const key = parsePsk(PSK).get("alice")!;
    const careless = async (services: string[]) => {
      const state = await HandshakeState.initialize({
        prologue: hello!,
        psk: key,
      });
      await state.readMessage1(message1!);
      const said = [await state.writeMessage2()];
      const [, down] = await state.split();
      const bye = encodeBye(new ChannelError("service", "There is none"));
      const has = services.includes("db");
      if (!has) said.push(await sealed(new MessageSeal(down), bye));
      return encodeFrames(said).length;
    };
    assert(await careless(["db"]) !== await careless(["web"]));

    // Ours says one Noise message, whatever the replay asks for.
    let said = 0;
    const [attacker, server] = duplex(whole, (chunk) => {
      said += chunk.length;
      return whole(chunk);
    });
    attacker.readable.pipeTo(new WritableStream()).catch(() => {});
    attacker.writable.getWriter().write(bytes).catch(() => {});
    await assertFails(acceptChannel(server, { psk: PSK }), "refused");
    assertEquals(said, HEADER_LENGTH + HANDSHAKE_MESSAGE_LENGTH);
  },

  async "a session for calls taken for an offer"() {
    // A server that goes by the identity alone begins what alice keeps for calls
    // of her own: so one caller's bytes go to another one's session.
    const [client, peer] = await standbyOfRawServer();
    await peer.say(open, data("a caller's secret"));
    // Here it is no stream of hers: nothing of it is read.
    await assertFails(client.closed, "protocol");
    await assertFails(client.read(new Uint8Array(100)), "protocol");

    // Where she has offered it, it is.
    const [offering, caller] = await standbyOfRawServer({ offer: true });
    await caller.say(open, data("a caller's secret"));
    assertEquals(await offering.read(new Uint8Array(100)), 17);
    offering.abort();
    await assertFails(offering.closed, "aborted");
  },
};

for (const [name, attack] of Object.entries(attacks)) {
  Deno.test(`attack: ${name}`, attack);
}

testUnless(
  lacksPermissions("read"),
  "PROTOCOL.md: the attacks it names are those that are tried",
  async () => {
    const path = new URL("../docs/PROTOCOL.md", import.meta.url);
    const page = (await Deno.readTextFile(path)).replaceAll(/\s+/g, " ");
    const named = [...page.matchAll(/`attack: ([^`]+)`/g)].map(([_, n]) => n!);
    assertEquals(named.toSorted(), Object.keys(attacks).toSorted());
  },
);

/** Keeps what is sealed. */
function recorded(seal: Seal, frames: Uint8Array<ArrayBuffer>[]): Seal {
  return {
    isSynchronous: seal.isSynchronous,
    open: (frame) => seal.open(frame),
    close: () => seal.close(),
    seal(bytes) {
      const sealing = seal.seal(bytes);
      Promise.resolve(sealing).then(() => frames.push(bytes.slice()));
      return sealing;
    },
  };
}

const SINK: Transport = {
  read: () => Promise.resolve(null),
  write: (p) => Promise.resolve(p.length),
  closeWrite: () => Promise.resolve(),
  close: () => {},
};

function fail(cause: unknown): never {
  throw cause;
}

/** A transport message's, by its number. */
function nonce(n: bigint): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(12);
  new DataView(bytes.buffer).setBigUint64(4, n);
  return bytes;
}

/** What a client sent in a session: hello, message 1, ping, open, data, end. */
async function recordSession(message = secret, identity = "default") {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  const record: Wire = (chunk) => {
    chunks.push(chunk);
    return whole(chunk);
  };
  const heard: Uint8Array<ArrayBuffer>[] = [];
  const [up, down] = duplex(record, (chunk) => {
    heard.push(chunk);
    return whole(chunk);
  });
  const [client, server] = await Promise.all([
    connectChannel(up, { psk: PSK, identity }),
    acceptChannel(down, { psk: PSK }),
  ]);
  const writer = client.writable.getWriter();
  await writer.write(message);
  await Promise.all([
    writer.close(),
    server.writable.close(),
    new Response(server.readable).text(),
    new Response(client.readable).text(),
  ]);
  await Promise.all([client.closed, server.closed]);
  const bytes = new Uint8Array(await new Blob(chunks).arrayBuffer());
  const stream = toTransport({
    readable: new Blob([bytes]).stream(),
    writable: new WritableStream(),
  });
  const reader = new FrameReader(stream);
  const frames: Uint8Array<ArrayBuffer>[] = [];
  for (let frame; (frame = await reader.next(0));) frames.push(frame.slice());
  assertEquals(frames.length, 6);
  assertEquals(frames[1]!.length, HANDSHAKE_MESSAGE_LENGTH);
  const message2 = heard[0]!.subarray(HEADER_LENGTH);
  return { frames, bytes, message2 };
}

/** A client that has begun no stream, and its server, spoken by hand. */
async function standbyOfRawServer(
  options: Partial<ClientOptions> = {},
): Promise<[Channel, RawPeer]> {
  const [near, far] = duplex();
  const peer = new RawPeer(far);
  const [client] = await Promise.all([
    connectChannel(near, {
      psk: PSK,
      standby: true,
      idleTimeout: 0,
      ...options,
    }),
    peer.respond(),
  ]);
  await peer.hearUntil(options.offer ? Type.offer : Type.ping);
  return [client, peer];
}

/** A client with these keys and a server with those take each other for theirs. */
async function assertMeet(ofClient: string, ofServer: string): Promise<void> {
  const [near, far] = duplex();
  const [client, server] = await Promise.all([
    connectChannel(near, { psk: ofClient, identity: "alice" }),
    acceptChannel(far, { psk: ofServer }),
  ]);
  assertEquals(client.handshakeHash, server.handshakeHash);
  await endAll(client, server);
}

/** They do not. */
async function assertStrangers(
  ofClient: string,
  ofServer: string,
): Promise<void> {
  const [near, far] = duplex();
  await Promise.all([
    assertFails(
      connectChannel(near, { psk: ofClient, identity: "alice" }),
      "refused",
    ),
    assertFails(acceptChannel(far, { psk: ofServer }), "refused"),
  ]);
}

/**
 * A session whose connection towards the server somebody else can end, or put
 * bytes into.
 */
async function sessionThroughAttacker() {
  const [clientEnd, serverEnd] = duplex();
  let end!: () => void;
  let insert!: (bytes: Uint8Array) => void;
  const gate = new TransformStream<Uint8Array, Uint8Array>({
    start: (controller) => {
      end = () => controller.terminate();
      insert = (bytes) => controller.enqueue(bytes);
    },
  });
  serverEnd.readable.pipeTo(gate.writable).catch(() => {});
  const gated = { ...serverEnd, readable: gate.readable };
  const [client, channel] = await Promise.all([
    connectChannel(clientEnd, { psk: PSK }),
    acceptChannel(gated, { psk: PSK }),
  ]);
  return { client, channel, end, insert };
}

async function assertFails(
  promise: Promise<unknown>,
  code: string,
): Promise<ChannelError> {
  const error = await assertRejects(() => promise, ChannelError);
  assertEquals(error.code, code);
  return error;
}

function xor(a: Uint8Array, b: Uint8Array, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => a[i]! ^ b[i]!);
}
