import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { FrameReader } from "../lib/lock/frame.ts";
import { MessageSeal, type Seal, Type } from "../lib/lock/message.ts";
import { ChannelError } from "../lib/mod.ts";
import { CipherState } from "../lib/lock/noise.ts";
import { PONG_DELAY } from "../lib/lock/sender.ts";
import { type Role, Session } from "../lib/lock/session.ts";
import { assertFails } from "./channels.ts";
import { FakeClock } from "./clock.ts";
import { pipe, settled } from "./pipe.ts";
import {
  data,
  end,
  offer,
  open,
  ping,
  PLAIN,
  pong,
  RawPeer,
} from "./raw_peer.ts";
import { concat } from "./scripted.ts";

function aesSeal(key: Uint8Array<ArrayBuffer>): Seal {
  return new MessageSeal(CipherState.initializeKey(key.slice()));
}

/** A session whose time stands still, and its peer, spoken by hand. */
async function start(
  role: Role,
  idleTimeout?: number,
  seal: (key: Uint8Array<ArrayBuffer>) => Seal | Promise<Seal> = aesSeal,
  isProved = true,
) {
  const [transport, other] = pipe();
  const clock = new FakeClock();
  const [up, down] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
  const [mine, peers] = role === "client" ? [up, down] : [down, up];
  const handshake = {
    identity: "default",
    handshakeHash: new Uint8Array(32),
    sending: await seal(mine),
    receiving: await seal(peers),
    frames: new FrameReader(transport),
  };
  const peer = new RawPeer(other);
  peer.seals = { sending: await seal(peers), receiving: await seal(mine) };
  const session = new Session(transport, handshake, role, idleTimeout, clock);
  if (isProved) session.prove();
  return { session, peer, clock, transport, other };
}

/** The next message but for pongs, as a text. */
async function hear(peer: RawPeer): Promise<string> {
  while (true) {
    const message = await peer.hear();
    if (!message) return "closed";
    const [type, ...body] = message;
    if (type === Type.pong) continue;
    const name = Object.keys(Type)[type!];
    const text = new TextDecoder().decode(new Uint8Array(body));
    return text ? `${name} ${text}` : `${name}`;
  }
}

/** All that the peer says, as a text; what it fails with instead. */
async function readAll(session: Session): Promise<string> {
  let text = "";
  const p = new Uint8Array(100);
  for (let count; (count = await session.read(p)) !== null;) {
    text += new TextDecoder().decode(p.subarray(0, count));
  }
  return text;
}

const bytes = (text: string) => new TextEncoder().encode(text);

// What may be said when.

for (
  const [name, role, says] of [
    ["data before open", "server", [data("hi")]],
    ["an end before open", "server", [end]],
    ["a second open", "server", [open, open]],
    ["a second open after data", "server", [open, data("hi"), open]],
    ["an open after the end", "server", [open, end, open]],
    ["an open of the server", "client", [open]],
    ["an open of the server before ours", "standby", [open]],
    ["data of the server before ours", "standby", [data("hi")]],
    ["an end of the server before ours", "standby", [end]],
    ["data after the end", "server", [open, data("hi"), end, data("x")]],
    ["a second end", "server", [open, end, end]],
    ["an unknown type", "server", [open, new Uint8Array([7])]],
    ["an offer of the server", "standby", [offer]],
    ["an offer after the open", "server", [open, offer]],
    ["a second offer", "server", [offer, offer]],
    ["an open of the client after its offer", "server", [offer, open]],
    ["data of the client after its offer", "server", [offer, data("hi")]],
    ["an offer with a body", "server", [new Uint8Array([6, 0])]],
    ["a bye without a code", "server", [open, new Uint8Array([5])]],
    ["a bye of two codes", "server", [open, new Uint8Array([5, 1, 1])]],
    ["no type", "server", [open, new Uint8Array([255])]],
    ["empty data", "server", [open, new Uint8Array([0])]],
    ["an end with a body", "server", [open, new Uint8Array([1, 0])]],
    ["a ping with a body", "server", [open, new Uint8Array([2, 0])]],
    ["a pong with a body", "server", [open, new Uint8Array([3, 0])]],
    ["an open with a body", "server", [new Uint8Array([4, 0])]],
  ] as const
) {
  Deno.test(`Session: ${name} is an error`, async () => {
    const { session, peer, transport } = await start(
      role === "standby" ? "client" : role,
    );
    if (role === "client") session.begin();
    await peer.say(...says);
    await assertFails(session.closed, "protocol");
    await assertFails(session.read(new Uint8Array(1)), "protocol");
    await assertFails(session.write(new Uint8Array(1)), "protocol");
    // The peer is told nothing.
    assertEquals(transport.isClosed, true);
    assertEquals(
      role === "server" ? "closed" : "ping",
      await hear(peer),
    );
  });
}

Deno.test("Session: an offered one begins with the server's open, and both are alike then", async () => {
  const client = await start("client");
  client.session.offer();
  client.session.begin();
  assertEquals([await client.peer.hear(), await client.peer.hear()], [
    ping,
    offer,
  ]);
  await client.peer.say(open, data("hi"), end);
  await client.session.opened;
  assertEquals(await readAll(client.session), "hi");
  await client.session.write(bytes("yes"));
  await client.session.closeWrite();
  assertEquals([await client.peer.hear(), await client.peer.hear()], [
    data("yes"),
    end,
  ]);
  await client.peer.close();
  await client.session.closed;

  const { session, peer } = await start("server");
  await peer.say(offer);
  await session.offered;
  await session.write(bytes("hi"));
  await peer.hearUntil(Type.open);
  assertEquals(await peer.hear(), data("hi"));
  await peer.say(data("yes"), end);
  assertEquals(await readAll(session), "yes");
  await session.closeWrite();
  await peer.close();
  await session.closed;
});

