import { assertEquals, assertRejects } from "@std/assert";
import {
  acceptChannel,
  type Channel,
  ChannelError,
  connectChannel,
  type FrameTrace,
  type StreamPair,
  type Transport,
} from "../lib/mod.ts";
import { encodeFrames } from "../lib/frame.ts";
import { Type } from "../lib/message.ts";
import { MAX_BODY_LENGTH, PONG_DELAY } from "../lib/sender.ts";
import { type CipherState, EMPTY, HandshakeState } from "../lib/noise.ts";
import { toTransport } from "../lib/transport.ts";
import {
  duplex,
  KEY,
  pieces,
  PSK,
  RawPeer,
  watchTimers,
  type Wire,
} from "./duplex.ts";

async function channels(
  up?: Wire,
  down?: Wire,
  trace?: (frame: FrameTrace) => void,
): Promise<[Channel, Channel]> {
  const [client, server] = duplex(up, down);
  return await Promise.all([
    connectChannel(client, { psk: PSK, ...(trace && { trace }) }),
    acceptChannel(server, { psk: PSK, ...(trace && { trace }) }),
  ]);
}

/** Two channels between which all is quiet: the first pong has come. */
async function quietChannels(
  [near, far]: [Transport | StreamPair, Transport | StreamPair] = duplex(),
): Promise<[Channel, Channel]> {
  const ponged = Promise.withResolvers<void>();
  const trace = ({ type }: FrameTrace) => {
    if (type === "pong") ponged.resolve();
  };
  const pair = await Promise.all([
    connectChannel(near, { psk: PSK, trace }),
    acceptChannel(far, { psk: PSK }),
  ]);
  await ponged.promise;
  return pair;
}

async function bytesOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>) {
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function random(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i += 65_536) {
    crypto.getRandomValues(bytes.subarray(i, i + 65_536));
  }
  return bytes;
}

async function send(channel: Channel, chunks: Uint8Array[]): Promise<void> {
  await ReadableStream.from(chunks).pipeTo(channel.writable);
}

/** Ends what has been written: a test leaves nothing under way. */
async function endAll(...channels: Channel[]): Promise<void> {
  await Promise.all(channels.flatMap(({ readable, writable }) => [
    writable.locked ? undefined : writable.close(),
    readable.locked ? undefined : readable.pipeTo(new WritableStream()),
  ]));
  await Promise.all(channels.map(({ closed }) => closed));
}

async function assertFails(promise: Promise<unknown>, code: string) {
  const error = await assertRejects(() => promise, ChannelError);
  assertEquals(error.code, code);
}

/** A client of `innerlock/1` that can say anything, spoken by hand. */
async function rawClient(
  say: (peer: RawPeer, seal: CipherState, open: CipherState) => Promise<void>,
  serve: (channel: Channel) => Promise<void> = () => Promise.resolve(),
  idleTimeout = 0,
): Promise<Channel> {
  const [client, server] = duplex();
  const peer = new RawPeer(client);
  const hello = new TextEncoder().encode("innerlock/1 default");
  const [channel] = await Promise.all([
    acceptChannel(server, { psk: PSK, idleTimeout }).then((channel) => {
      serve(channel).catch(() => {});
      return channel;
    }),
    (async () => {
      const handshake = await HandshakeState.initialize({
        prologue: hello,
        psk: Uint8Array.fromHex(KEY),
      });
      const message1 = await handshake.writeMessage1();
      await peer.write(encodeFrames([hello, message1]));
      await handshake.readMessage2((await peer.readFrame())!);
      await say(peer, ...await handshake.split());
    })(),
  ]);
  return channel;
}

/** Seals plaintexts in order into one write. */
async function sealed(cipher: CipherState, plaintexts: Uint8Array[]) {
  const frames = [];
  for (const plaintext of plaintexts) {
    frames.push(await cipher.encryptWithAd(EMPTY, plaintext.slice()));
  }
  return encodeFrames(frames);
}

const ping = new Uint8Array([Type.ping]);
const end = new Uint8Array([Type.end]);
const data = new Uint8Array([Type.data, 0x68, 0x69]);

