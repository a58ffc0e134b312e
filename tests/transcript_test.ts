/**
 * The golden transcript, which an independent implementation made (peer.py):
 * both sides with its ephemeral keys put the same bytes on the wire.
 */

import { assertEquals, assertStringIncludes } from "@std/assert";
import {
  type HandshakeResult,
  initiate,
  respond,
} from "../lib/lock/handshake.ts";
import { encodeFrames } from "../lib/lock/frame.ts";
import { MessageSeal, Type } from "../lib/lock/message.ts";
import { HandshakeState } from "../lib/lock/noise.ts";
import { ChannelError } from "../lib/mod.ts";
import { takePsks } from "../lib/lock/psk.ts";
import { Receiver } from "../lib/lock/receiver.ts";
import { Sender } from "../lib/lock/sender.ts";
import { Session } from "../lib/lock/session.ts";
import { Tracer } from "../lib/lock/trace.ts";
import { toTransport, type Transport } from "../lib/lock/transport.ts";
import { assertFails } from "./channels.ts";
import { duplex, whole, type Wire } from "./duplex.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";
import transcript from "./testdata/transcript.json" with { type: "json" };
import { keyPair } from "./x25519.ts";
import { sealed } from "./engines.ts";

interface Entry {
  type: string;
  plaintext?: string;
  frame?: string;
  count?: number;
  sha256?: string;
}

interface Recording {
  identity: string;
  handshake_hash: string;
  client_to_server: Entry[];
  server_to_client: Entry[];
}

const { psk, client_ephemeral, server_ephemeral, call, bye, offer } =
  transcript;
const sessions: Record<string, Recording> = { call, bye, offer };

for (const [name, session] of Object.entries(sessions)) {
  Deno.test(`transcript: ${name}, its frames are its plaintexts sealed`, async () => {
    await assertSealed(session);
  });
}

/** Both handshakes, and the messages under the keys that they give. */
async function assertSealed(session: Recording): Promise<void> {
  const [[hello, message1, ...up], [message2, ...down]] = [
    session.client_to_server,
    session.server_to_client,
  ] as [[Entry, Entry, ...Entry[]], [Entry, ...Entry[]]];
  const prologue = Uint8Array.fromHex(hello.plaintext!);
  const text = new TextDecoder().decode(prologue);
  assertEquals(text, `innerlock/1 ${session.identity}`);
  assertEquals(hello.frame, encodeFrames([prologue]).toHex());
  const side = async (ephemeral: string) =>
    await HandshakeState.initialize({
      prologue,
      psk: Uint8Array.fromHex(psk),
      e: await keyPair(ephemeral),
    });
  const client = await side(client_ephemeral);
  const server = await side(server_ephemeral);
  const sent1 = await client.writeMessage1();
  await server.readMessage1(sent1);
  const sent2 = await server.writeMessage2();
  await client.readMessage2(sent2);
  assertEquals(message1.frame, encodeFrames([sent1]).toHex());
  assertEquals(message2.frame, encodeFrames([sent2]).toHex());
  assertEquals(client.handshakeHash.toHex(), session.handshake_hash);
  for (const [i, cipher] of (await client.split()).entries()) {
    const seal = new MessageSeal(cipher);
    for (const { plaintext, frame } of [up, down][i]!) {
      // What follows a rekey is tried below.
      if (plaintext === undefined) break;
      const text = Uint8Array.fromHex(plaintext);
      assertEquals(encodeFrames([await sealed(seal, text)]).toHex(), frame);
    }
  }
}

/** The handshake by both sides, up to the client's first ping, and what is sent. */
async function begin({ identity }: Recording) {
  const sent: Record<"up" | "down", Uint8Array<ArrayBuffer>[]> = {
    up: [],
    down: [],
  };
  const record = (direction: "up" | "down"): Wire => (chunk) => {
    sent[direction].push(chunk);
    return whole(chunk);
  };
  const [clientEnd, serverEnd] = duplex(record("up"), record("down"))
    .map(toTransport) as [Transport, Transport];
  const psks = takePsks(`${identity}:${psk}`);
  const tracer = new Tracer();
  /** Resolves once the client has pinged. */
  const accepting = respond(
    serverEnd,
    psks,
    tracer,
    { e: await keyPair(server_ephemeral) },
  );
  const client = await initiate(
    clientEnd,
    psks.get(identity)!,
    identity,
    tracer,
    { e: await keyPair(client_ephemeral) },
  );
  return { clientEnd, serverEnd, client, accepting, sent };
}