Deno.test("Session: nobody opens an offered one for the other side", async () => {
  const { session, peer } = await start("client");
  session.offer();
  await peer.hearUntil(Type.offer);
  const writing = session.write(bytes("too early"));
  await settled();
  await peer.say(pong);
  await session.confirmed;
  session.abort(new RangeError("enough"));
  await assertRejects(() => writing, RangeError, "enough");
  await assertRejects(
    () => session.offered.then(() => session.opened),
    RangeError,
  );
  assertEquals(await hear(peer), "bye \u0006");
});

Deno.test("Session: what may be said in any order is no error", async () => {
  const { session, peer } = await start("server");
  await peer.say(pong, ping, open, pong, data("a"), ping, data("b"), pong);
  await peer.say(end, pong, ping, pong);
  assertEquals(await readAll(session), "ab");
  await session.closeWrite();
  await peer.hearUntil(Type.end);
  await peer.close();
  await session.closed;
});

Deno.test("Session: a peer is not given up while nobody takes what it sent", async () => {
  // As a long frame, which another thread opens.
  const later: Seal = {
    ...PLAIN,
    open: async (frame) => await PLAIN.open(frame),
  };
  const { session, peer, clock } = await start("server", 1000, () => later);
  await peer.say(open, ...Array(20).fill(data("hi")));
  await settled();
  clock.pass(10_000);
  assertEquals(await session.read(new Uint8Array(9)), 2);
  session.abort(new Error());
});

Deno.test("Session: the client's stream begins when it says so", async () => {
  const { session, peer } = await start("client");
  assertEquals(await hear(peer), "ping");
  session.begin();
  session.begin();
  await session.opened;
  await session.write(bytes("hi"));
  assertEquals([await hear(peer), await hear(peer)], ["open", "data hi"]);
  session.abort(new Error());
});

Deno.test("Session: to write, or to end, begins the client's stream", async () => {
  for (const empty of [false, true]) {
    const { session, peer } = await start("client");
    if (!empty) await session.write(bytes("hi"));
    await session.closeWrite();
    const heard = [];
    while (heard.at(-1) !== "end") heard.push(await hear(peer));
    const expected = ["ping", "open", ...(empty ? [] : ["data hi"]), "end"];
    assertEquals(heard, expected);
    session.abort(new Error());
  }
});

Deno.test("Session: the server's words wait for the client's open, in order", async () => {
  const { session, peer, transport, clock } = await start("server");
  const written: string[] = [];
  const writing = ["a", "b"].map(async (text) => {
    await session.write(bytes(text));
    written.push(text);
  });
  const ending = session.closeWrite().then(() => written.push("end"));
  session.begin();
  clock.pass(PONG_DELAY);
  await settled();
  // The pong of the first ping, and no more.
  assertEquals([transport.writes, written], [[2 + 1 + 16], []]);
  await peer.say(open);
  await session.opened;
  await Promise.all([...writing, ending]);
  assertEquals(written, ["a", "b", "end"]);
  let heard = "";
  for (let said; (said = await hear(peer)) !== "end";) heard += said;
  assertEquals(heard.replaceAll("data ", ""), "ab");
  session.abort(new Error());
});

Deno.test("Session: a stream that never began fails all that waits for it", async () => {
  const { session, peer } = await start("server");
  const waiting = [
    session.opened,
    session.read(new Uint8Array(1)),
    session.write(bytes("a")),
    session.closeWrite(),
    session.closed,
  ];
  const reason = new RangeError("enough");
  session.abort(reason);
  await peer.close();
  const failed = { status: "rejected", reason } as const;
  assertEquals(await Promise.allSettled(waiting), waiting.map(() => failed));
});

// Frames.

for (const [delta, length] of [[-17, 0], [-1, 16], [0, 17], [1, 18]] as const) {
  Deno.test(`Session: a frame's length of ${length} (limit ${delta})`, async () => {
    const { session, peer } = await start("server");
    // The length alone, then the end of the connection.
    await peer.write(new Uint8Array([0, length]));
    await peer.close();
    await assertFails(session.closed, delta < 0 ? "protocol" : "cut");
  });
}

Deno.test("Session: each flipped bit of a frame is detected", async () => {
  for (let bit = 0; bit < 8 * (2 + 1 + 16 + 2 + 1 + 2 + 16); bit++) {
    const { session, peer } = await start("server");
    const frames = await peer.sealed(open, data("hi"));
    frames[bit >> 3]! ^= 1 << (bit & 7);
    await peer.write(frames);
    await peer.close();
    const error = await assertRejects(() => readAll(session), ChannelError);
    assertEquals(["protocol", "cut"].includes(error.code), true);
  }
});

for (const says of [[], [open], [open, data("hi")], [open, data("hi"), ping]]) {
  Deno.test(`Session: a close without end after ${says.length} messages is a cut`, async () => {
    const { session, peer } = await start("server");
    await peer.say(...says);
    await peer.close();
    await settled();
    // What was authentic is delivered, then comes the error.
    if (says.length > 1) {
      const p = new Uint8Array(10);
      assertEquals(await session.read(p), 2);
      assertEquals(p.subarray(0, 2), bytes("hi"));
    }
    await assertFails(session.read(new Uint8Array(1)), "cut");
    await assertFails(session.closed, "cut");
    await assertFails(session.write(new Uint8Array(1)), "cut");
  });
}

