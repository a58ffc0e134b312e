import { assertEquals, assertRejects } from "@std/assert";
import { type Bytes, webCrypto } from "../lib/lock/aes_gcm.ts";
import {
  encodeFrames,
  FrameReader,
  MAX_FRAME_LENGTH,
} from "../lib/lock/frame.ts";
import { MessageSeal, type Seal, Type } from "../lib/lock/message.ts";
import { ChannelError } from "../lib/mod.ts";
import { CipherState } from "../lib/lock/noise.ts";
import { nextTurn } from "../lib/lock/runtime.ts";
import { type Hearer, Receiver } from "../lib/lock/receiver.ts";
import { pipe, PipeEnd, settled } from "./pipe.ts";
import { PLAIN } from "./raw_peer.ts";
import { ENGINES, sealed, withRoom } from "./engines.ts";

/** Notes what it hears, as a text. */
class Notes implements Hearer {
  readonly heard: string[] = [];
  control(type: Type): void | Promise<void> {
    this.heard.push(Object.keys(Type)[type]!);
  }
  data(): void {
    this.heard.push("data");
  }
  deaf(isDeaf: boolean): void {
    this.heard.push(isDeaf ? "deaf" : "hearing");
  }
}

/** A receiver, and the connection's other end. */
function receiver(seal: Seal, notes = new Notes()) {
  const [near, far] = pipe();
  const subject = new Receiver(new FrameReader(near), seal, notes);
  return { subject, near, far, notes };
}

const plain = (...plaintexts: number[][]) =>
  encodeFrames(
    plaintexts.map((text) => withRoom(new Uint8Array(text))),
  );

const { data, end, ping } = Type;

/** Frames of the greatest length, in one write. */
async function sayLong(far: PipeEnd, count: number): Promise<void> {
  const body = new Uint8Array(MAX_FRAME_LENGTH);
  for (let i = 0; i < count; i++) await far.write(encodeFrames([body]));
}

Deno.test("Receiver: a forged frame just before a rekey is the one error", async () => {
  const frames = encodeFrames([new Uint8Array(17), new Uint8Array(17)]);
  const key = new Uint8Array(32);
  const cipher = CipherState.initializeKey(key, webCrypto, 65_535n);
  const { subject, far } = receiver(new MessageSeal(cipher));
  await far.write(frames);
  await assertRejects(() => subject.run(), ChannelError, "forged");
});

Deno.test("Receiver: what nobody takes is held in a bounded number of frames", async () => {
  const { subject, near, far, notes } = receiver(PLAIN);
  await sayLong(far, 100);
  const running = subject.run();
  await settled();
  assertEquals(notes.heard, [...Array(8).fill("data"), "deaf"]);
  const reads = near.reads;
  await settled();
  assertEquals(near.reads, reads);
  // Each that is taken makes room for one.
  notes.heard.length = 0;
  assertEquals(await subject.read(new Uint8Array(65_535)), 65_518);
  await settled();
  assertEquals(notes.heard, ["hearing", "data", "deaf"]);
  subject.stop(new RangeError("enough"));
  subject.stop(new Error("too late"));
  near.close();
  await running;
  await assertRejects(() => subject.read(new Uint8Array(1)), RangeError);
  // Nor does it say that it hears again.
  assertEquals(notes.heard, ["hearing", "data", "deaf"]);
});

Deno.test("Receiver: while frames are being opened no more than those are read", async () => {
  let opening = 0;
  const seal: Seal = {
    ...PLAIN,
    open: () => {
      opening++;
      return new Promise(() => {});
    },
  };
  const { subject, near, far } = receiver(seal);
  await sayLong(far, 100);
  subject.run();
  await settled();
  assertEquals(opening, 8);
  subject.stop(new RangeError("enough"));
  near.close();
});

for (
  const [name, text, most] of [
    ["long frames", [data, ...new Uint8Array(60_000)], 2],
    ["pings", [ping], 65],
    ["data of one byte", [data, 0], 65],
  ] as const
) {
  Deno.test(`Receiver: ${name} without pause let others have their turn`, async () => {
    // Each read is over at once, as where TLS has more in its buffer.
    const frames = plain(...Array(16).fill(text));
    const source = {
      read(p: Uint8Array) {
        const count = Math.min(p.length, frames.length - offset);
        p.set(frames.subarray(offset, offset + count));
        offset = (offset + count) % frames.length;
        return Promise.resolve(count);
      },
    };
    let offset = 0;
    let opened = 0;
    const seal: Seal = {
      ...PLAIN,
      open: (frame) => {
        opened++;
        return PLAIN.open(frame);
      },
    };
    const subject = new Receiver(new FrameReader(source), seal, new Notes());
    const running = subject.run();
    const reading = (async () => {
      const p = new Uint8Array(65_536);
      while (true) await subject.read(p);
    })();
    for (let turn = 0; turn < 5; turn++) {
      const before = opened;
      await new Promise((resolve) => setImmediate(resolve));
      assertEquals(opened - before <= 2 * most, true, `${opened - before}`);
    }
    subject.stop(new RangeError("enough"));
    await assertRejects(() => reading, RangeError);
    await running;
  });
}

