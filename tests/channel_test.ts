import { assertEquals, assertRejects } from "@std/assert";
import {
  acceptChannel,
  type Channel,
  ChannelError,
  connectChannel,
  type FrameTrace,
  type Transport,
} from "../lib/mod.ts";
import { MAX_BODY_LENGTH } from "../lib/lock/sender.ts";
import { toTransport } from "../lib/lock/transport.ts";
import {
  assertFails,
  bytesOf,
  channels,
  endAll,
  random,
  send,
} from "./channels.ts";
import { duplex, pieces, PSK } from "./duplex.ts";
import { pipe, settled } from "./pipe.ts";
import { readAll } from "./scripted.ts";
import { told } from "./told.ts";

for (
  const [name, wire] of [
    ["whole", undefined],
    ["split", pieces(1000)],
    ["byte by byte", pieces(1)],
  ] as const
) {
  Deno.test(`Channel: round trip, the wire ${name}`, async () => {
    const [client, server] = await channels(duplex(wire, wire));
    const echo = server.readable.pipeTo(server.writable);
    const message = random(5000);
    const [reply] = await Promise.all([
      bytesOf(client.readable),
      send(client, [message]),
    ]);
    assertEquals(reply, message);
    await Promise.all([echo, client.closed, server.closed]);
    assertEquals(client.bytesSent, 5000);
    assertEquals(client.bytesReceived, 5000);
    assertEquals(client.handshakeHash, server.handshakeHash);
  });
}

for (const delta of [-1, 0, 1]) {
  const length = MAX_BODY_LENGTH + delta;
  Deno.test(`Channel: a write of ${length} bytes (limit ${delta})`, async () => {
    const lengths: number[] = [];
    const trace = ({ type, direction, plaintext }: FrameTrace) => {
      if (type === "data" && direction === "sent") {
        lengths.push(plaintext.length);
      }
    };
    const [client, server] = await channels(duplex(), { trace });
    const message = random(length);
    const [received] = await Promise.all([
      bytesOf(server.readable),
      send(client, [message]),
      server.writable.close(),
      bytesOf(client.readable),
    ]);
    assertEquals(received, message);
    assertEquals(lengths, delta > 0 ? [MAX_BODY_LENGTH, 1] : [length]);
    await Promise.all([client.closed, server.closed]);
  });
}

Deno.test("Channel: 20 MB both ways at once", async () => {
  const [client, server] = await channels();
  const [a, b] = [random(20_000_000), random(20_000_000)];
  const [atServer, atClient] = await Promise.all([
    bytesOf(server.readable),
    bytesOf(client.readable),
    send(client, [a]),
    send(server, [b.subarray(0, 7), b.subarray(7)]),
  ]);
  assertEquals(atServer.every((byte, i) => byte === a[i]), true);
  assertEquals(atClient.every((byte, i) => byte === b[i]), true);
  assertEquals([atServer.length, atClient.length], [a.length, b.length]);
  await Promise.all([client.closed, server.closed]);
});

Deno.test("Channel: half-close lets the other direction go on", async () => {
  const [client, server] = await channels();
  await client.writable.close();
  assertEquals(await bytesOf(server.readable), new Uint8Array(0));
  const message = random(100_000);
  const [reply] = await Promise.all([
    bytesOf(client.readable),
    send(server, [message]),
  ]);
  assertEquals(reply, message);
  await Promise.all([client.closed, server.closed]);
});

for (const size of [1, 1000, 65_517, 65_518, 65_519, 200_000]) {
  Deno.test(`Channel: a reader with a buffer of ${size} bytes of its own`, async () => {
    const [client, server] = await channels();
    const sent = random(size === 1 ? 500 : 300_000);
    const received: number[] = [];
    const readAll = async () => {
      const reader = server.readable.getReader({ mode: "byob" });
      let buffer = new ArrayBuffer(size);
      while (true) {
        const { done, value } = await reader.read(new Uint8Array(buffer));
        for (const byte of value!) received.push(byte);
        buffer = value!.buffer;
        assertEquals(buffer.byteLength, size);
        if (done) return;
      }
    };
    await Promise.all([readAll(), send(client, [sent])]);
    assertEquals(new Uint8Array(received), sent);
    assertEquals(server.bytesReceived, sent.length);
    await Promise.all([server.writable.close(), bytesOf(client.readable)]);
    await Promise.all([client.closed, server.closed]);
  });
}