Deno.test("Session: a connection that breaks is a cut, and the cause is told", async () => {
  const { session, peer, transport } = await start("server");
  await peer.say(open);
  await session.opened;
  transport.read = () =>
    Promise.reject(new Deno.errors.ConnectionReset("gone"));
  await peer.say(data("hi"));
  await readAll(session).catch(() => {});
  const error = await assertRejects(() => session.closed, ChannelError);
  assertEquals(error.code, "cut");
  assertEquals((error.cause as Error).message, "gone");
});

Deno.test("Session: what carries it says itself why it fails, once all before is read", async () => {
  for (const code of ["protocol", "cut"] as const) {
    const { session, peer, transport } = await start("server");
    const fault = new ChannelError(code, "It broke its own rules");
    // The first read is under way.
    transport.read = () => Promise.reject(fault);
    await peer.say(open, data("hi"));
    await session.opened;
    if (code === "cut") assertEquals(await session.read(new Uint8Array(9)), 2);
    const error = await assertRejects(() => session.closed, ChannelError);
    assertEquals(error, fault);
  }
});

// Writing.

Deno.test("Session: a write that fails is a cut for all that waits", async () => {
  const { session, peer, clock, transport } = await start(
    "server",
    0,
    () => PLAIN,
  );
  await peer.say(open);
  await session.opened;
  transport.hold();
  const waiting = [
    session.write(new Uint8Array(2_000_000)),
    session.write(bytes("a")),
    session.closeWrite(),
    session.closed,
  ];
  const reading = session.read(new Uint8Array(1));
  peer.cut();
  transport.incoming.isEnded = false;
  transport.release();
  await settled();
  clock.pass(1000);
  const results: unknown[] = await Promise.allSettled([...waiting, reading]);
  const reason = await assertRejects(() => session.closed, ChannelError);
  assertEquals(reason.code, "cut");
  assertEquals(reason.cause instanceof Deno.errors.BrokenPipe, true);
  const failed = { status: "rejected", reason } as const;
  assertEquals(results, results.map(() => failed));
});

Deno.test("Session: writes that are not awaited keep their order", async () => {
  const { session, peer, transport } = await start("server", 0, () => PLAIN);
  await peer.say(open);
  await session.opened;
  transport.hold();
  // Some fill what may wait, some do not.
  const lengths = [1, 700_000, 5, 65_517, 300_000, 1, 2];
  const done: number[] = [];
  const writing = lengths.map(async (length, i) => {
    assertEquals(await session.write(new Uint8Array(length).fill(i)), length);
    done.push(i);
  });
  const ending = session.closeWrite();
  transport.release();
  await Promise.all([...writing, ending]);
  assertEquals(done, lengths.map((_, i) => i));
  const heard: Uint8Array[] = [];
  for (let message; (message = await peer.hear()) && message[0] !== Type.end;) {
    if (message[0] === Type.data) heard.push(message.subarray(1));
  }
  const all = new Uint8Array(await new Blob(heard as BlobPart[]).arrayBuffer());
  const expected = lengths.flatMap((length, i) => Array(length).fill(i));
  assertEquals(all.length, expected.length);
  assertEquals(all.every((byte, i) => byte === expected[i]), true);
  session.abort(new Error());
});

for (const role of ["client", "server"] as const) {
  Deno.test(`Session: the ${role}'s write goes behind all that were asked for before`, async () => {
    const { session, peer, transport } = await start(
      role,
      undefined,
      () => PLAIN,
    );
    // More than may wait: each of the two takes several turns.
    const lengths = [1_000_000, 1_000_000, 1, 1];
    const write = async (i: number) => {
      await session.write(new Uint8Array(lengths[i]!).fill(i));
    };
    const writing = [0, 1].map(write);
    if (role === "server") await peer.say(open);
    const heard = (async () => {
      const all: number[] = [];
      for (let message; (message = await peer.hear());) {
        if (message[0] !== Type.data) continue;
        for (const byte of message.subarray(1)) all.push(byte);
      }
      return all;
    })();
    await session.opened;
    // One when the stream has begun, one when the first write is done.
    writing.push(write(2));
    await writing[0];
    writing.push(write(3));
    await Promise.all(writing);
    await session.closeWrite();
    await peer.say(end);
    await peer.close();
    const all = await heard;
    const expected = lengths.flatMap((length, i) => Array(length).fill(i));
    assertEquals(all.length, expected.length);
    assertEquals(all.every((byte, i) => byte === expected[i]), true);
    await session.closed;
    assertEquals(transport.isClosed, true);
  });
}

Deno.test("Session: an end that cannot be written is a cut, though the peer has ended", async () => {
  const { session, peer, clock, transport } = await start("server");
  await peer.say(open, end);
  await session.opened;
  assertEquals(await readAll(session), "");
  transport.write = () => Promise.reject(new Deno.errors.BrokenPipe());
  const ending = session.closeWrite();
  await settled();
  clock.pass(1000);
  await assertFails(ending, "cut");
  await assertFails(session.closed, "cut");
});

Deno.test("Session: one that has failed does not open any more", async () => {
  const { session, peer } = await start("client");
  session.abort(new RangeError("enough"));
  assertThrows(() => session.begin(), RangeError, "enough");
  assertEquals(await hear(peer), "ping");
  assertEquals(await peer.hear(), new Uint8Array([Type.bye, 6]));
  assertEquals(await hear(peer), "closed");
});