Deno.test("Receiver: what is opened out of order is delivered in order", async () => {
  const opened = [1, 2, 3].map(() => Promise.withResolvers<Bytes>());
  const frames = [...opened];
  // The fourth is there at once, as a short one is.
  const seal: Seal = {
    ...PLAIN,
    open: (frame) => frames.shift()?.promise ?? PLAIN.open(frame),
  };
  const { subject, far, notes } = receiver(seal);
  await far.write(plain([data, 1], [data, 2], [ping], [data, 4], [end]));
  await far.closeWrite();
  const running = subject.run();
  for (
    const [i, message] of [[2, [ping]], [1, [data, 2]], [0, [data, 1]]] as const
  ) {
    assertEquals(notes.heard, []);
    opened[i]!.resolve(new Uint8Array(message));
    await settled();
  }
  assertEquals(notes.heard, ["data", "data", "ping", "data", "end"]);
  const p = new Uint8Array(10);
  const read = [];
  for (let count; (count = await subject.read(p)) !== null;) {
    read.push(...p.subarray(0, count));
  }
  assertEquals(read, [1, 2, 4]);
  await running;
});

Deno.test("Receiver: what a message has to wait for holds back those behind it", async () => {
  let room = Promise.withResolvers<void>();
  const notes = new Notes();
  const control = notes.control.bind(notes);
  notes.control = (type) => {
    control(type);
    if (type === ping) return room.promise;
  };
  for (const isSlow of [false, true]) {
    const seal: Seal = isSlow
      ? { ...PLAIN, open: (frame) => Promise.resolve(PLAIN.open(frame)) }
      : PLAIN;
    const { subject, near, far } = receiver(seal, notes);
    notes.heard.length = 0;
    room = Promise.withResolvers();
    await far.write(plain([ping], [data, 1], [end]));
    const running = subject.run();
    running.catch(() => {});
    await settled();
    assertEquals(notes.heard, ["ping"]);
    room.resolve();
    await settled();
    assertEquals(notes.heard, ["ping", "data", "end"]);
    subject.stop(new Error());
    near.close();
  }
});

Deno.test("Receiver: stopped while frames are being opened, it delivers none of them", async () => {
  const opening = Promise.withResolvers<Bytes>();
  const { subject, near, far, notes } = receiver({
    ...PLAIN,
    open: () => opening.promise,
  });
  await far.write(plain([end]));
  const running = subject.run();
  await settled();
  const reading = subject.read(new Uint8Array(1));
  subject.stop(new RangeError("enough"));
  near.close();
  await assertRejects(() => reading, RangeError, "enough");
  opening.resolve(new Uint8Array([end]));
  await running;
  await assertRejects(() => subject.read(new Uint8Array(1)), RangeError);
  assertEquals(notes.heard, []);
});

Deno.test("Receiver: a cut is told when all before it has been taken", async () => {
  const { subject, far } = receiver(PLAIN);
  await far.write(plain([data, 1], [data, 2]));
  await far.closeWrite();
  let told = "";
  const running = subject.run().catch((error) => told = error.code);
  for (const byte of [1, 2]) {
    await settled();
    assertEquals(told, "");
    const p = new Uint8Array(5);
    assertEquals(await subject.read(p), 1);
    assertEquals(p[0], byte);
  }
  await running;
  assertEquals(told, "cut");
});

Deno.test("Receiver: messages without a body make room as well, while a key is being made", async () => {
  const key = new Uint8Array(32);
  const make = () =>
    new MessageSeal(
      CipherState.initializeKey(
        key.slice(),
        ENGINES["WebCrypto alone"],
        65_500n,
      ),
    );
  const sealing = make();
  const { subject, far, notes } = receiver(make());
  const messages = [...Array(100).fill([ping]), [end]];
  const frames = messages.map((text) => sealed(sealing, new Uint8Array(text)));
  await far.write(encodeFrames(await Promise.all(frames)));
  await far.closeWrite();
  await subject.run();
  const heard = notes.heard.filter((what) => what === "ping" || what === "end");
  assertEquals(heard, [...Array(100).fill("ping"), "end"]);
});

/** A seal each of whose frames the test opens. */
function byHand() {
  const opened: PromiseWithResolvers<Bytes>[] = [];
  const seal: Seal = {
    ...PLAIN,
    open: () => {
      opened.push(Promise.withResolvers());
      return opened.at(-1)!.promise;
    },
  };
  return { seal, opened };
}

