import { assertEquals, assertRejects } from "@std/assert";
import { type Bytes, TAG_LENGTH } from "../lib/lock/aes_gcm.ts";
import { MessageSeal, type Seal, Type } from "../lib/lock/message.ts";
import { CipherState } from "../lib/lock/noise.ts";
import { MAX_BODY_LENGTH, PONG_DELAY, Sender } from "../lib/lock/sender.ts";
import type { Transport } from "../lib/lock/transport.ts";
import { FakeClock } from "./clock.ts";
import { settled } from "./pipe.ts";
import { PLAIN } from "./raw_peer.ts";
import { concat } from "./scripted.ts";

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

function gatedSender(): [GatedTransport, Sender] {
  const transport = new GatedTransport();
  const key: Bytes = crypto.getRandomValues(new Uint8Array(32));
  const cipher = CipherState.initializeKey(key);
  const fail = (error: unknown) => {
    throw error;
  };
  return [transport, new Sender(transport, new MessageSeal(cipher), fail)];
}

Deno.test("Sender: a message queued during the last write is sent", async () => {
  const [transport, sender] = gatedSender();
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
  const [transport, sender] = gatedSender();
  sender.send(new Uint8Array(64));
  const first = await transport.nextWrite();
  for (let i = 0; i < 1000; i++) sender.send(new Uint8Array(64));
  first.release();
  const second = await transport.nextWrite();
  second.release();
  await sender.flush();
  const overhead = 2 + 1 + 16;
  assertEquals([first.length, second.length], [
    64 + overhead,
    64_000 + overhead,
  ]);
});

Deno.test("Sender: after a failed write flush() fails, and pongs are dropped", async () => {
  const cipher = CipherState.initializeKey(new Uint8Array(32));
  const transport = {
    read: () => Promise.resolve(null),
    write: () => Promise.reject(new Error("broken")),
    closeWrite: () => Promise.resolve(),
    close: () => {},
  };
  const failed = Promise.withResolvers<unknown>();
  const sender = new Sender(transport, new MessageSeal(cipher), (cause) => {
    sender.stop(cause);
    failed.resolve(cause);
  });
  sender.send(new Uint8Array(1));
  assertEquals((await failed.promise as Error).message, "broken");
  for (let i = 0; i < 100; i++) sender.sendPong();
  await assertRejects(() => sender.flush(), Error, "broken");
});

Deno.test("Sender: pongs that cannot be written wait in a bounded number", async () => {
  const transport = new GatedTransport();
  const sender = new Sender(transport, PLAIN, () => {});
  let asked = 0;
  let room: Promise<void> | undefined;
  for (let isThere = true; isThere;) {
    assertEquals(asked++ < 1000, true, "pongs without end");
    room = sender.sendPong();
    if (!room) continue;
    isThere = false;
    room.then(() => isThere = true);
    await settled();
  }
  const { length, release } = await transport.nextWrite();
  release();
  await room;
  await sender.flush();
  // A pong is a message without a body; all that was asked for was sent.
  assertEquals(length, asked * (2 + 1 + 16));
});

Deno.test("Sender: a pong waits for company, and goes with it", async () => {
  const transport = new GatedTransport();
  const sender = new Sender(transport, PLAIN, () => {});
  sender.sendPong();
  await settled();
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
  const sender = new Sender(transport, PLAIN, fail);
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
  await settled();
  assertEquals(transport.writes, []);
});

Deno.test("Sender: stopped while idle, it does not begin again", async () => {
  const transport = new GatedTransport();
  const sender = new Sender(transport, PLAIN, () => {});
  sender.sendPong();
  sender.stop(new RangeError("enough"));
  sender.send(new Uint8Array(5));
  await assertRejects(() => sender.flush(), RangeError, "enough");
  await settled();
  assertEquals(transport.writes, []);
});

Deno.test("Sender: a stop gives up what waits in the queue", async () => {
  const transport = new GatedTransport();
  const sender = new Sender(transport, PLAIN, () => {});
  const queued = fill(sender);
  const first = await transport.nextWrite();
  sender.stop(new Error("enough"));
  let written = 1;
  transport.onWrite = () => {
    written++;
    transport.writes.shift()!.release();
  };
  first.release();
  await settled();
  // What was being sealed may go still.
  assertEquals(written < queued, true, `${written} of ${queued}`);
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
    PLAIN,
    (cause) => told.push(cause),
  );
  sender.sendControl(Type.ping);
  await writes.promise;
  sender.stop(new RangeError("enough"));
  broken.reject(new Error("broken"));
  await settled();
  assertEquals(told, []);
  await assertRejects(() => sender.flush(), RangeError, "enough");
});

/** What waits before `send` asks for patience, in pieces. */
function fill(sender: Sender): number {
  const piece = new Uint8Array(MAX_BODY_LENGTH);
  for (let count = 1;; count++) {
    const room = sender.send(piece);
    if (!room) continue;
    room.catch(() => {});
    return count;
  }
}