Deno.test("Session: it is confirmed by the peer's first message, not before", async () => {
  const { session, peer } = await start("client");
  let isConfirmed = false;
  session.confirmed.then(() => isConfirmed = true, () => {});
  await settled();
  assertEquals(isConfirmed, false);
  await peer.say(pong);
  await session.confirmed;
  session.abort(new RangeError("enough"));
  await peer.close();
  await assertRejects(() => session.closed, RangeError);
});

Deno.test("Session: one that ends before it is confirmed says why", async () => {
  const { session, peer } = await start("client");
  await peer.close();
  await assertFails(session.confirmed, "cut");
});

Deno.test("Session: after closeWrite() there is nothing to write", async () => {
  const { session, peer } = await start("server");
  await peer.say(open);
  await session.opened;
  const ending = session.closeWrite();
  const message = "Cannot write: this direction has ended";
  for (let i = 0; i < 2; i++) {
    await assertRejects(() => session.write(bytes("a")), TypeError, message);
    await assertRejects(() => session.closeWrite(), TypeError, message);
    await ending;
  }
  // It has not failed.
  await peer.say(data("hi"), end);
  assertEquals(await readAll(session), "hi");
  await peer.close();
  await session.closed;
  await assertRejects(() => session.write(bytes("a")), TypeError, message);
});

Deno.test("Session: a write of nothing says nothing", async () => {
  const { session, peer } = await start("client");
  await session.write(new Uint8Array(0));
  await session.closeWrite();
  const heard = [await hear(peer), await hear(peer), await hear(peer)];
  assertEquals(heard, ["ping", "open", "end"]);
  session.abort(new Error());
});

// Reading.

Deno.test("Session: one read at a time", async () => {
  const { session, peer } = await start("server");
  const reading = session.read(new Uint8Array(1));
  const second = session.read(new Uint8Array(1));
  await assertRejects(() => second, TypeError, "another read is under way");
  await peer.say(open, data("a"));
  assertEquals(await reading, 1);
  session.abort(new Error());
});

Deno.test("Session: a read takes what fits, and the rest is the next one's", async () => {
  const { session, peer } = await start("server");
  await peer.say(open, data("abcde"), end);
  const p = new Uint8Array(2);
  const texts: string[] = [];
  for (let count; (count = await session.read(p)) !== null;) {
    texts.push(new TextDecoder().decode(p.subarray(0, count)));
  }
  assertEquals(texts, ["ab", "cd", "e"]);
  // The end stays the end.
  assertEquals(await session.read(p), null);
  assertEquals(session.bytesReceived, 5);
  session.abort(new Error());
});

Deno.test("Session: a read that waits is told of a stop, one that comes later too", async () => {
  const { session, peer } = await start("server");
  const reading = session.read(new Uint8Array(1));
  session.close();
  await peer.close();
  await assertFails(reading, "aborted");
  await assertFails(session.read(new Uint8Array(1)), "aborted");
  await assertFails(session.closed, "aborted");
});

// Pings.

Deno.test("Session: each ping is answered by a pong", async () => {
  const { session, peer, clock } = await start("server");
  await peer.say(ping, ping, open, ping);
  await settled();
  clock.pass(PONG_DELAY);
  // The server answers the handshake's ping as well.
  for (let i = 0; i < 4; i++) assertEquals(await peer.hear(), pong);
  session.abort(new Error());
});

Deno.test("Session: it reads on while it cannot write, though pings came", async () => {
  const { session, peer, transport, clock } = await start(
    "server",
    0,
    () => PLAIN,
  );
  await peer.say(open);
  transport.hold();
  const writing = session.write(new Uint8Array(8_000_000));
  await peer.say(...Array(50).fill(ping), data("hi"));
  await settled();
  clock.pass(PONG_DELAY);
  const p = new Uint8Array(2);
  assertEquals(await session.read(p), 2);
  session.abort(new RangeError("enough"));
  transport.release();
  await assertRejects(() => writing, RangeError, "enough");
});

Deno.test("Session: pings without end, and nobody who reads: it stops to read", async () => {
  const { session, peer, transport, other, clock } = await start(
    "server",
    0,
    () => PLAIN,
  );
  await peer.say(open);
  await session.opened;
  transport.hold();
  let rounds = 0;
  // Each is a chance to be taken in.
  for (; rounds < 1000; rounds++) {
    const before = transport.reads;
    await peer.say(ping, ping);
    await settled();
    clock.pass(PONG_DELAY);
    await settled();
    if (transport.reads === before) break;
  }
  assertEquals(rounds < 40, true, `${rounds} rounds`);
  session.abort(new Error());
  assertEquals(other.isClosed, false);
});

Deno.test("Session: pings between small writes let no more of them wait", async () => {
  const { session, peer, transport, clock } = await start(
    "server",
    0,
    () => PLAIN,
  );
  await peer.say(open);
  await session.opened;
  transport.hold();
  let taken = 0;
  let writing: Promise<void> | undefined;
  for (let i = 0; i < 60; i++) {
    writing ??= session.write(new Uint8Array(50_000)).then((count) => {
      taken += count;
      writing = undefined;
    });
    await peer.say(ping);
    await settled();
    clock.pass(PONG_DELAY);
    await settled();
  }
  assertEquals(taken < 1_000_000, true, `${taken} bytes wait`);
  session.abort(new RangeError("enough"));
  await assertRejects(() => writing!, RangeError, "enough");
});

// Silence.