Deno.test("Channel: a reader with its own buffer may ask for a minimum", async () => {
  const [client, server] = await channels();
  const reader = server.readable.getReader({ mode: "byob" });
  const writer = client.writable.getWriter();
  const reading = reader.read(new Uint8Array(10), { min: 7 });
  for (const part of [[1, 2, 3], [4, 5], [6, 7, 8]]) {
    await writer.write(new Uint8Array(part));
  }
  const { value } = await reading;
  assertEquals([...value!.subarray(0, 7)], [1, 2, 3, 4, 5, 6, 7]);
  reader.releaseLock();
  await writer.close();
  await endAll(client, server);
});

Deno.test("Channel: a bye is an error for a reader with its own buffer", async () => {
  const [client, server] = await channels();
  const reader = server.readable.getReader({ mode: "byob" });
  const reading = reader.read(new Uint8Array(10));
  client.abort();
  await assertFails(reading, "aborted");
});

Deno.test("Channel: a buffer may be used again after a write", async () => {
  const [client, server] = await channels();
  const writer = client.writable.getWriter();
  const buffer = new Uint8Array(10);
  const reading = bytesOf(server.readable);
  for (let i = 0; i < 100; i++) {
    await writer.write(buffer.fill(i));
  }
  await writer.close();
  const received = await reading;
  assertEquals(received.every((byte, i) => byte === Math.floor(i / 10)), true);
  await endAll(client, server);
});

Deno.test("Channel: a write that fails is a cut, and the cause is told", async () => {
  const [client, server] = duplex();
  let isBroken = false;
  const transport = toTransport(client);
  const write = transport.write.bind(transport);
  const breaking: Transport = Object.assign(transport, {
    write: (p: Uint8Array) =>
      isBroken ? Promise.reject(new Deno.errors.BrokenPipe()) : write(p),
  });
  const [a, b] = await channels([breaking, server]);
  isBroken = true;
  const writer = a.writable.getWriter();
  writer.write(new Uint8Array(1)).catch(() => {});
  const error = await assertRejects(() => a.closed, ChannelError);
  assertEquals(error.code, "cut");
  assertEquals(error.cause instanceof Deno.errors.BrokenPipe, true);
  await assertFails(writer.closed, "cut");
  await assertFails(b.closed, "cut");
});

Deno.test("Channel: a trace is shown each frame, and what it was stays", async () => {
  const shown = { client: [] as FrameTrace[], server: [] as FrameTrace[] };
  const [near, far] = duplex();
  const [client, server] = await Promise.all([
    connectChannel(near, {
      psk: PSK,
      trace: (frame) => shown.client.push(frame),
    }),
    acceptChannel(far, {
      psk: PSK,
      trace: (frame) => shown.server.push(frame),
    }),
  ]);
  const echo = server.readable.pipeTo(server.writable);
  const writer = client.writable.getWriter();
  const reader = client.readable.getReader();
  for (const text of [[1, 2, 3], [4, 5], [6]]) {
    await writer.write(new Uint8Array(text));
    assertEquals([...(await reader.read()).value!], text);
  }
  await writer.close();
  await reader.read();
  await Promise.all([echo, client.closed, server.closed]);
  const list = (who: FrameTrace[], way: string) =>
    who.filter(({ direction }) => direction === way).map((frame) =>
      [
        frame.number,
        frame.type,
        frame.plaintext.toHex(),
        frame.ciphertext.toHex(),
      ].join(" ")
    );
  const up = list(shown.client, "sent");
  const down = list(shown.server, "sent");
  // What one side sent is what the other received, still.
  assertEquals(up, list(shown.server, "received"));
  assertEquals(down, list(shown.client, "received"));
  const hello = new TextEncoder().encode("innerlock/1 default").toHex();
  assertEquals(up.map((text) => text.split(" ").slice(0, 3).join(" ")), [
    `1 hello ${hello}`,
    "2 noise ",
    "3 ping ",
    "4 open ",
    "5 data 010203",
    "6 data 0405",
    "7 data 06",
    "8 end ",
  ]);
  assertEquals(down.map((text) => text.split(" ")[1]), [
    "noise",
    "pong",
    "data",
    "data",
    "data",
    "end",
  ]);
  const ciphertexts = shown.client.map(({ ciphertext }) => ciphertext.toHex());
  // All but the hello's, which is plain, differ.
  assertEquals(new Set(ciphertexts).size, up.length + down.length);
});