Deno.test("Sender: what may wait does not grow with what has gone", async () => {
  const counts = [];
  for (const before of [0, 40_000]) {
    const transport = new GatedTransport();
    const sender = new Sender(transport, PLAIN, () => {});
    let isHeld = false;
    transport.onWrite = () => {
      if (!isHeld) transport.writes.shift()!.release();
    };
    for (let i = 0; i < before; i++) sender.sendControl(Type.ping);
    await sender.flush();
    isHeld = true;
    counts.push(fill(sender));
    sender.stop(new Error("enough"));
  }
  assertEquals(counts[1], counts[0]);
  // About 512 KiB, and what is being sealed.
  assertEquals(counts[0]! * MAX_BODY_LENGTH < 1024 * 1024, true);
});

Deno.test("Sender: what grows in the queue keeps what it had", async () => {
  for (const lengths of [[1023, 1], [1023, 2], [600, 600, 70_000, 3]]) {
    const written: number[] = [];
    const first = Promise.withResolvers<void>();
    const transport: Transport = {
      read: () => Promise.resolve(null),
      write: async (p) => {
        for (const byte of p) written.push(byte);
        await first.promise;
        return p.length;
      },
      closeWrite: () => Promise.resolve(),
      close: () => {},
    };
    const sender = new Sender(transport, PLAIN, () => {});
    // While this one is on its way, the others share frames.
    sender.send(new Uint8Array([99]));
    lengths.forEach((length, i) => {
      sender.send(new Uint8Array(length).fill(i + 1));
    });
    first.resolve();
    await sender.flush();
    // Frames of length, type, body and tag.
    const bodies: number[] = [];
    for (let at = 0; at < written.length;) {
      const length = written[at]! << 8 | written[at + 1]!;
      assertEquals(written[at + 2], Type.data);
      for (const byte of written.slice(at + 3, at + 2 + length - 16)) {
        bodies.push(byte);
      }
      at += 2 + length;
    }
    const expected = lengths.flatMap((length, i) => Array(length).fill(i + 1));
    assertEquals(bodies, [99, ...expected]);
  }
});

/** Two ways in which a seal fails. */
for (
  const [name, fail] of [
    ["rejects", () => Promise.reject(new RangeError("used up"))],
    ["throws", () => {
      throw new RangeError("used up");
    }],
  ] as const
) {
  Deno.test(`Sender: a message whose seal ${name} is told once, in its turn`, async () => {
    const first = Promise.withResolvers<void>();
    const sealing = [() => first.promise, fail];
    const seal: Seal = { ...PLAIN, seal: () => sealing.shift()!() };
    const told: unknown[] = [];
    const transport = new GatedTransport();
    const sender = new Sender(transport, seal, (cause) => {
      told.push(cause);
      sender.stop(cause);
    });
    sender.sendControl(Type.ping);
    sender.sendControl(Type.end);
    // The second has failed while the first is still being sealed.
    await settled();
    assertEquals(told, []);
    first.resolve();
    await assertRejects(() => sender.flush(), RangeError, "used up");
    assertEquals(told.length, 1);
    assertEquals(transport.writes, []);
  });
}

Deno.test("Sender: each pong goes by itself, however many have gone before", async () => {
  const transport = new GatedTransport();
  const clock = new FakeClock();
  const sender = new Sender(transport, PLAIN, () => {}, clock);
  for (let i = 0; i < 3; i++) {
    sender.sendPong();
    sender.sendPong();
    clock.pass(PONG_DELAY - 1);
    await settled();
    assertEquals(transport.writes, []);
    clock.pass(1);
    const write = await transport.nextWrite();
    assertEquals(write.length, 2 * (2 + 1 + 16));
    write.release();
    await sender.flush();
  }
  assertEquals(clock.left, []);
});

Deno.test("Sender: data and pongs may wait for room at the same time", async () => {
  const transport = new GatedTransport();
  const sender = new Sender(transport, PLAIN, () => {});
  const data = sender.send(new Uint8Array(2_000_000));
  let pongs: Promise<void> | undefined;
  while (!pongs) pongs = sender.sendPong();
  transport.onWrite = () => transport.writes.shift()!.release();
  await Promise.all([data, pongs]);
  await sender.flush();
});

Deno.test("Sender: stopped, it seals nothing and waits for nothing", async () => {
  let sealed = 0;
  const seal: Seal = {
    ...PLAIN,
    seal: (plaintext) => {
      sealed++;
      return PLAIN.seal(plaintext);
    },
  };
  const transport = new GatedTransport();
  const clock = new FakeClock();
  const sender = new Sender(transport, seal, () => {}, clock);
  sender.send(new Uint8Array(5));
  const write = await transport.nextWrite();
  // This one waits for company.
  sender.send(new Uint8Array(5));
  sender.stop(new RangeError("enough"));
  assertEquals(sender.send(new Uint8Array(5_000_000)), undefined);
  for (let i = 0; i < 100; i++) {
    sender.sendControl(Type.ping);
    assertEquals(sender.sendPong(), undefined);
  }
  assertEquals(clock.left, []);
  write.release();
  await settled();
  assertEquals([sealed, transport.writes], [1, []]);
});