Deno.test("Session: it pings after 25 s of silence, unless told", async () => {
  for (const [idleTimeout, time] of [[undefined, 25_000], [1200, 1200]]) {
    const { session, peer, clock } = await start("server", idleTimeout);
    clock.pass(PONG_DELAY);
    assertEquals(await peer.hear(), pong);
    clock.pass(time! - PONG_DELAY - 1);
    await settled();
    assertEquals(clock.left, [1]);
    clock.pass(1);
    assertEquals(await peer.hear(), ping);
    clock.pass(time!);
    await peer.close();
    const error = await assertRejects(() => session.closed, ChannelError);
    assertEquals([error.code, error.message], [
      "timeout",
      `The peer has been silent for ${2 * time! / 1000} s and answered no ping`,
    ]);
  }
});

Deno.test("Session: a peer that answers its pings is kept, in standby too", async () => {
  for (const role of ["client", "server"] as const) {
    const { session, peer, clock } = await start(role, 1000);
    if (role === "client") await peer.hearUntil(Type.ping);
    for (let i = 0; i < 10; i++) {
      clock.pass(1000);
      await peer.hearUntil(Type.ping);
      await peer.say(pong);
      await settled();
    }
    session.abort(new RangeError("enough"));
    await peer.close();
    await assertRejects(() => session.closed, RangeError, "enough");
  }
});

Deno.test("Session: a pong goes at once where nothing came behind its ping", async () => {
  const { session, peer } = await start("server");
  // The first answers the client's first ping, which opened the handshake.
  assertEquals(await peer.hear(), pong);
  await peer.say(ping, open);
  assertEquals(await peer.hear(), pong);
  session.abort(new RangeError("enough"));
  await peer.close();
  await assertRejects(() => session.closed, RangeError);
});

Deno.test("Session: a pong waits for the answer to what came behind its ping", async () => {
  const { session, peer, transport } = await start("server");
  await peer.hearUntil(Type.pong);
  await peer.say(open);
  await session.opened;
  const { length } = transport.writes;
  await peer.say(ping, data("hi"));
  await settled();
  assertEquals(transport.writes.length, length);
  await session.write(bytes("yes"));
  assertEquals([await peer.hear(), await peer.hear()], [pong, data("yes")]);
  assertEquals(transport.writes.length, length + 1);
  session.abort(new RangeError("enough"));
  await peer.close();
  await assertRejects(() => session.closed, RangeError);
});

Deno.test("Session: data is a sign of life, and no ping is needed", async () => {
  const { session, peer, clock, transport } = await start("server", 1000);
  await peer.say(open);
  clock.pass(PONG_DELAY);
  await peer.hearUntil(Type.pong);
  for (let i = 0; i < 10; i++) {
    await peer.say(data("a"));
    assertEquals(await session.read(new Uint8Array(1)), 1);
    await session.write(bytes("a"));
    await settled();
    clock.pass(999);
  }
  // The pong of the first ping, and the data.
  assertEquals(transport.writes.length, 11);
  session.abort(new Error());
});

Deno.test("Session: bytes that make no frame are no sign of life", async () => {
  const { session, peer, clock } = await start("server", 1000);
  await peer.write(new Uint8Array([255, 255]));
  for (let i = 0; i < 20; i++) {
    await peer.write(new Uint8Array(1));
    await settled();
    clock.pass(100);
  }
  await peer.close();
  await assertFails(session.closed, "timeout");
});

Deno.test("Session: a peer that cannot be heard, as nobody reads, is kept", async () => {
  const { session, peer, clock } = await start("server", 1000);
  await peer.say(open, ...Array(10).fill(data("a")));
  await settled();
  for (let i = 0; i < 10; i++) {
    clock.pass(1000);
    // It hears that this side is there.
    await peer.hearUntil(Type.ping);
  }
  // Once all is read it is given up as ever.
  const p = new Uint8Array(1);
  for (let i = 0; i < 10; i++) await session.read(p);
  await settled();
  clock.pass(2000);
  await peer.close();
  await assertFails(session.closed, "timeout");
});

Deno.test("Session: no ping joins one that the peer does not take", async () => {
  const { session, peer, clock, transport } = await start("server", 1000);
  // What nobody reads makes it deaf: it pings in each interval.
  await peer.say(open, ...Array(10).fill(data("a")));
  await settled();
  clock.pass(PONG_DELAY);
  await peer.hearUntil(Type.pong);
  transport.hold();
  clock.pass(5000);
  transport.release();
  await settled();
  await peer.hearUntil(Type.ping);
  // That one is gone, so the next may go.
  clock.pass(1000);
  await peer.hearUntil(Type.ping);
  await settled();
  // The pong of the first ping, and each ping by itself.
  assertEquals(transport.writes, Array(3).fill(2 + 1 + 16));
  session.abort(new Error());
});

Deno.test("Session: a peer is pinged in each interval though data is always on its way", async () => {
  const { session, peer, clock, transport } = await start(
    "server",
    1000,
    () => PLAIN,
  );
  await peer.say(open);
  await session.opened;
  const write = transport.write.bind(transport);
  let written: Promise<void> | undefined;
  transport.write = async (p) => {
    // There is more before this is gone.
    session.write(new Uint8Array(60_000)).catch(() => {});
    await (written = settled());
    return await write(p);
  };
  let pings = 0;
  const answering = (async () => {
    for (let message; (message = await peer.hear());) {
      if (message[0] !== Type.ping) continue;
      pings++;
      await peer.say(pong);
    }
  })();
  await session.write(bytes("hi"));
  for (let i = 1; i <= 5; i++) {
    clock.pass(1000);
    // Each write takes a turn, and no more than these are ahead of a ping.
    for (let turn = 0; turn < 20; turn++) await settled();
    assertEquals(pings, i);
  }
  session.abort(new Error());
  await written;
  await answering;
});