for (
  const [name, wire] of [
    ["whole", undefined],
    ["split", pieces(1000)],
    ["byte by byte", pieces(1)],
  ] as const
) {
  Deno.test(`Channel: round trip, the wire ${name}`, async () => {
    const [client, server] = await channels(wire, wire);
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
    const [client, server] = await channels(undefined, undefined, (frame) => {
      if (frame.type === "data" && frame.direction === "sent") {
        lengths.push(frame.plaintext.length);
      }
    });
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

Deno.test("Channel: a slow reader holds the writer back", async () => {
  const [client, server] = await channels();
  const writer = client.writable.getWriter();
  let written = 0;
  const all = (async () => {
    for (let i = 0; i < 200; i++) {
      await writer.write(random(65_536));
      written++;
    }
    await writer.close();
  })();
  // Give the writer every chance: as many turns as it could ever need.
  for (let i = 0; i < 2000; i++) await new Promise((r) => setTimeout(r, 0));
  const ahead = written;
  const [received] = await Promise.all([
    bytesOf(server.readable),
    all,
    server.writable.close(),
    bytesOf(client.readable),
  ]);
  assertEquals(received.length, 200 * 65_536);
  assertEquals(ahead < 60, true, `${ahead} of 200 chunks were taken`);
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

Deno.test("Channel: a cut is an error for a reader with its own buffer", async () => {
  const [client, server] = await quietChannels();
  const reader = server.readable.getReader({ mode: "byob" });
  const reading = reader.read(new Uint8Array(10));
  client.abort();
  await assertFails(reading, "cut");
});

Deno.test("Channel: a buffer may be used again after a write", async () => {
  const [client, server] = await channels();
  const writer = client.writable.getWriter();
  const buffer = new Uint8Array(10);
  for (let i = 0; i < 100; i++) {
    await writer.write(buffer.fill(i));
  }
  await writer.close();
  const received = await bytesOf(server.readable);
  assertEquals(received.every((byte, i) => byte === Math.floor(i / 10)), true);
  await endAll(client, server);
});

Deno.test("connectChannel: a wrong key is refused", async () => {
  const [client, server] = duplex();
  await Promise.all([
    assertFails(
      connectChannel(client, { psk: `default:${"0e".repeat(32)}` }),
      "refused",
    ),
    assertFails(acceptChannel(server, { psk: PSK }), "refused"),
  ]);
});

Deno.test("connectChannel: an unknown identity looks like a wrong key", async () => {
  const messages: string[] = [];
  const told = {
    bob: "There is no identity bob",
    alice: "The client does not hold the key of alice",
  };
  for (const [identity, message] of Object.entries(told)) {
    const psk = `${identity}:${"0e".repeat(32)}`;
    const [client, server] = duplex();
    const refusal = assertRejects(
      () => connectChannel(client, { psk, identity }),
      ChannelError,
    );
    // The server alone is told which of the two it is.
    const error = await assertRejects(
      () => acceptChannel(server, { psk: PSK }),
      ChannelError,
    );
    assertEquals([error.code, error.message], ["refused", message]);
    messages.push((await refusal).message.replace(identity, "X"));
  }
  assertEquals(messages[0], messages[1]);
});

Deno.test("acceptChannel: an unknown identity is heard out, as a wrong key is", async () => {
  for (const identity of ["default", "nobody"]) {
    const hello = new TextEncoder().encode(`innerlock/1 ${identity}`);
    const handshake = await HandshakeState.initialize({
      prologue: hello,
      psk: new Uint8Array(32),
    });
    const says = [
      encodeFrames([hello]),
      encodeFrames([await handshake.writeMessage1()]),
    ];
    const did: string[] = [];
    const transport: Transport = {
      read: (p) => {
        const said = says.shift();
        if (said === undefined) return new Promise(() => {});
        did.push("read");
        p.set(said);
        return Promise.resolve(said.length);
      },
      write: (p) => {
        did.push("write");
        return Promise.resolve(p.length);
      },
      closeWrite: () => Promise.resolve(),
      close: () => did.push("close"),
    };
    await assertFails(acceptChannel(transport, { psk: PSK }), "refused");
    assertEquals(did, ["read", "read", "close"], identity);
  }
});

Deno.test("connectChannel: an identity without key is a TypeError", async () => {
  const [client] = duplex();
  const psk = PSK;
  await assertRejects(
    () => connectChannel(client, { psk, identity: "bob" }),
    TypeError,
    "no identity bob",
  );
});

Deno.test("acceptChannel: a replayed handshake is refused", async () => {
  const [client, server] = duplex();
  const recorded: Uint8Array[] = [];
  const [realClient, realServer] = duplex((chunk) => {
    recorded.push(chunk.slice());
    return [chunk];
  });
  const first = await Promise.all([
    connectChannel(realClient, { psk: PSK }),
    acceptChannel(realServer, { psk: PSK }),
  ]);
  const peer = new RawPeer(client);
  const accepted = acceptChannel(server, { psk: PSK });
  await Promise.all([
    assertFails(accepted, "refused"),
    (async () => {
      const [handshake, firstPing] = recorded;
      await peer.write(handshake!);
      await peer.readFrame();
      await peer.write(firstPing!);
    })(),
  ]);
  await endAll(...first);
});

Deno.test("handshake: a signal that was given before stops it at once", async () => {
  for (const start of [connectChannel, acceptChannel]) {
    const [mine, other] = duplex();
    const signal = AbortSignal.abort(new RangeError("changed my mind"));
    await assertRejects(
      () => start(mine, { psk: PSK, signal }),
      RangeError,
      "changed my mind",
    );
    assertEquals(await new RawPeer(other).readFrame(), undefined);
  }
});

Deno.test("handshakeTimeout, idleTimeout: 10 s and a minute unless told", async () => {
  using timers = watchTimers();
  await endAll(...await channels());
  for (const time of [10_000, 60_000]) {
    assertEquals(timers.times.includes(time), true, `${time}`);
  }
});

Deno.test("handshake: a silent peer meets the time limit", async () => {
  for (const start of [connectChannel, acceptChannel]) {
    using timers = watchTimers(1234);
    const [mine, other] = duplex();
    const starting = assertFails(
      start(mine, { psk: PSK, handshakeTimeout: 1234 }),
      "timeout",
    );
    // A client has made its hello and message 1 first.
    const peer = new RawPeer(other);
    if (start === connectChannel) {
      for (let i = 0; i < 2; i++) await peer.readFrame();
    }
    timers.held.shift()!();
    await starting;
  }
});

Deno.test("handshake: a signal gives it up", async () => {
  const [mine, other] = duplex();
  const controller = new AbortController();
  const connecting = connectChannel(mine, {
    psk: PSK,
    signal: controller.signal,
  });
  await new RawPeer(other).readFrame();
  controller.abort(new RangeError("changed my mind"));
  await assertRejects(() => connecting, RangeError, "changed my mind");
});

for (
  const [name, bytes, code] of [
    ["an HTTP request", "GET / HTTP/1.1\r\n\r\n", "protocol"],
    ["another version", "\0\x13innerlock/2 default", "protocol"],
    ["a bad identity", "\0\x13innerlock/1 def ult", "protocol"],
    ["no identity", "\0\x0cinnerlock/1 ", "protocol"],
    ["an empty frame", "\0\0", "protocol"],
    ["a short message 1", "\0\x13innerlock/1 default\0\x2f", "protocol"],
    ["the length of a hello too short", "\0\x0c", "protocol"],
    ["that of the shortest hello", "\0\x0d", "cut"],
    ["that of the longest", "\0\x4c", "cut"],
    ["that of one too long", "\0\x4d", "protocol"],
    ["half of message 1", "\0\x13innerlock/1 default\0\x30", "cut"],
    ["a long message 1", "\0\x13innerlock/1 default\0\x31", "protocol"],
    ["half a hello", "\0\x13inner", "cut"],
    ["nothing", "", "cut"],
  ] as const
) {
  Deno.test(`acceptChannel: ${name} is ${code}`, async () => {
    const [client, server] = duplex();
    const peer = new RawPeer(client);
    const accepted = assertFails(acceptChannel(server, { psk: PSK }), code);
    await peer.write(new TextEncoder().encode(bytes)).catch(() => {});
    await peer.close().catch(() => {});
    await accepted;
    assertEquals(await peer.readFrame(), undefined);
  });
}

Deno.test("acceptChannel: a first message that is no ping is an error", async () => {
  for (const first of [data, end, new Uint8Array([Type.pong])]) {
    await assertFails(
      rawClient(async (peer, seal) => {
        await peer.write(await sealed(seal, [first]));
      }),
      "protocol",
    );
  }
});

Deno.test("acceptChannel: a first message that cannot be a ping is not read", async () => {
  await assertFails(
    rawClient((peer) => peer.write(new Uint8Array([0, 18]))),
    "protocol",
  );
});

for (const [delta, length] of [[-17, 0], [-1, 16], [0, 17], [1, 18]] as const) {
  Deno.test(`Channel: a frame's length of ${length} (limit ${delta})`, async () => {
    using _pongs = watchTimers(PONG_DELAY);
    // The length alone, then the end of the connection.
    const channel = await rawClient(async (peer, seal) => {
      await peer.write(await sealed(seal, [ping]));
      await peer.write(new Uint8Array([0, length]));
      await peer.close().catch(() => {});
    });
    await assertFails(channel.closed, delta < 0 ? "protocol" : "cut");
  });
}

Deno.test("Channel: each ping is answered by a pong", async () => {
  let pongs = 0;
  const channel = await rawClient(async (peer, seal, open) => {
    await peer.write(await sealed(seal, [ping, ping, ping, end]));
    for (let i = 0; i < 3; i++) {
      const plaintext = await open.decryptWithAd(
        EMPTY,
        (await peer.readFrame())!,
      );
      if (plaintext.length === 1 && plaintext[0] === Type.pong) pongs++;
    }
  });
  assertEquals(pongs, 3);
  channel.abort();
});

Deno.test("Channel: it reads on while it cannot write, though pings came", async () => {
  const heard = Promise.withResolvers<void>();
  const channel = await rawClient(async (peer, seal, open) => {
    const next = async () =>
      (await open.decryptWithAd(EMPTY, (await peer.readFrame())!))[0];
    await peer.write(await sealed(seal, [ping]));
    while (await next() !== Type.pong);
    for (let i = 0; i < 100; i++) {
      await peer.write(await sealed(seal, [ping]));
      while (await next() !== Type.pong);
    }
    // From here on nothing is read: the other side's writes are stuck.
    await peer.write(await sealed(seal, Array(50).fill(ping)));
    await peer.write(await sealed(seal, [data]));
    await heard.promise;
  }, async (server) => {
    server.writable.getWriter().write(new Uint8Array(8_000_000)).catch(
      () => {},
    );
    const { value } = await server.readable.getReader().read();
    assertEquals(value, data.subarray(1));
    heard.resolve();
  });
  channel.abort();
});

Deno.test("Channel: a ping just before the last end is answered", async () => {
  let last: number | undefined;
  const channel = await rawClient(async (peer, seal, open) => {
    await peer.write(await sealed(seal, [ping]));
    const next = async () =>
      (await open.decryptWithAd(EMPTY, (await peer.readFrame())!))[0];
    while (await next() !== Type.end);
    await peer.write(await sealed(seal, [ping, end]));
    last = await next();
    assertEquals(await peer.readFrame(), undefined);
    await peer.close();
  }, (server) => server.writable.close());
  assertEquals((await bytesOf(channel.readable)).length, 0);
  await channel.closed;
  assertEquals(last, Type.pong);
});

Deno.test("Channel: a ping that cannot be written loses nothing that was read", async () => {
  const [client, server] = duplex();
  const transport = toTransport(client);
  let isBroken = false;
  const wrote = Promise.withResolvers<void>();
  const breaking: Transport = {
    read: (p) => transport.read(p),
    closeWrite: () => transport.closeWrite(),
    close: () => transport.close(),
    write: (p) => {
      if (!isBroken) return transport.write(p);
      wrote.resolve();
      return Promise.reject(new Deno.errors.BrokenPipe());
    },
  };
  const [a, b] = await Promise.all([
    connectChannel(breaking, { psk: PSK, idleTimeout: 100 }),
    acceptChannel(server, { psk: PSK, idleTimeout: 0 }),
  ]);
  await a.writable.close();
  const reply = random(100_000);
  await send(b, [reply]);
  // Nobody reads at `a`: it pings, in vain.
  isBroken = true;
  await wrote.promise;
  assertEquals(await bytesOf(a.readable), reply);
  await a.closed;
  b.abort();
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
  const [a, b] = await quietChannels([breaking, server]);
  isBroken = true;
  const writer = a.writable.getWriter();
  writer.write(new Uint8Array(1)).catch(() => {});
  const error = await assertRejects(() => a.closed, ChannelError);
  assertEquals(error.code, "cut");
  assertEquals(error.cause instanceof Deno.errors.BrokenPipe, true);
  await assertFails(writer.closed, "cut");
  await assertFails(b.closed, "cut");
});

Deno.test("Channel: no ping joins one that the peer does not take", async () => {
  const [client, server] = duplex();
  const transport = toTransport(server);
  const write = transport.write.bind(transport);
  let isHeld = false;
  const open = Promise.withResolvers<void>();
  const held: Transport = Object.assign(transport, {
    write: async (p: Uint8Array) => {
      if (isHeld) await open.promise;
      return await write(p);
    },
  });
  const idleTimeout = 1_000_000;
  const received = Promise.withResolvers<void>();
  let pinged = Promise.withResolvers<void>();
  let pings = 0;
  using timers = watchTimers(idleTimeout);
  const [a, b] = await Promise.all([
    connectChannel(client, {
      psk: PSK,
      trace: ({ direction, type }) => {
        if (direction !== "received" || type !== "ping") return;
        pings++;
        pinged.resolve();
      },
    }),
    acceptChannel(held, {
      psk: PSK,
      idleTimeout,
      trace: ({ direction, type }) => {
        if (direction === "received" && type === "data") received.resolve();
      },
    }),
  ]);
  const writer = a.writable.getWriter();
  await writer.write(new Uint8Array(1));
  // What nobody reads makes it deaf: it pings in each interval.
  await received.promise;
  isHeld = true;
  for (let i = 0; i < 5; i++) timers.held.shift()!();
  open.resolve();
  await pinged.promise;
  assertEquals(pings, 1);
  // That one is gone, so the next may go.
  pinged = Promise.withResolvers();
  timers.held.shift()!();
  await pinged.promise;
  await Promise.all([
    writer.close(),
    b.writable.close(),
    bytesOf(a.readable),
    bytesOf(b.readable),
  ]);
  await Promise.all([a.closed, b.closed]);
  assertEquals(pings, 2);
});

Deno.test("Channel: after both ends a peer that still reads may take its time", async () => {
  const idleTimeout = 300;
  let reading: Promise<void>;
  const channel = await rawClient(
    async (peer, seal, open) => {
      await peer.write(await sealed(seal, [ping]));
      const next = async () =>
        (await open.decryptWithAd(EMPTY, (await peer.readFrame())!))[0];
      while (await next() !== Type.end);
      await peer.write(await sealed(seal, [end]));
      reading = (async () => {
        const start = performance.now();
        // Longer than a silent peer is given.
        while (performance.now() - start < 3 * idleTimeout) {
          await new Promise((resolve) => setTimeout(resolve, idleTimeout / 6));
          await peer.write(await sealed(seal, [ping]));
        }
        await peer.close();
      })();
    },
    (server) => server.writable.close(),
    idleTimeout,
  );
  assertEquals((await bytesOf(channel.readable)).length, 0);
  await channel.closed;
  await reading!;
});

Deno.test("Channel: bytes that make no frame are no sign of life", async () => {
  let dripping: Promise<void>;
  const channel = await rawClient(
    async (peer, seal) => {
      await peer.write(await sealed(seal, [ping]));
      await peer.write(new Uint8Array([255, 255]));
      dripping = (async () => {
        while (true) {
          await new Promise((resolve) => setTimeout(resolve, 10));
          await peer.write(new Uint8Array(1));
        }
      })();
    },
    undefined,
    100,
  );
  await assertFails(channel.closed, "timeout");
  await dripping!.catch(() => {});
});

Deno.test("Channel: a peer that never closes after both ends is a timeout", async () => {
  const [client, server] = duplex();
  const endless = new TransformStream<Uint8Array, Uint8Array>();
  client.readable.pipeTo(endless.writable, { preventClose: true })
    .catch(() => {});
  const [a, b] = await Promise.all([
    connectChannel({ ...client, readable: endless.readable }, {
      psk: PSK,
      idleTimeout: 100,
    }),
    acceptChannel(server, { psk: PSK }),
  ]);
  await Promise.all([a.writable.close(), b.writable.close()]);
  await Promise.all([bytesOf(a.readable), bytesOf(b.readable)]);
  const error = await assertRejects(() => a.closed, ChannelError);
  assertEquals([error.code, error.message], [
    "timeout",
    "The peer has been silent for 0.2 s and did not close after both ends",
  ]);
});

for (const [idleTimeout, time] of [[0, 120_000], [1234, 2468]] as const) {
  Deno.test(`Channel: with an idle timeout of ${idleTimeout} the close may take ${time} ms`, async () => {
    using timers = watchTimers();
    const [client, server] = duplex();
    const [a, b] = await Promise.all([
      connectChannel(client, { psk: PSK, idleTimeout }),
      acceptChannel(server, { psk: PSK, idleTimeout }),
    ]);
    await endAll(a, b);
    assertEquals(timers.times.includes(time), true);
  });
}

for (
  const [name, options, ErrorClass] of [
    ["an unknown identity", { psk: PSK, identity: "nobody" }, TypeError],
    ["a malformed key", { psk: "nonsense" }, SyntaxError],
  ] as const
) {
  Deno.test(`connectChannel: ${name} closes the transport`, async () => {
    const [client] = duplex();
    let isClosed = false;
    const transport = Object.assign(toTransport(client), {
      close: () => isClosed = true,
    });
    await assertRejects(() => connectChannel(transport, options), ErrorClass);
    assertEquals(isClosed, true);
  });
}

Deno.test("Channel: after both ends a transport that breaks is no cut", async () => {
  const [client, server] = duplex();
  const breaking = Object.assign(toTransport(server), {
    closeWrite: () => Promise.reject(new Deno.errors.BrokenPipe()),
  });
  const [a, b] = await Promise.all([
    connectChannel(client, { psk: PSK }),
    acceptChannel(breaking, { psk: PSK }),
  ]);
  await Promise.all([
    a.writable.close(),
    b.writable.close(),
    bytesOf(a.readable),
    bytesOf(b.readable),
  ]);
  await b.closed;
  a.abort();
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
    "4 data 010203",
    "5 data 0405",
    "6 data 06",
    "7 end ",
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

Deno.test("Channel: nothing is read ahead of the reader", async () => {
  const arrived = Promise.withResolvers<void>();
  const [client, server] = await channels(
    undefined,
    undefined,
    ({ direction, type }) => {
      if (direction === "received" && type === "data") arrived.resolve();
    },
  );
  const writer = client.writable.getWriter();
  await writer.write(new Uint8Array(5));
  await arrived.promise;
  await new Promise((resolve) => setTimeout(resolve));
  assertEquals([client.bytesSent, server.bytesReceived], [5, 0]);
  await writer.close();
  assertEquals((await bytesOf(server.readable)).length, 5);
  assertEquals(server.bytesReceived, 5);
  await endAll(client, server);
});

for (
  const [name, plaintexts, code, delivered] of [
    ["data after end", [data, end, data], "protocol", "hi"],
    ["a second end", [data, end, end], "protocol", "hi"],
    ["an unknown type", [data, new Uint8Array([4])], "protocol", "hi"],
    ["empty data", [data, new Uint8Array([0])], "protocol", "hi"],
    ["an end with a body", [data, new Uint8Array([1, 0])], "protocol", "hi"],
    ["a ping with a body", [data, new Uint8Array([2, 0])], "protocol", "hi"],
    ["a pong with a body", [data, new Uint8Array([3, 0])], "protocol", "hi"],
    ["a close without end", [data], "cut", "hi"],
    ["a close without end, at once", [], "cut", ""],
  ] as const
) {
  Deno.test(`Channel: ${name} is ${code}`, async () => {
    using _pongs = watchTimers(PONG_DELAY);
    const channel = await rawClient(async (peer, seal) => {
      await peer.write(await sealed(seal, [ping, ...plaintexts]));
      await peer.close();
    });
    let text = "";
    const read = async () => {
      for await (const chunk of channel.readable) {
        text += new TextDecoder().decode(chunk);
      }
    };
    // What was authentic is delivered, then comes the error, unless the stream
    // had already ended: then it is told by `closed` alone.
    await read().catch(() => {});
    assertEquals(text, delivered);
    await assertFails(channel.closed, code);
    await assertFails(channel.writable.getWriter().closed, code);
  });
}

Deno.test("Channel: each flipped bit of a frame is detected", async () => {
  using _pongs = watchTimers(PONG_DELAY);
  for (let bit = 0; bit < 8 * (2 + 2 + 1 + 16); bit++) {
    const channel = await rawClient(async (peer, seal) => {
      await peer.write(await sealed(seal, [ping]));
      const frame = await sealed(seal, [data]);
      frame[bit >> 3]! ^= 1 << (bit & 7);
      await peer.write(frame);
      await peer.close().catch(() => {});
    });
    const reader = channel.readable.getReader();
    const error = await assertRejects(() => reader.read(), ChannelError);
    assertEquals(["protocol", "cut"].includes(error.code), true);
  }
});

Deno.test("Channel: abort is a cut for the peer", async () => {
  const [client, server] = await quietChannels();
  client.abort();
  await assertFails(bytesOf(server.readable), "cut");
  await assertFails(client.closed, "aborted");
  await assertFails(client.readable.getReader().closed, "aborted");
  await assertFails(server.closed, "cut");
});

Deno.test("Channel: cancelling the reader gives the channel up", async () => {
  const [client, server] = await quietChannels();
  await client.readable.cancel();
  await assertFails(client.closed, "aborted");
  await assertFails(server.closed, "cut");
});

Deno.test("Channel: leaving its block early is no end", async () => {
  let peer: Channel;
  {
    const [client, server] = await quietChannels();
    peer = server;
    await using _ = client;
  }
  await assertFails(peer.closed, "cut");
});

Deno.test("Channel: writes that overlap never share a nonce", async () => {
  const seen = new Set<string>();
  let frames = 0;
  const [client, server] = await channels(undefined, undefined, (frame) => {
    if (frame.direction === "received") return;
    frames++;
    seen.add(frame.ciphertext.toHex());
  });
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
  const [client, server] = await quietChannels();
  await client.writable.abort();
  const error = await assertRejects(() => client.closed, ChannelError);
  assertEquals(error.code, "aborted");
  const cut = await assertRejects(() => server.closed, ChannelError);
  assertEquals(cut.code, "cut");
});

Deno.test("connectChannel: a server that lacks the key is refused", async () => {
  const [near, far] = duplex();
  const server = new RawPeer(far);
  const connecting = connectChannel(near, { psk: PSK });
  await server.readFrame();
  await server.readFrame();
  // Well formed, and made without the key.
  const answer = new Uint8Array(50);
  answer[1] = 48;
  answer[2] = 9;
  await server.write(answer);
  const error = await assertRejects(() => connecting, ChannelError);
  assertEquals(error.code, "refused");
  assertEquals(error.message, "The server does not hold the key of default");
});

Deno.test("acceptChannel: a client that goes before its answer is a cut", async () => {
  const [near, far] = duplex();
  const accepting = acceptChannel({
    readable: far.readable,
    writable: new WritableStream({
      write: () => Promise.reject(new Error("gone")),
    }),
  }, { psk: PSK });
  const connecting = connectChannel(near, { psk: PSK, handshakeTimeout: 100 });
  const [error] = await Promise.all([
    assertRejects(() => accepting, ChannelError),
    assertRejects(() => connecting, ChannelError),
  ]);
  assertEquals(error.code, "cut");
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
  const [a, b] = await quietChannels([{ ...near, readable }, far]);
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