Deno.test("Channel: bytes are counted when they are taken and when they are read", async () => {
  const arrived = Promise.withResolvers<void>();
  const trace = ({ direction, type }: FrameTrace) => {
    if (direction === "received" && type === "data") arrived.resolve();
  };
  const [client, server] = await channels(duplex(), { trace });
  await client.write(new Uint8Array(5));
  await arrived.promise;
  assertEquals([client.bytesSent, server.bytesReceived], [5, 0]);
  await server.read(new Uint8Array(3));
  assertEquals(server.bytesReceived, 3);
  await endAll(client, server);
  assertEquals(server.bytesReceived, 5);
});

Deno.test("Channel: the peer is told of an abort", async () => {
  const [client, server] = await channels();
  client.abort();
  await assertFails(bytesOf(server.readable), "aborted");
  await assertFails(client.closed, "aborted");
  await assertFails(client.readable.getReader().closed, "aborted");
  await assertFails(server.closed, "aborted");
});

Deno.test("Channel: cancelling the reader gives the channel up", async () => {
  const [client, server] = await channels();
  await client.readable.cancel();
  await assertFails(client.closed, "aborted");
  await assertFails(server.closed, "aborted");
});

Deno.test("Channel: leaving its block early is no end", async () => {
  let peer: Channel;
  {
    const [client, server] = await channels();
    peer = server;
    await using _ = client;
  }
  await assertFails(peer.closed, "aborted");
});

Deno.test("Channel: writes that overlap never share a nonce", async () => {
  const seen = new Set<string>();
  let frames = 0;
  const trace = ({ direction, ciphertext }: FrameTrace) => {
    if (direction === "received") return;
    frames++;
    seen.add(ciphertext.toHex());
  };
  const [client, server] = await channels(duplex(), { trace });
  const writer = client.writable.getWriter();
  const zeros = new Uint8Array(MAX_BODY_LENGTH);
  for (let i = 0; i < 40; i++) writer.write(zeros);
  const [{ length }] = await Promise.all([
    bytesOf(server.readable),
    writer.close(),
  ]);
  assertEquals(length, 40 * MAX_BODY_LENGTH);
  // The same plaintext under the same key and nonce is the same ciphertext.
  assertEquals(seen.size, frames);
  assertEquals(frames >= 44, true);
  await endAll(client, server);
});

Deno.test("writable: aborting it gives the channel up", async () => {
  const [client, server] = await channels();
  await client.writable.abort();
  const error = await assertRejects(() => client.closed, ChannelError);
  assertEquals(error.code, "aborted");
  const told = await assertRejects(() => server.closed, ChannelError);
  assertEquals(told.code, "aborted");
});

Deno.test("Channel: streams beneath that fail are a cut, and nobody is left with it", async () => {
  const [near, far] = duplex();
  let breakIt!: () => void;
  const readable = near.readable.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      start: (controller) => {
        breakIt = () => controller.error(new Error("broken"));
      },
    }),
  );
  const [a, b] = await channels([{ ...near, readable }, far]);
  breakIt();
  await assertFails(a.closed, "cut");
  await assertFails(b.closed, "cut");

  const broken = {
    readable: new ReadableStream<Uint8Array>({
      start: (controller) => controller.error(new Error("broken")),
    }),
    writable: new WritableStream<Uint8Array>({
      start: (controller) => controller.error(new Error("broken")),
    }),
  };
  await assertFails(acceptChannel(broken, { psk: PSK }), "cut");
});