Deno.test("Session: a side that only receives pings in each interval", async () => {
  const { session, peer, clock, transport } = await start("server", 1000);
  await peer.say(open);
  clock.pass(PONG_DELAY);
  await peer.hearUntil(Type.pong);
  await settled();
  for (let i = 1; i <= 20; i++) {
    await peer.say(data("a"));
    await session.read(new Uint8Array(1));
    clock.pass(250);
    await settled();
    assertEquals(transport.writes.length, 1 + Math.floor(i / 4));
  }
  session.abort(new Error());
});

// The ends.

Deno.test("Session: after both ends it closes when the peer has", async () => {
  const { session, peer, transport, clock } = await start("server");
  await peer.say(open, data("hi"), end);
  await session.closeWrite();
  assertEquals(session.haveBothEnded, true);
  await peer.hearUntil(Type.end);
  // Then comes the end of the connection's direction, and it is not closed.
  assertEquals(await peer.readFrame(), undefined);
  assertEquals(transport.isClosed, false);
  // It is closing, and that loses nothing.
  session.close();
  assertEquals(await readAll(session), "hi");
  await peer.close();
  await session.closed;
  assertEquals([transport.isClosed, clock.left], [true, []]);
});

Deno.test("Session: what was received before both ends can be read after the close", async () => {
  const { session, peer } = await start("server");
  await peer.say(open, data("hi"), end);
  await session.closeWrite();
  await peer.close();
  await session.closed;
  session.close();
  session.abort(new Error("too late"));
  assertEquals(await readAll(session), "hi");
});

Deno.test("Session: a peer may close before this side knows that its end was written", async () => {
  const { session, peer, transport } = await start("server");
  await peer.say(open);
  await session.opened;
  const told = Promise.withResolvers<void>();
  const write = transport.write.bind(transport);
  transport.write = async (p) => {
    const count = await write(p);
    await told.promise;
    return count;
  };
  const ending = session.closeWrite();
  await peer.hearUntil(Type.end);
  await peer.say(end);
  await peer.close();
  await settled();
  told.resolve();
  await ending;
  await session.closed;
});

Deno.test("Session: an end that cannot be written to a peer that has closed is a cut", async () => {
  const { session, peer, transport } = await start("server");
  await peer.say(open, end);
  transport.hold();
  const ending = session.closeWrite();
  await peer.close();
  await settled();
  peer.cut();
  transport.release();
  await assertFails(ending, "cut");
  await assertFails(session.closed, "cut");
});

Deno.test("Session: a peer that closes before it has read all is a cut", async () => {
  const { session, peer } = await start("server");
  await peer.say(open, end);
  assertEquals(await readAll(session), "");
  await peer.close();
  const error = await assertRejects(() => session.closed, ChannelError);
  assertEquals([error.code, error.message], [
    "cut",
    "The peer closed before it had read everything",
  ]);
  await assertFails(session.write(bytes("a")), "cut");
});

Deno.test("Session: a ping just before the last end is answered, one after it is not", async () => {
  const { session, peer, clock } = await start("server");
  await peer.say(open);
  await session.closeWrite();
  await peer.hearUntil(Type.end);
  await peer.say(ping, end, ping);
  await settled();
  clock.pass(PONG_DELAY);
  assertEquals(await peer.hear(), pong);
  assertEquals(await peer.readFrame(), undefined);
  await peer.close();
  await session.closed;
});

Deno.test("Session: a ping that cannot be written loses nothing that was read", async () => {
  const { session, peer, clock, transport } = await start("server", 1000);
  await peer.say(open);
  await session.closeWrite();
  await peer.say(...Array(10).fill(data("a")), end);
  await settled();
  // Nobody reads: it pings, in vain.
  transport.write = () => Promise.reject(new Deno.errors.BrokenPipe());
  clock.pass(1000);
  await settled();
  assertEquals(await readAll(session), "a".repeat(10));
  await peer.close();
  await session.closed;
});

const GARBAGE: Record<string, (peer: RawPeer) => Promise<Uint8Array>> = {
  "too short a frame": () => Promise.resolve(Uint8Array.of(0, 1, 7)),
  "a short forged frame": () =>
    Promise.resolve(new Uint8Array([0, 17, ...new Uint8Array(17)])),
  "a long forged frame": () =>
    Promise.resolve(new Uint8Array([16, 0, ...new Uint8Array(4096)])),
  "more data": (peer) => peer.sealed(data("more")),
};

for (const [name, say] of Object.entries(GARBAGE)) {
  Deno.test(`Session: behind both ends, ${name} is no matter`, async () => {
    const { session, peer } = await start("server");
    await peer.say(open);
    await session.closeWrite();
    const text = "a".repeat(5000);
    const said = await peer.sealed(data(text), end);
    const garbage = await say(peer);
    // All in one write.
    await peer.write(concat([said, garbage]));
    assertEquals(await readAll(session), text);
    await session.closed;
  });

  Deno.test(`Session: behind the peer's end alone, ${name} is an error`, async () => {
    const { session, peer } = await start("server");
    await peer.say(open, data("hi"), end);
    assertEquals(await readAll(session), "hi");
    await peer.write(await say(peer));
    await assertFails(session.closed, "protocol");
  });
}