const forged = () => new ChannelError("protocol", "forged");

Deno.test("Receiver: what is being opened behind the peer's last word is dropped", async () => {
  const { seal, opened } = byHand();
  const notes = new Notes();
  const { subject, far, near } = receiver(seal, notes);
  const last = new ChannelError("stopping", "It is stopping");
  const control = notes.control.bind(notes);
  notes.control = (type) => {
    control(type);
    if (type === Type.bye) subject.finish(last);
  };
  const bye = [Type.bye, 5];
  await far.write(plain([data, 1], bye, [data, 2], [data, 3]));
  const running = subject.run();
  running.catch(() => {});
  await settled();
  assertEquals(opened.length, 4);
  opened[3]!.reject(forged());
  for (const [i, text] of [[data, 1], bye, [data, 2]].entries()) {
    opened[i]!.resolve(new Uint8Array(text));
  }
  await settled();
  near.close();
  // What came before can still be read.
  assertEquals(await subject.read(new Uint8Array(9)), 1);
  const error = await assertRejects(() => running, ChannelError);
  assertEquals(error, last);
  assertEquals(notes.heard.filter((what) => what === "data"), ["data"]);
});

Deno.test("Receiver: a frame that does not open fails in its turn", async () => {
  const { seal, opened } = byHand();
  const { subject, near, far, notes } = receiver(seal);
  await far.write(plain([data, 1], [end], [data, 2], [ping]));
  let failed = false;
  const running = subject.run().finally(() => failed = true);
  running.catch(() => {});
  await settled();
  opened[2]!.reject(forged());
  opened[3]!.resolve(new Uint8Array([ping]));
  await settled();
  assertEquals(failed, false);
  opened[1]!.resolve(new Uint8Array([end]));
  opened[0]!.resolve(new Uint8Array([data, 1]));
  await assertRejects(() => running, ChannelError, "forged");
  assertEquals(notes.heard, ["data", "end"]);
  subject.stop(new Error());
  near.close();
});

Deno.test("Receiver: nothing behind a message out of order is delivered", async () => {
  const { seal, opened } = byHand();
  const notes = new Notes();
  notes.data = () => {
    throw new ChannelError("protocol", "out of order");
  };
  const { subject, near, far } = receiver(seal, notes);
  await far.write(plain([data, 1], [ping], [end]));
  const running = subject.run();
  running.catch(() => {});
  await settled();
  // They are opened in one turn.
  for (const [i, text] of [[data, 1], [ping], [end]].entries()) {
    opened[i]!.resolve(new Uint8Array(text));
  }
  await assertRejects(() => running, ChannelError, "out of order");
  await settled();
  assertEquals(notes.heard, []);
  subject.stop(new Error());
  near.close();
});

/** Says frames in reads of this many bytes, into the buffers that it is given. */
function talker(said: Bytes, size: number) {
  const buffers = new Set<ArrayBufferLike>();
  let offset = 0;
  const read = (p: Uint8Array): Promise<number | null> => {
    if (offset === said.length) return Promise.resolve(null);
    buffers.add(p.buffer);
    const part = said.subarray(offset, offset + Math.min(size, p.length));
    p.set(part);
    offset += part.length;
    return Promise.resolve(part.length);
  };
  return { buffers, read };
}

// The second is as long as the first frame: all that was read is held then.
for (const size of [1000, 1500 + 19, 4096, 65_536]) {
  Deno.test(`Receiver: what nobody has taken is not overwritten, in reads of ${size} bytes`, async () => {
    const lengths = [1500, 1500, 60_000, 60_000, 60_000, 9, 1500, 5];
    const said = lengths.map((length, i) => [
      data,
      ...new Uint8Array(length).fill(i),
    ]);
    const source = talker(plain(...said, [end]), size);
    const subject = new Receiver(new FrameReader(source), PLAIN, new Notes());
    const running = subject.run();
    await settled();
    const p = new Uint8Array(65_536);
    for (const [i, length] of lengths.entries()) {
      assertEquals(await subject.read(p), length);
      assertEquals(p.subarray(0, length), new Uint8Array(length).fill(i));
    }
    await running;
  });
}

for (
  const [name, text] of [["data", [data, 1, 2]], ["ping", [ping]]] as const
) {
  Deno.test(`Receiver: ${name} that was dealt with gives its room back`, async () => {
    const frame = plain([...text]);
    const said = plain(...Array(500).fill(text), [end]);
    const source = talker(said, frame.length);
    const { read } = source;
    // Whoever reads has its turn before there is more.
    source.read = async (p) => {
      await nextTurn();
      return await read(p);
    };
    const subject = new Receiver(new FrameReader(source), PLAIN, new Notes());
    const running = subject.run();
    while (await subject.read(new Uint8Array(9)) !== null);
    await running;
    assertEquals(source.buffers.size, 1);
  });
}