Deno.test("Sender: a write is as long as one that Deno.Conn takes whole", async () => {
  const transport = new GatedTransport();
  const lengths: number[] = [];
  transport.onWrite = () => {
    const { length, release } = transport.writes.shift()!;
    lengths.push(length);
    release();
  };
  const sender = new Sender(transport, PLAIN, () => {});
  for (let i = 0; i < 20; i++) {
    sender.sendControl(Type.ping);
    await sender.send(new Uint8Array(100_000));
  }
  await sender.flush();
  assertEquals(Math.max(...lengths), 65_536);
});

Deno.test("Sender: stopped while it seals, as a trace may do, a write fails", async () => {
  const reason = new RangeError("enough");
  let sealed = 0;
  const seal: Seal = {
    ...PLAIN,
    seal: (plaintext) => {
      sealed++;
      sender.stop(reason);
      return PLAIN.seal(plaintext);
    },
  };
  const sender = new Sender(new GatedTransport(), seal, () => {});
  const writing = sender.send(new Uint8Array(20 * MAX_BODY_LENGTH));
  await assertRejects(() => writing!, RangeError);
  assertEquals(sealed, 1);
});

Deno.test("Sender: what is being sealed stays where it is, whatever comes behind it", async () => {
  // As another thread does it: the bytes are overwritten later.
  const sealing: (() => void)[] = [];
  const seal: Seal = {
    ...PLAIN,
    isSynchronous: false,
    seal: (bytes) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      sealing.push(() => {
        bytes.fill(7, -TAG_LENGTH);
        resolve();
      });
      return promise;
    },
  };
  const written: Uint8Array[] = [];
  const transport = new GatedTransport();
  transport.write = (p) => {
    written.push(p.slice());
    return Promise.resolve(p.length);
  };
  const sender = new Sender(transport, seal, () => {});
  // A lone message takes a small buffer, in which these have no room.
  sender.sendControl(Type.ping);
  sender.send(new Uint8Array(1000));
  sender.send(new Uint8Array(5000));
  sender.sendControl(Type.end);
  await settled();
  assertEquals(written, []);
  for (const seal of sealing.toReversed()) seal();
  await sender.flush();
  const all = concat(written);
  const types: number[] = [];
  for (let at = 0; at < all.length;) {
    const length = all[at]! << 8 | all[at + 1]!;
    types.push(all[at + 2]!);
    at += 2 + length;
    assertEquals(
      all.subarray(at - TAG_LENGTH, at),
      new Uint8Array(TAG_LENGTH).fill(7),
    );
  }
  assertEquals([types[0], types.at(-1)], [Type.ping, Type.end]);
});

/** What a lone message leaves room for in its buffer: four more overheads. */
const LONE = 100;
const ROOM = LONE + 4 * 19;

for (const [delta, length] of [[-1, ROOM - 1], [0, ROOM], [1, ROOM + 1]]) {
  for (const more of [0, 1, 5000]) {
    Deno.test(`Sender: lone messages share a buffer (limit ${delta}, ${more} bytes behind)`, async () => {
      let written: Uint8Array[] = [];
      const transport = new GatedTransport();
      transport.write = (p) => {
        written.push(p);
        return Promise.resolve(p.length);
      };
      const sender = new Sender(transport, PLAIN, () => {});
      const buffers: ArrayBufferLike[] = [];
      for (const said of [LONE, length!]) {
        const data = crypto.getRandomValues(new Uint8Array(said + more));
        written = [];
        sender.send(data.subarray(0, said));
        sender.send(data.subarray(said));
        await sender.flush();
        assertEquals(dataOf(concat(written)), data);
        if (more === 0) assertEquals(written[0]!.length, said + 19);
        buffers.push(written[0]!.buffer);
      }
      const isShared = length! + more <= ROOM;
      assertEquals(buffers[0] === buffers[1], isShared);
    });
  }
}

/** The data of frames that {@linkcode PLAIN} has sealed. */
function dataOf(frames: Uint8Array): Uint8Array {
  const bodies: Uint8Array[] = [];
  for (let at = 0; at < frames.length;) {
    const end = at + 2 + (frames[at]! << 8 | frames[at + 1]!);
    bodies.push(frames.subarray(at + 3, end - TAG_LENGTH));
    at = end;
  }
  return concat(bodies);
}

Deno.test("Sender: a last message takes no pong along", async () => {
  const transport = new GatedTransport();
  const sender = new Sender(transport, PLAIN, () => {}, new FakeClock());
  sender.sendPong();
  const finished = sender.finish(new Uint8Array([Type.bye, 1]), undefined);
  const { length, release } = await transport.nextWrite();
  assertEquals(length, 2 + 2 + 16);
  release();
  await finished;
});
