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