/** Bytes 1 to 8 as each kind of `BufferSource`. */
function bufferSources() {
  const { buffer } = new Uint8Array([0, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
  const whole = new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]);
  const shared = new SharedArrayBuffer(8);
  new Uint8Array(shared).set(whole);
  return {
    "an ArrayBuffer": whole.slice().buffer,
    "a SharedArrayBuffer": shared,
    "a Uint8Array": new Uint8Array(buffer, 1, 8),
    "a DataView": new DataView(buffer, 1, 8),
    "a Uint16Array": new Uint16Array(whole.slice().buffer),
    "a Float64Array": new Float64Array(whole.slice().buffer),
    "a buffer that claims to be something else": Object.defineProperty(
      whole.slice().buffer,
      Symbol.toStringTag,
      { value: "Text" },
    ),
  };
}

for (const [name, source] of Object.entries(bufferSources())) {
  Deno.test(`Channel: ${name} is sent whole`, async () => {
    const [client, server] = await channels();
    const writer = client.writable.getWriter();
    const count = await client.write(source);
    await writer.write(source);
    const [received] = await Promise.all([
      bytesOf(server.readable),
      writer.close(),
    ]);
    const sent = [1, 2, 3, 4, 5, 6, 7, 8];
    assertEquals([count, ...received], [8, ...sent, ...sent]);
    await endAll(client, server);
  });
}

const detached = new Uint8Array(8);
detached.buffer.transfer();
for (
  const [name, chunk] of [
    ["a text", "text"],
    ["a number", 8],
    ["null", null],
    ["nothing", undefined],
    ["an array", [1, 2, 3]],
    ["a Blob", new Blob(["text"])],
    ["an object that looks like bytes", { buffer: new ArrayBuffer(8) }],
    ["one that claims to be", { [Symbol.toStringTag]: "ArrayBuffer" }],
    ["one that inherits it", Object.create(Uint8Array.prototype)],
    ["bytes that are elsewhere now", detached],
  ] as const
) {
  Deno.test(`Channel: ${name} is no bytes, and fails it`, async () => {
    for (const way of ["write", "writable"] as const) {
      const [client, server] = await channels();
      const reading = bytesOf(server.readable);
      const writer = client.writable.getWriter();
      const subject = way === "write" ? client : writer;
      const error = await assertRejects(
        () => subject.write(chunk),
        TypeError,
        "only bytes",
      );
      for (const failed of [client.closed, writer.closed]) {
        assertEquals(await failed.catch((reason) => reason), error);
      }
      await assertFails(reading, "aborted");
    }
  });
}

for (
  const [name, fail] of [
    ["throws", (error: Error) => {
      throw error;
    }],
    ["rejects", (error: Error) => Promise.reject(error)],
  ] as const
) {
  Deno.test(`Channel: a trace that ${name} disturbs nothing, and is told`, async () => {
    const failures: Error[] = [];
    const trace = () => {
      const error = new Error("Its disk is full");
      failures.push(error);
      return fail(error);
    };
    const errors = await told(async () => {
      const [client, server] = await channels(duplex(), { trace });
      // Sealed at once, sealed on another thread.
      for (const message of [random(10), random(10_000)]) {
        await client.write(message);
        await server.write(message);
      }
      await endAll(client, server);
      assertEquals([client.bytesReceived, server.bytesReceived], [
        10_010,
        10_010,
      ]);
    });
    // Two sides, each of which sends and receives at least nine frames.
    assertEquals(failures.length >= 18, true);
    assertEquals(errors, failures);
  });
}

Deno.test("Channel: it reads and writes as a Deno.Conn does", async () => {
  const [client, server] = await channels();
  const sent = random(1_000_000);
  const sending = (async () => {
    assertEquals(await client.write(sent), sent.length);
    assertEquals(await client.write(new Uint8Array(0)), 0);
    await client.closeWrite();
  })();
  assertEquals(await readAll(server, 777), sent);
  await sending;
  // The end stays the end, and the other direction goes on.
  assertEquals(await server.read(new Uint8Array(5)), null);
  const waiting = client.read(new Uint8Array(5));
  const second = client.read(new Uint8Array(5));
  await assertRejects(() => second, TypeError, "another read is under way");
  await server.write(new Uint8Array([1, 2, 3]));
  assertEquals(await waiting, 3);
  const ended = "this direction has ended";
  await assertRejects(() => client.write(sent), TypeError, ended);
  await assertRejects(() => client.closeWrite(), TypeError, ended);
  await server.closeWrite();
  assertEquals(await client.read(new Uint8Array(5)), null);
  await Promise.all([client.closed, server.closed]);
});

