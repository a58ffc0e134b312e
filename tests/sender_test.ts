import { assertEquals, assertRejects } from "@std/assert";
import type { Bytes } from "../lib/aes_gcm.ts";
import { Type } from "../lib/message.ts";
import { CipherState } from "../lib/noise.ts";
import { Sender } from "../lib/sender.ts";
import { Tracer } from "../lib/trace.ts";
import type { Transport } from "../lib/transport.ts";

/** A transport whose every write waits until the test lets it through. */
class GatedTransport implements Transport {
  readonly writes: { length: number; release: () => void }[] = [];
  onWrite: () => void = () => {};

  async write(p: Uint8Array): Promise<number> {
    const gate = Promise.withResolvers<void>();
    this.writes.push({ length: p.length, release: gate.resolve });
    this.onWrite();
    await gate.promise;
    return p.length;
  }

  async nextWrite(): Promise<{ length: number; release: () => void }> {
    if (this.writes.length === 0) {
      await new Promise<void>((resolve) => this.onWrite = resolve);
    }
    return this.writes.shift()!;
  }

  read = () => Promise.resolve(null);
  closeWrite = () => Promise.resolve();
  close() {}
}

async function gatedSender(): Promise<[GatedTransport, Sender]> {
  const transport = new GatedTransport();
  const key: Bytes = crypto.getRandomValues(new Uint8Array(32));
  const cipher = await CipherState.initializeKey(key);
  const fail = (error: unknown) => {
    throw error;
  };
  return [transport, new Sender(transport, cipher, new Tracer(), fail)];
}

Deno.test("Sender: a message queued during the last write is sent", async () => {
  const [transport, sender] = await gatedSender();
  sender.send(new Uint8Array(5));
  const first = await transport.nextWrite();
  sender.sendControl(Type.end);
  first.release();
  const second = await transport.nextWrite();
  second.release();
  await sender.flush();
  assertEquals([first.length, second.length], [2 + 1 + 5 + 16, 2 + 1 + 16]);
});

Deno.test("Sender: what waits shares a frame, a lone write goes at once", async () => {
  const [transport, sender] = await gatedSender();
  sender.send(new Uint8Array(64));
  const first = await transport.nextWrite();
  for (let i = 0; i < 1000; i++) sender.send(new Uint8Array(64));
  first.release();
  const second = await transport.nextWrite();
  second.release();
  await sender.flush();
  assertEquals(first.length, 2 + 1 + 64 + 16);
  // The first of them did not wait for the others.
  assertEquals(second.length, 64_000 + 2 * (2 + 1 + 16));
});

Deno.test("Sender: after a failed write flush() fails, and pongs are dropped", async () => {
  const cipher = await CipherState.initializeKey(new Uint8Array(32));
  const transport = {
    read: () => Promise.resolve(null),
    write: () => Promise.reject(new Error("broken")),
    closeWrite: () => Promise.resolve(),
    close: () => {},
  };
  const failed = Promise.withResolvers<unknown>();
  const sender = new Sender(transport, cipher, new Tracer(), failed.resolve);
  sender.send(new Uint8Array(1));
  assertEquals((await failed.promise as Error).message, "broken");
  for (let i = 0; i < 100; i++) sender.sendPong();
  await assertRejects(() => sender.flush(), Error, "broken");
});

/** Seals at once, so that all is written after one turn. */
const instant = () => {
  let n = 0n;
  return {
    get n() {
      return n;
    },
    encryptWithAd(_: Bytes, plaintext: Bytes): Promise<Bytes> {
      n++;
      const sealed = new Uint8Array(plaintext.length + 16);
      sealed.set(plaintext);
      return Promise.resolve(sealed);
    },
  } as unknown as CipherState;
};

const turn = () => new Promise<void>((resolve) => setTimeout(resolve));

Deno.test("Sender: pongs that cannot be written wait in a bounded number", async () => {
  const transport = new GatedTransport();
  const sender = new Sender(transport, instant(), new Tracer(), () => {});
  let asked = 0;
  let room: Promise<void> | undefined;
  for (let isThere = true; isThere;) {
    assertEquals(asked++ < 1000, true, "pongs without end");
    room = sender.sendPong();
    if (!room) continue;
    isThere = false;
    room.then(() => isThere = true);
    await turn();
  }
  const first = await transport.nextWrite();
  first.release();
  await room;
  const second = await transport.nextWrite();
  second.release();
  await sender.flush();
  // A pong is a message without a body; all that was asked for was sent.
  assertEquals(first.length + second.length, asked * (2 + 1 + 16));
});

Deno.test("Sender: a pong waits for company, and goes with it", async () => {
  const transport = new GatedTransport();
  const sender = new Sender(transport, instant(), new Tracer(), () => {});
  sender.sendPong();
  await turn();
  assertEquals(transport.writes.length, 0);
  sender.send(new Uint8Array(5));
  const write = await transport.nextWrite();
  assertEquals(write.length, (2 + 1 + 16) + (2 + 1 + 5 + 16));
  write.release();
  await sender.flush();
});

Deno.test("Sender: stopped, it sends nothing more and says why", async () => {
  const transport = new GatedTransport();
  const fail = () => {
    throw new Error("told twice");
  };
  const sender = new Sender(transport, instant(), new Tracer(), fail);
  sender.send(new Uint8Array(5));
  const write = await transport.nextWrite();
  const flushing = assertRejects(() => sender.flush(), RangeError, "enough");
  sender.stop(new RangeError("enough"));
  sender.stop(new RangeError("too late"));
  await flushing;
  sender.sendControl(Type.end);
  assertEquals(sender.sendPong(), undefined);
  await assertRejects(() => sender.flush(), RangeError, "enough");
  write.release();
  await turn();
  assertEquals(transport.writes, []);
});

Deno.test("Sender: a write that fails after the stop is not told", async () => {
  const broken = Promise.withResolvers<number>();
  const writes = Promise.withResolvers<void>();
  const transport: Transport = {
    read: () => Promise.resolve(null),
    write: () => {
      writes.resolve();
      return broken.promise;
    },
    closeWrite: () => Promise.resolve(),
    close: () => {},
  };
  const told: unknown[] = [];
  const sender = new Sender(
    transport,
    instant(),
    new Tracer(),
    (cause) => told.push(cause),
  );
  sender.sendControl(Type.ping);
  await writes.promise;
  sender.stop(new RangeError("enough"));
  broken.reject(new Error("broken"));
  await turn();
  assertEquals(told, []);
  await assertRejects(() => sender.flush(), RangeError, "enough");
});
