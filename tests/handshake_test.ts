import { assertEquals, assertRejects } from "@std/assert";
import { encodeFrames } from "../lib/lock/frame.ts";
import { Type } from "../lib/lock/message.ts";
import {
  acceptChannel,
  ChannelError,
  connectChannel,
  type Transport,
} from "../lib/mod.ts";
import { HandshakeState } from "../lib/lock/noise.ts";
import { toTransport } from "../lib/lock/transport.ts";
import { assertFails, endAll } from "./channels.ts";
import { duplex, KEY, PSK } from "./duplex.ts";
import { Steps } from "./steps.ts";
import { FakeClock } from "./clock.ts";
import { webCrypto } from "../lib/lock/aes_gcm.ts";

import { pipe, settled } from "./pipe.ts";
import { data, end, open, pong, rawClient, RawPeer } from "./raw_peer.ts";

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

const IDENTITIES = [
  ...["default", "nobody", "default@db", "nobody@db"],
  // What is no identity.
  ...["default@db@web", "default@", "@db", "de fault", "\n", ""],
];

Deno.test("acceptChannel: an unknown identity is heard out, as a wrong key is", async () => {
  for (const identity of IDENTITIES) {
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

Deno.test("handshake: a silent peer meets the time limit", async () => {
  for (const start of [connectChannel, acceptChannel]) {
    const [mine, other] = duplex();
    await assertFails(
      start(mine, { psk: PSK, handshakeTimeout: 50 }),
      "timeout",
    );
    // A client has said its hello and message 1; then it has closed.
    const peer = new RawPeer(other);
    if (start === connectChannel) {
      for (let i = 0; i < 2; i++) await peer.readFrame();
    }
    assertEquals(await peer.readFrame(), undefined);
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
    ["a bad identity", "\0\x13innerlock/1 def ult", "cut"],
    ["no identity", "\0\x0cinnerlock/1 ", "cut"],
    ["an empty frame", "\0\0", "protocol"],
    ["a short message 1", "\0\x13innerlock/1 default\0\x2f", "protocol"],
    ["the length of a hello too short", "\0\x0b", "protocol"],
    ["that of the shortest hello", "\0\x0c", "cut"],
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
  for (const first of [data("hi"), end, pong, open]) {
    await assertFails(rawClient((peer) => peer.say(first)), "protocol");
  }
});

Deno.test("acceptChannel: a first message that cannot be a ping is not read", async () => {
  await assertFails(
    rawClient((peer) => peer.write(new Uint8Array([0, 18]))),
    "protocol",
  );
});

for (
  const [name, options, ErrorClass] of [
    ["an unknown identity", { psk: PSK, identity: "nobody" }, TypeError],
    ["what is none", { psk: PSK, identity: "default@a@b" }, TypeError],
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
  const gone = new AbortController();
  const connecting = connectChannel(near, { psk: PSK, signal: gone.signal });
  await assertFails(accepting, "cut");
  gone.abort();
  await assertRejects(() => connecting, DOMException, "aborted");
});

Deno.test("acceptChannel: it resolves when the stream begins", async () => {
  const [near, far] = duplex();
  let isThere = false;
  const accepting = acceptChannel(far, { psk: PSK }).then((channel) => {
    isThere = true;
    return channel;
  });
  const client = await connectChannel(near, { psk: PSK, standby: true });
  await settled();
  assertEquals(isThere, false);
  await client.open();
  await endAll(client, await accepting);
});

Deno.test("acceptChannel: the time limit is for the proof alone", async () => {
  const clock = new FakeClock();
  const [near, far] = duplex();
  const options = { psk: PSK, handshakeTimeout: 1234, clock };
  const accepting = acceptChannel(far, options);
  assertEquals(clock.left, [1234]);
  const client = await connectChannel(near, { psk: PSK, standby: true });
  await settled();
  clock.pass(1234);
  await client.open();
  await endAll(client, await accepting);
});

Deno.test("acceptChannel: a client that goes before it opens says so", async () => {
  const [near, far] = duplex();
  const accepting = acceptChannel(far, { psk: PSK });
  const client = await connectChannel(near, { psk: PSK, standby: true });
  await settled();
  client.abort();
  await assertFails(accepting, "aborted");
});

Deno.test("acceptChannel: at no step before the stream begins its signal is lost", async () => {
  for (let at = 0, isReached = true; isReached; at++) {
    const [near, far] = duplex();
    const controller = new AbortController();
    const steps = new Steps();
    steps.at(at, () => controller.abort(new RangeError("changed my mind")));
    const accepting = acceptChannel(steps.transport(toTransport(far)), {
      psk: PSK,
      engine: steps.engine(webCrypto),
      signal: controller.signal,
      trace: steps.step,
    });
    accepting.catch(() => {});
    const client = await connectChannel(near, { psk: PSK, standby: true })
      .catch(() => undefined);
    await settled();
    isReached = steps.stop();
    // If it has been lost, this ends the wait.
    client?.abort();
    const error = await assertRejects(() => accepting, Error);
    assertEquals(error instanceof RangeError, isReached, `at step ${at}`);
  }
});

for (
  const [identity, atClient, atServer] of [
    ["alice@db", "alice", "alice"],
    ["alice@db", "alice@db", "alice@db"],
    ["alice@db", "alice@db", "alice"],
    ["alice@db", "alice", "alice@db"],
    ["alice", "alice", "alice"],
  ] as const
) {
  Deno.test(`handshake: ${identity}, the client's line ${atClient}, the server's ${atServer}`, async () => {
    const [near, far] = duplex();
    const ends = await Promise.all([
      connectChannel(near, { psk: `${atClient}:${KEY}`, identity }),
      acceptChannel(far, { psk: `${atServer}:${KEY}` }),
    ]);
    const service = identity === "alice" ? undefined : "db";
    for (const end of ends) {
      assertEquals([end.identity, end.service], [identity, service]);
    }
    await endAll(...ends);
  });
}

Deno.test("handshake: the line of one service opens no other", async () => {
  const other = "0e".repeat(32);
  // The whole identity comes first, though the other key would do.
  for (
    const psk of [`alice@db:${KEY}`, `alice:${KEY}\nalice@web:${other}`]
  ) {
    const [near, far] = duplex();
    await Promise.all([
      assertFails(
        connectChannel(near, { psk: `alice:${KEY}`, identity: "alice@web" }),
        "refused",
      ),
      assertFails(acceptChannel(far, { psk }), "refused"),
    ]);
  }
});

Deno.test("connectChannel: its ping, its open and its first data leave in one write, in standby the ping alone", async () => {
  const handshake = 2 + "innerlock/1 default".length + 2 + 48;
  const message = 2 + 1 + 16;
  for (
    const [standby, data, writes] of [
      [false, "", [handshake, 2 * message]],
      [false, "abc", [handshake, 3 * message + 3]],
      [true, "", [handshake, message]],
      [true, "abc", [handshake, 3 * message + 3]],
    ] as const
  ) {
    const [near, far] = pipe();
    const peer = new RawPeer(far);
    const responding = peer.respond();
    const client = await connectChannel(near, { psk: PSK, standby });
    if (data) client.write(new TextEncoder().encode(data));
    await responding;
    await peer.hearUntil(Type.ping);
    await settled();
    assertEquals(near.writes, [...writes]);
    client.abort();
    // Whoever says bye reads on until its peer has closed.
    far.close();
    await assertFails(client.closed, "aborted");
  }
});