Deno.test("transcript: call, byte for byte, both sides", async () => {
  const { clientEnd, serverEnd, client, accepting, sent } = await begin(call);
  const fail = (cause: unknown) => {
    throw cause;
  };
  const up = new Sender(clientEnd, client.sending, fail);
  up.sendControl(Type.ping);
  const server = await accepting;
  const down = new Sender(serverEnd, server.sending, fail);
  down.sendControl(Type.pong);

  assertEquals(client.handshakeHash.toHex(), call.handshake_hash);
  assertEquals(server.handshakeHash.toHex(), call.handshake_hash);

  const hearing = Promise.all([hear(server), hear(client)]);
  up.sendControl(Type.open);
  await Promise.all([
    speak(up, Type.ping, 65_533, "hello", "after the rekey"),
    speak(down, Type.pong, 65_534, "HELLO", "AFTER THE REKEY"),
  ]);
  await Promise.all([clientEnd.closeWrite(), serverEnd.closeWrite()]);
  assertEquals(await hearing, [
    "hello|after the rekey|",
    "HELLO|AFTER THE REKEY|",
  ]);
  await assertBytes(sent.up, call.client_to_server);
  await assertBytes(sent.down, call.server_to_client);
});

Deno.test("transcript: bye, byte for byte, both sides", async () => {
  const { clientEnd, serverEnd, client, accepting, sent } = await begin(bye);
  const caller = new Session(clientEnd, client, "client", 0);
  const writing = caller.write(new TextEncoder().encode("hello"));
  const served = new Session(serverEnd, await accepting, "server", 0);
  const p = new Uint8Array(100);
  assertEquals(await served.read(p), "hello".length);
  // The pong has been said by then.
  await caller.confirmed;
  served.abort(new ChannelError("backend", "It broke"));
  await assertFails(caller.closed, "backend");
  await assertFails(served.closed, "backend");
  await writing;
  await assertBytes(sent.up, bye.client_to_server);
  await assertBytes(sent.down, bye.server_to_client);
});

Deno.test("transcript: offer, byte for byte, both sides", async () => {
  const { clientEnd, serverEnd, client, accepting, sent } = await begin(offer);
  const offering = new Session(clientEnd, client, "client", 0);
  offering.offer();
  const calling = new Session(serverEnd, await accepting, "server", 0);
  await calling.offered;
  const p = new Uint8Array(100);
  await calling.write(new TextEncoder().encode("hello"));
  assertEquals(await offering.read(p), "hello".length);
  await offering.write(new TextEncoder().encode("HELLO"));
  await offering.closeWrite();
  assertEquals(await calling.read(p), "HELLO".length);
  assertEquals(await calling.read(p), null);
  await calling.closeWrite();
  assertEquals(await offering.read(p), null);
  await Promise.all([offering.closed, calling.closed]);
  await assertBytes(sent.up, offer.client_to_server);
  await assertBytes(sent.down, offer.server_to_client);
});

/** What the transcript's direction says after its first messages. */
async function speak(
  sender: Sender,
  control: Type,
  count: number,
  text: string,
  afterRekey: string,
): Promise<void> {
  const encoder = new TextEncoder();
  sender.send(encoder.encode(text));
  for (let i = 0; i < count; i++) {
    sender.sendControl(control);
    if (i % 256 === 0) await sender.flush();
  }
  await sender.send(encoder.encode(afterRekey));
  sender.sendControl(Type.end);
  await sender.flush();
}

/** What a direction says in all. */
async function hear({ frames, receiving }: HandshakeResult): Promise<string> {
  const ignore = () => {};
  const receiver = new Receiver(frames, receiving, {
    control: ignore,
    data: ignore,
    deaf: ignore,
  });
  const running = receiver.run();
  let text = "";
  const p = new Uint8Array(1000);
  for (let count; (count = await receiver.read(p)) !== null;) {
    text += new TextDecoder().decode(p.subarray(0, count)) + "|";
  }
  await running;
  return text;
}

async function assertBytes(
  chunks: Uint8Array<ArrayBuffer>[],
  entries: Entry[],
): Promise<void> {
  const bytes = await new Blob(chunks).bytes();
  let offset = 0;
  const take = (length: number) =>
    bytes.subarray(offset, offset += length) as Uint8Array<ArrayBuffer>;
  for (const { type, frame, count, sha256 } of entries) {
    if (frame !== undefined) {
      assertEquals(take(frame.length / 2).toHex(), frame, type);
    } else {
      const CONTROL_FRAME_LENGTH = 2 + 1 + 16;
      const digest = await crypto.subtle.digest(
        "SHA-256",
        take(count! * CONTROL_FRAME_LENGTH),
      );
      assertEquals(new Uint8Array(digest).toHex(), sha256, type);
    }
  }
  assertEquals(offset, bytes.length);
}

testUnless(
  lacksPermissions("read"),
  "PROTOCOL.md: its bytes are the transcript's",
  async () => {
    const path = new URL("../docs/PROTOCOL.md", import.meta.url);
    const page = (await Deno.readTextFile(path)).replace(/\s/g, "");
    for (const session of Object.values(sessions)) {
      const entries = [session.client_to_server, session.server_to_client];
      for (const { frame } of entries.flat()) {
        assertStringIncludes(page, frame ?? "");
      }
      assertStringIncludes(page, session.handshake_hash);
    }
  },
);