Deno.test("Session: behind both ends, what carries it may say what it will", async () => {
  const { session, peer, transport } = await start("server");
  await peer.say(open);
  await session.closeWrite();
  transport.read = () =>
    Promise.reject(new ChannelError("protocol", "A text message"));
  await peer.say(data("hi"), end);
  assertEquals(await readAll(session), "hi");
  await session.closed;
});

Deno.test("Session: after both ends a transport that breaks is no cut", async () => {
  const { session, peer, transport } = await start("server");
  transport.closeWrite = () => Promise.reject(new Deno.errors.BrokenPipe());
  await peer.say(open, end);
  await session.closeWrite();
  await peer.close();
  await session.closed;
});

for (
  const [idleTimeout, time, closing] of [
    [0, 50_000, 3_600_000],
    [undefined, 50_000, 3_600_000],
    [1000, 2000, 144_000],
  ] as const
) {
  const name = `with an idle timeout of ${idleTimeout ?? "the default"}`;
  Deno.test(`Session: after both ends, ${name}, a silent peer is given up after ${time} ms`, async () => {
    const { session, peer, clock, transport } = await start(
      "server",
      idleTimeout,
    );
    await peer.say(open, end);
    await session.closeWrite();
    await settled();
    assertEquals(clock.left, [time, closing]);
    // A sign of life is a reprieve.
    clock.pass(time - 1);
    await peer.say(pong);
    await settled();
    clock.pass(time - 1);
    assertEquals(transport.isClosed, false);
    clock.pass(1);
    const error = await assertRejects(() => session.closed, ChannelError);
    assertEquals([error.code, error.message], [
      "timeout",
      `The peer has been silent for ${
        time / 1000
      } s and did not close after both ends`,
    ]);
  });

  Deno.test(`Session: after both ends, ${name}, one that pings is given up after ${closing} ms`, async () => {
    const { session, peer, clock, transport } = await start(
      "server",
      idleTimeout,
    );
    await peer.say(open, end);
    await session.closeWrite();
    await settled();
    for (let left = closing; left > time; left -= time / 2) {
      clock.pass(time / 2);
      await peer.say(ping);
      await settled();
    }
    assertEquals(transport.isClosed, false);
    clock.pass(time / 2 - 1);
    await peer.say(ping);
    await settled();
    assertEquals(transport.isClosed, false);
    clock.pass(time / 2 + 1);
    const error = await assertRejects(() => session.closed, ChannelError);
    assertEquals([error.code, error.message], [
      "timeout",
      `The peer did not close within ${closing / 1000} s of both ends`,
    ]);
  });
}

Deno.test("Session: a peer that pings without a pause is given up after both ends too", async () => {
  const { session, peer, clock } = await start("server", 1000);
  await peer.say(open, end);
  await session.closeWrite();
  await settled();
  // So many come that time is short for timers.
  for (let i = 0; i < 150; i++) {
    clock.stall(1000);
    await peer.say(ping).catch(() => {});
    await settled();
    clock.pass(0);
  }
  await assertFails(session.closed, "timeout");
});

Deno.test("Session: who gives up while data comes says why, and fails with its own reason", async () => {
  const { session, peer, transport } = await start("server");
  await peer.say(open, ...Array.from({ length: 20 }, () => data("more")));
  await session.read(new Uint8Array(4));
  transport.hold();
  session.abort(new ChannelError("revoked", "The test revoked it"));
  transport.release();
  assertEquals(await hear(peer), `bye \x04`);
  // Until the peer has read it, what the peer still says is read and dropped.
  assertEquals(await hear(peer), "closed");
  await peer.say(data("more"));
  assertEquals(transport.isClosed, false);
  await peer.close();
  await assertFails(session.closed, "revoked");
  assertEquals(transport.isClosed, true);
});

Deno.test("Session: a peer that does not close behind its bye is given up after a second", async () => {
  const { session, peer, transport, clock } = await start("server");
  session.abort(new ChannelError("limit", "Too many"));
  await peer.hearUntil(Type.bye);
  for (let i = 0; i < 10; i++) {
    clock.pass(i === 9 ? 99 : 100);
    await peer.say(data("more"));
    await settled();
  }
  assertEquals(transport.isClosed, false);
  clock.pass(1);
  await assertFails(session.closed, "limit");
  assertEquals(transport.isClosed, true);
});

Deno.test("Session: frames behind a bye, still being opened, do not keep it from ending", async () => {
  // As in a browser, where all is opened on another thread.
  const later: Seal = {
    ...PLAIN,
    open: async (frame) => {
      const copy = frame.slice();
      await settled();
      return PLAIN.open(copy);
    },
  };
  const { session, peer } = await start("server", 0, () => later);
  const bye = new Uint8Array([Type.bye, 5]);
  await peer.say(open, data("hi"), bye, data("more"), ping);
  const p = new Uint8Array(9);
  assertEquals(await session.read(p), 2);
  await assertFails(session.read(p), "stopping");
  await assertFails(session.closed, "stopping");
});

Deno.test("Session: a bye that cannot be written is not waited for", async () => {
  for (const isBroken of [false, true]) {
    const { session, peer, transport } = await start("server", 0, () => PLAIN);
    await peer.say(open);
    await session.opened;
    if (isBroken) {
      transport.write = () => Promise.reject(new Deno.errors.BrokenPipe());
      await session.write(bytes("hi"));
      await settled();
    } else {
      transport.hold();
      await session.write(bytes("hi"));
      await settled();
      peer.cut();
    }
    session.abort(new RangeError("enough"));
    transport.release();
    // Time stands still.
    await assertRejects(() => session.closed, RangeError, "enough");
  }
});

