import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Duplex } from "node:stream";
import {
  type StreamPair,
  toTransport,
  type Transport,
  writeAll,
} from "../lib/lock/transport.ts";

const nothing = () => new ReadableStream();
const nowhere = () => new WritableStream();

Deno.test("toTransport: a stream keeps its bytes, and the caller its buffer", async () => {
  const kept: Uint8Array[] = [];
  const writable = new WritableStream<Uint8Array>({
    write: (chunk) => void kept.push(chunk),
  });
  const transport = toTransport({ readable: nothing(), writable });
  const buffer = new Uint8Array([0, 0, 0]);
  for (let i = 1; i <= 3; i++) {
    await writeAll(transport, buffer.fill(i).subarray(1));
  }
  buffer.fill(9);
  assertEquals(kept.map((chunk) => [...chunk]), [[1, 1], [2, 2], [3, 3]]);
  // Nor does it get more than what was written.
  assertEquals(kept.map(({ buffer }) => buffer.byteLength), [2, 2, 2]);
});

Deno.test("toTransport: what a stream gives may be any BufferSource", async () => {
  const { buffer } = new Uint8Array([1, 2, 3, 4]);
  const readable = ReadableStream.from([
    buffer,
    new DataView(buffer, 1, 2),
    new Uint8Array(0),
    new Uint16Array(buffer),
  ]);
  const transport = toTransport({ readable, writable: nowhere() });
  const read: number[] = [];
  const p = new Uint8Array(3);
  for (let count; (count = await transport.read(p)) !== null;) {
    read.push(...p.subarray(0, count));
  }
  assertEquals(read, [1, 2, 3, 4, 2, 3, 1, 2, 3, 4]);
});

Deno.test("toTransport: a text that a stream gives is an error", async () => {
  const readable = ReadableStream.from(["text"]);
  const transport = toTransport({ readable, writable: nowhere() });
  await assertRejects(
    () => transport.read(new Uint8Array(3)),
    TypeError,
    "Cannot use string: only bytes make a stream",
  );
});

Deno.test("toTransport: a socket of Node's, and what is nothing, is refused", () => {
  const socket = new Duplex() as unknown as Transport;
  assertThrows(() => toTransport(socket), TypeError, "Duplex.toWeb()");
  const half = { readable: new ReadableStream() } as unknown as StreamPair;
  assertThrows(() => toTransport(half), TypeError, "read() and write()");
});
