import { assertEquals, assertRejects } from "@std/assert";
import { ChannelError } from "../lib/mod.ts";
import {
  encodeFrames,
  FrameReader,
  MAX_FRAME_LENGTH,
} from "../lib/lock/frame.ts";

/** Gives `bytes` in reads of at most `size`. */
function source(bytes: Uint8Array, size: number) {
  let offset = 0;
  return {
    read(p: Uint8Array): Promise<number | null> {
      if (offset === bytes.length) return Promise.resolve(null);
      const part = bytes.subarray(offset, offset + Math.min(size, p.length));
      p.set(part);
      offset += part.length;
      return Promise.resolve(part.length);
    },
  };
}

for (const size of [1, 2, 3, 1000, Infinity]) {
  Deno.test(`FrameReader: any length, in reads of ${size}`, async () => {
    const lengths = [0, 1, 2047, 2048, 2049, 5, MAX_FRAME_LENGTH, 3, 0];
    const frames = lengths.map((length, i) => new Uint8Array(length).fill(i));
    const reader = new FrameReader(source(encodeFrames(frames), size));
    for (const frame of frames) assertEquals(await reader.next(0), frame);
    assertEquals(await reader.next(0), null);
  });
}

Deno.test("FrameReader: a source that ends inside a frame gives null", async () => {
  const bytes = encodeFrames([new Uint8Array(10)]);
  for (let length = 0; length < bytes.length; length++) {
    const reader = new FrameReader(source(bytes.subarray(0, length), 100));
    assertEquals(await reader.next(0), null);
  }
});

Deno.test("FrameReader: limits, one below, at and one above", async () => {
  const next = (length: number) =>
    new FrameReader(source(encodeFrames([new Uint8Array(length)]), 100))
      .next(17, 48);
  for (const length of [17, 48]) {
    assertEquals((await next(length))!.length, length);
  }
  for (const length of [16, 49]) {
    await assertRejects(() => next(length), ChannelError, "malformed");
  }
});

Deno.test("FrameReader: a bad length is told before the frame has come", async () => {
  const silent = { read: () => new Promise<number>(() => {}) };
  const start = source(new Uint8Array([0xff, 0xff]), 2);
  let first = true;
  const reader = new FrameReader({
    read: (p) => {
      if (!first) return silent.read();
      first = false;
      return start.read(p);
    },
  });
  await assertRejects(() => reader.next(13, 76), ChannelError, "malformed");
});

Deno.test("FrameReader: the buffer of a burst is given back", async () => {
  const frames = [65_535, 20, 20, 20].map((length) => new Uint8Array(length));
  const offered: number[] = [];
  const queue = frames.map((frame) => encodeFrames([frame]));
  const reader = new FrameReader({
    read: (p) => {
      offered.push(p.length);
      const part = queue[0]!.subarray(0, p.length);
      p.set(part);
      queue[0] = queue[0]!.subarray(part.length);
      if (queue[0].length === 0) queue.shift();
      return Promise.resolve(part.length);
    },
  });
  for (const frame of frames) assertEquals(await reader.next(0), frame);
  const least = offered[0]!;
  assertEquals([Math.max(...offered) > 65_537, offered.at(-1)], [true, least]);
});