Deno.test("Session: what the peer said before its bye is whole, though nothing can be written and the reader is slow", async () => {
  const { session, peer, clock } = await start("server");
  await peer.say(open, ...Array(20).fill(data("a")));
  await peer.say(new Uint8Array([Type.bye, 5]));
  peer.cut();
  await settled();
  const writing = session.write(bytes("in vain"));
  await settled();
  const p = new Uint8Array(1);
  for (let i = 0; i < 20; i++) {
    // What was read ahead, and then all, waits for nobody.
    if (i < 12) clock.pass(49_000);
    assertEquals(await session.read(p), 1);
    await settled();
  }
  await assertFails(session.read(p), "stopping");
  await assertFails(session.closed, "stopping");
  await writing;
});

Deno.test("Session: behind a bye that follows a failed write, the reader may take its time", async () => {
  const { session, peer, clock, transport } = await start("server");
  await peer.say(open, ...Array(7).fill(data("a")));
  await settled();
  transport.write = () => Promise.reject(new Deno.errors.BrokenPipe());
  await session.write(bytes("in vain"));
  await settled();
  await peer.say(new Uint8Array([Type.bye, 5]));
  await peer.close();
  await settled();
  clock.pass(100_000);
  const p = new Uint8Array(1);
  for (let i = 0; i < 7; i++) assertEquals(await session.read(p), 1);
  await assertFails(session.read(p), "stopping");
  await assertFails(session.closed, "stopping");
});

Deno.test("Session: who waits to write and does not read is told in time that nothing can be written", async () => {
  const { session, peer, clock } = await start(
    "server",
    undefined,
    () => PLAIN,
  );
  await peer.say(open, ...Array(20).fill(data("a")));
  peer.cut();
  await settled();
  const writing = session.write(new Uint8Array(1_000_000));
  await settled();
  clock.pass(49_999);
  await settled();
  clock.pass(1);
  await assertFails(writing, "cut");
  await assertFails(session.closed, "cut");
});

Deno.test("Session: a probe ends with the session, also where both ends were said", async () => {
  const { session, peer } = await start("server", 0);
  await peer.say(open, end);
  await session.closeWrite();
  const probing = session.probe();
  await peer.close();
  await session.closed;
  await assertFails(probing, "aborted");
  await assertFails(session.probe(), "aborted");
});

Deno.test("Session: given up while it seals its open, as a trace may do, it stays so", async () => {
  let abort = () => {};
  const { session, peer } = await start("client", 0, () => ({
    ...PLAIN,
    seal: (text) => {
      if (text[0] === Type.open) abort();
      return PLAIN.seal(text);
    },
  }));
  abort = () => session.abort(new RangeError("enough"));
  session.write(bytes("hi")).catch(() => {});
  session.abort(new Error("too late"));
  const heard = [];
  for (let said; (said = await hear(peer)) !== "closed";) heard.push(said);
  assertEquals(heard.at(-1), "bye \u0006");
  await peer.close();
  await assertRejects(() => session.closed, RangeError, "enough");
});

Deno.test("Session: a client that has not proved its key says nothing when it is given up", async () => {
  const { session, transport } = await start("client", 0, () => PLAIN, false);
  session.abort(new ChannelError("timeout", "enough"));
  await assertFails(session.closed, "timeout");
  assertEquals([transport.writes, transport.isClosed], [[], true]);
});

Deno.test("Session: behind both ends, a bye is no matter", async () => {
  const { session, peer } = await start("server");
  await peer.say(open);
  await session.closeWrite();
  await peer.say(data("hi"), end, new Uint8Array([Type.bye, 6]));
  assertEquals(await readAll(session), "hi");
  await session.closed;
});

const WAYS: Record<string, (session: Session, peer: RawPeer) => unknown> = {
  "after both ends": async (session, peer) => {
    await peer.say(open, end);
    await session.closeWrite();
    await peer.close();
  },
  "after an abort": (session, peer) => {
    session.abort(new Error("enough"));
    return peer.close();
  },
  "after the peer's bye": (_, peer) => peer.say(new Uint8Array([Type.bye, 5])),
  "after a cut": (_, peer) => peer.cut(),
  "after a forged frame": (_, peer) => peer.write(new Uint8Array([0, 1, 7])),
};

for (const [name, end] of Object.entries(WAYS)) {
  Deno.test(`Session: ${name} it lets both keys go, once`, async () => {
    const closed: number[] = [];
    const { session, peer, clock } = await start("server", 1000, ([key]) => ({
      ...PLAIN,
      close: () => closed.push(key!),
    }));
    await end(session, peer);
    await session.closed.catch(() => {});
    session.abort(new Error("too late"));
    assertEquals(closed.toSorted(), [1, 2]);
    assertEquals(clock.left, []);
  });
}

Deno.test("Session: pongs that cannot be written lose nothing that was read", async () => {
  const { session, peer, transport, clock } = await start(
    "server",
    0,
    () => PLAIN,
  );
  await peer.say(open);
  await session.closeWrite();
  await peer.hearUntil(Type.end);
  const broken = Promise.withResolvers<number>();
  transport.write = () => broken.promise;
  // More than may wait: what is behind them is not delivered yet.
  await peer.say(...Array(100).fill(ping), data("hi"), end);
  await settled();
  clock.pass(PONG_DELAY);
  await settled();
  broken.reject(new Deno.errors.BrokenPipe());
  assertEquals(await readAll(session), "hi");
  await peer.close();
  await session.closed;
});
