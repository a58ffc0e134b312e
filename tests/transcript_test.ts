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
import { Type } from "../lib/lock/message.ts";
import { parsePsk } from "../lib/mod.ts";
import { Receiver } from "../lib/lock/receiver.ts";
import { Sender } from "../lib/lock/sender.ts";
import { Tracer } from "../lib/lock/trace.ts";
import { toTransport } from "../lib/lock/transport.ts";
import { duplex, whole, type Wire } from "./duplex.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";
import transcript from "./testdata/transcript.json" with { type: "json" };
import { keyPair } from "./x25519.ts";

interface Entry {
  type: string;
  frame?: string;
  count?: number;
  sha256?: string;
}

Deno.test("innerlock/1: the golden transcript, byte for byte, both sides", async () => {
  const sent: Record<"up" | "down", Uint8Array<ArrayBuffer>[]> = {
    up: [],
    down: [],
  };
  const record = (direction: "up" | "down"): Wire => (chunk) => {
    sent[direction].push(chunk);
    return whole(chunk);
  };
  const [clientEnd, serverEnd] = duplex(record("up"), record("down"))
    .map(toTransport);
  const { identity } = transcript;
  const psks = parsePsk(`${identity}:${transcript.psk}`);
  const tracer = new Tracer();
  const accepting = respond(
    serverEnd!,
    psks,
    tracer,
    await keyPair(transcript.server_ephemeral),
  );
  const client = await initiate(
    clientEnd!,
    psks.get(identity)!,
    identity,
    tracer,
    await keyPair(transcript.client_ephemeral),
  );
  const fail = (cause: unknown) => {
    throw cause;
  };
  const up = new Sender(clientEnd!, client.sending, fail);
  up.sendControl(Type.ping);
  const server = await accepting;
  const down = new Sender(serverEnd!, server.sending, fail);
  down.sendControl(Type.pong);

  assertEquals(client.handshakeHash.toHex(), transcript.handshake_hash);
  assertEquals(server.handshakeHash.toHex(), transcript.handshake_hash);

  const hearing = Promise.all([hear(server), hear(client)]);
  up.sendControl(Type.open);
  await Promise.all([
    speak(up, Type.ping, 65_533, "hello", "after the rekey"),
    speak(down, Type.pong, 65_534, "HELLO", "AFTER THE REKEY"),
  ]);
  await Promise.all([clientEnd!.closeWrite(), serverEnd!.closeWrite()]);
  assertEquals(await hearing, [
    "hello|after the rekey|",
    "HELLO|AFTER THE REKEY|",
  ]);
  await assertBytes(sent.up, transcript.client_to_server);
  await assertBytes(sent.down, transcript.server_to_client);
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
    hearing: ignore,
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
    const entries = [transcript.client_to_server, transcript.server_to_client];
    for (const { frame } of entries.flat()) {
      assertStringIncludes(page, frame ?? "");
    }
    assertStringIncludes(page, transcript.handshake_hash);
  },
);