Deno.test("Channel: close() before both ends gives it up", async () => {
  for (const says of ["nothing", "its end"]) {
    const [client, server] = await channels();
    if (says === "its end") await client.closeWrite();
    client.close();
    await assertFails(client.closed, "aborted");
    await assertFails(client.read(new Uint8Array(1)), "aborted");
    await assertFails(client.write(new Uint8Array(1)), "aborted");
    await assertFails(server.closed, "aborted");
    // Once more changes nothing.
    client.close();
    client.abort(new Error("too late"));
    await assertFails(client.closed, "aborted");
  }
});

Deno.test("Channel: close() after both ends loses nothing", async () => {
  const heard = Promise.withResolvers<void>();
  let ends = 0;
  const trace = ({ direction, type }: FrameTrace) => {
    if (direction === "received" && type === "end" && ++ends === 2) {
      heard.resolve();
    }
  };
  const [client, server] = await channels(duplex(), { trace });
  const message = random(300_000);
  await Promise.all([client.write(message), server.write(message)]);
  await Promise.all([client.closeWrite(), server.closeWrite()]);
  await heard.promise;
  await settled();
  client.close();
  server.close();
  // All that was said before is still to be read.
  assertEquals(await readAll(server), message);
  assertEquals(await readAll(client), message);
  await Promise.all([client.closed, server.closed]);
});

Deno.test("Channel: a transport may take a part of each write", async () => {
  const [near, far] = pipe();
  const write = near.write.bind(near);
  near.write = (p) => write(p.subarray(0, 1000));
  const [client, server] = await channels([near, far]);
  const message = random(200_000);
  const ending = client.write(message).then(() => client.closeWrite());
  assertEquals(await readAll(server), message);
  await ending;
  await server.closeWrite();
  assertEquals(await readAll(client), new Uint8Array(0));
  await Promise.all([client.closed, server.closed]);
});

Deno.test("Channel: over a channel, whole and half-closed", async () => {
  const outer = await channels(pipe());
  const [client, server] = await channels(outer);
  const message = random(500_000);
  const [received] = await Promise.all([
    readAll(server),
    client.write(message).then(() => client.closeWrite()),
  ]);
  assertEquals(received, message);
  const [reply] = await Promise.all([
    readAll(client),
    server.write(message).then(() => server.closeWrite()),
  ]);
  assertEquals(reply, message);
  // What carries it ends with it, and cleanly.
  await Promise.all([client, server, ...outer].map(({ closed }) => closed));
});

Deno.test("Channel: over a channel, the last word of what carries it may take its time", async () => {
  const [near, far] = pipe();
  const outer = await channels([near, far]);
  const [client, server] = await channels(outer);
  await client.closeWrite();
  assertEquals(await server.read(new Uint8Array(1)), null);
  near.hold();
  // The client hears both ends of the server before its own has left.
  await server.closeWrite();
  await settled();
  near.release();
  await Promise.all([client, server, ...outer].map(({ closed }) => closed));
});

Deno.test("Channel: over a channel that is cut, it is cut", async () => {
  const [near, far] = await channels(pipe());
  const [client, server] = await channels([near, far]);
  await client.write(new Uint8Array(5));
  assertEquals(await server.read(new Uint8Array(10)), 5);
  const reason = new RangeError("enough");
  near.abort(reason);
  const error = await assertRejects(() => client.closed, ChannelError);
  assertEquals([error.code, error.cause], ["cut", reason]);
  await assertFails(server.read(new Uint8Array(10)), "cut");
  await assertFails(far.closed, "aborted");
});

Deno.test("Channel: one that is given up gives up what carries it", async () => {
  const [near, far] = await channels(pipe());
  const [client, server] = await channels([near, far]);
  client.abort();
  await assertFails(near.closed, "aborted");
  await assertFails(far.closed, "aborted");
  await assertFails(server.closed, "aborted");
});
