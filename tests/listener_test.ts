import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { once } from "node:events";
import { connect as connectNode } from "node:net";
import {
  connect,
  type HandshakeReport,
  listen,
  type Listener,
  type ListenOptions,
} from "../lib/deno.ts";
import { type Channel, ChannelError, connectChannel } from "../lib/mod.ts";
import {
  acceptWebSocket,
  connectWebSocket,
} from "../lib/carrier/websocket_handshake.ts";
import { writeAll } from "../lib/lock/transport.ts";
import { ChannelListener } from "../lib/listener.ts";
import { webCrypto } from "../lib/lock/aes_gcm.ts";
import { CLOCK, type Clock } from "../lib/lock/clock.ts";
import { SYSTEM, type System } from "../lib/port.ts";
import { assertFails } from "./channels.ts";
import { FakeClock } from "./clock.ts";
import { KEY, PSK } from "./duplex.ts";
import { pipe, type PipeEnd, settled } from "./pipe.ts";
import { Steps } from "./steps.ts";
import { concat } from "./scripted.ts";
import { encodeFrame, KEY as MASK, Opcode } from "./websocket_frame.ts";
import { callAndReset } from "./plain_peers.ts";
import { pairUnless } from "./pair.ts";
import { MAY_RUN } from "./programs.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";
import { told } from "./told.ts";

const reason = lacksPermissions("net", "run");
const test = (name: string, fn: () => Promise<void>) =>
  testUnless(reason, `Listener: ${name}`, fn);

const pair = await pairUnless(reason);
const otherPair = await pairUnless(reason);

/** A listener that echoes, with what it has reported. */
class Echo implements AsyncDisposable {
  readonly listener: Listener;
  readonly limits: string[] = [];
  readonly reports: HandshakeReport[] = [];
  readonly #serving: Promise<void>;

  constructor(options: Partial<ListenOptions> = {}, system = SYSTEM) {
    this.listener = new ChannelListener({
      port: 0,
      ...pair,
      psk: PSK,
      onLimit: (limit) => this.limits.push(limit),
      onHandshake: (report) => this.reports.push(report),
      ...options,
    }, system);
    this.#serving = this.#serve();
  }

  async dial(cert = pair.cert, identity = "default"): Promise<Channel> {
    const { port } = this.listener.addr;
    return await connect({ port, caCerts: [cert], psk: PSK, identity });
  }

  async #serve(): Promise<void> {
    const serving: Promise<void>[] = [];
    for await (const channel of this.listener) {
      serving.push(
        channel.readable.pipeTo(channel.writable)
          .then(() => channel.closed).catch(() => {}),
      );
    }
    await Promise.all(serving);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.listener.close();
    await this.#serving;
  }
}

async function say(channel: Channel, text: string): Promise<void> {
  const sent = new Blob([text]).stream().pipeTo(channel.writable);
  assertEquals(await new Response(channel.readable).text(), text);
  await sent;
  await channel.closed;
}

test("reload: the next client meets the other certificate and keys", async () => {
  await using echo = new Echo();
  const live = await echo.dial();
  await echo.listener.reload({ ...otherPair, psk: `default:${KEY}` });
  const refusal = await assertRejects(() => echo.dial(), ChannelError);
  assertEquals(refusal.code, "untrusted");
  const unknown = await assertRejects(
    () => echo.dial(otherPair.cert, "alice"),
    ChannelError,
  );
  assertEquals(unknown.code, "refused");
  await say(live, "still here");
  await echo.listener.reload({ ...otherPair, psk: PSK });
  await say(await echo.dial(otherPair.cert, "alice"), "back");
});

test("reload: who has lost the key, or has another, is cut; others live on", async () => {
  const psk = `${PSK}bob:${KEY}\n`;
  using listener = listen({ port: 0, ...pair, psk });
  const { port } = listener.addr;
  const server = new Map<string, Channel>();
  const client = new Map<string, Channel>();
  for (const identity of ["default", "alice", "bob"]) {
    const options = { port, caCerts: [pair.cert], psk, identity };
    client.set(identity, await connect(options));
    server.set(identity, await listener.accept());
  }
  const untaken = await connect({ port, caCerts: [pair.cert], psk });
  await listener.reload({ ...pair, psk: `alice:${KEY}\nbob:${KEY}` });
  for (const identity of ["default", "alice"]) {
    const { closed } = server.get(identity)!;
    const error = await assertRejects(() => closed, ChannelError);
    assertEquals(error.code, "revoked");
    const seen = await assertRejects(
      () => client.get(identity)!.closed,
      ChannelError,
    );
    assertEquals(seen.code, "revoked");
  }
  await assertRejects(() => untaken.closed, ChannelError);
  const bob = server.get("bob")!;
  const echoing = bob.readable.pipeTo(bob.writable);
  await say(client.get("bob")!, "still here");
  await echoing;
});

test("reload: who proves a key that is revoked meanwhile is not let in", async () => {
  const reports: HandshakeReport[] = [];
  using listener = listen({
    port: 0,
    tls: false,
    psk: PSK,
    onHandshake: (report) => reports.push(report),
    trace: ({ direction, type }) => {
      if (direction !== "received" || type !== "ping") return;
      listener.reload({ psk: `alice:${KEY}` });
    },
  });
  const conn = await Deno.connect({ ...listener.addr, transport: "tcp" });
  const client = await connectChannel(conn, { psk: PSK });
  assertEquals(
    (await assertRejects(() => client.closed, ChannelError)).code,
    "revoked",
  );
  await listener.shutdown();
  assertEquals(reports.map(({ error }) => (error as ChannelError).code), [
    "revoked",
  ]);
});

test("reload: of several at once the last one counts, on the same port", async () => {
  await using echo = new Echo();
  for (let round = 0; round < 10; round++) {
    await Promise.all([
      echo.listener.reload({ ...otherPair, psk: `default:${KEY}` }),
      echo.listener.reload({ ...pair, psk: PSK }),
    ]);
    await say(await echo.dial(pair.cert, "alice"), "the last one's");
    await Promise.all([
      echo.listener.reload({ ...otherPair, psk: PSK }),
      echo.listener.reload({ ...otherPair, psk: `default:${KEY}` }),
    ]);
    await say(await echo.dial(otherPair.cert), "the last one's");
    await echo.listener.reload({ ...pair, psk: PSK });
  }
});

test("reload: what is broken changes nothing", async () => {
  await using echo = new Echo();
  const { cert, key } = pair;
  for (
    const [credentials, ErrorClass] of [
      [{ cert, key, psk: "nonsense" }, SyntaxError],
      [{ cert: "nonsense", key, psk: PSK }, Deno.errors.InvalidData],
      [{ cert, key: otherPair.key, psk: PSK }, Error],
    ] as const
  ) {
    await assertRejects(() => echo.listener.reload(credentials), ErrorClass);
    await say(await echo.dial(), "still the same");
  }
});

test("connect, listen, reload: a key that is none is an error at once", async () => {
  await using echo = new Echo();
  for (
    const [key, ErrorClass] of [
      ...[0, 1, 16, 33, 1000].map((length) =>
        [new Uint8Array(length), RangeError] as const
      ),
      ...[KEY, undefined, Array(32).fill(15)].map((key) =>
        [key as unknown as Uint8Array, TypeError] as const
      ),
    ]
  ) {
    const psk = new Map([["default", Uint8Array.fromHex(KEY)], ["alice", key]]);
    assertThrows(() => listen({ port: 0, ...pair, psk }), ErrorClass, "alice");
    const reloading = echo.listener.reload({ ...otherPair, psk });
    await assertRejects(() => reloading, ErrorClass, "alice");
    // Nobody listens there: it is not even tried.
    const connecting = connect({ port: 1, psk });
    await assertRejects(() => connecting, ErrorClass, "alice");
  }
  for (const identity of ["default@a@b", "default@", "", "nobody"]) {
    await assertRejects(
      () => connect({ port: 1, psk: PSK, identity }),
      TypeError,
    );
  }
  await say(await echo.dial(), "still the same");
});

test("connect, listen, reload: a caller that wipes its keys changes nothing", async () => {
  const maps: Map<string, Uint8Array>[] = [];
  const keys = (): Map<string, Uint8Array> => {
    const key = new Uint8Array(new SharedArrayBuffer(32));
    key.set(Uint8Array.fromHex(KEY));
    maps.push(new Map([["default", key]]));
    return maps.at(-1)!;
  };
  const wipe = () => {
    for (const map of maps) {
      for (const key of map.values()) key.fill(0);
      map.clear();
    }
  };
  await using echo = new Echo({ psk: keys() });
  wipe();
  const { port } = echo.listener.addr;
  const connecting = connect({ port, caCerts: [pair.cert], psk: keys() });
  wipe();
  const live = await connecting;
  const reloading = echo.listener.reload({ ...pair, psk: keys() });
  wipe();
  await reloading;
  await say(live, "the same key");
  await say(await echo.dial(), "still");
});

test("reload: a client that waits to be accepted meanwhile gets in", async () => {
  await using echo = new Echo({ maxConnections: 1 });
  const first = await echo.dial();
  const reloading = echo.listener.reload({ ...otherPair, psk: PSK });
  await reloading;
  const waiting = echo.dial(otherPair.cert);
  await say(first, "first");
  await say(await waiting, "second");
});

test("maxConnections: the next is handed out when one has left", async () => {
  const told = Promise.withResolvers<string>();
  using listener = listen({
    port: 0,
    ...pair,
    psk: PSK,
    maxConnections: 1,
    onLimit: told.resolve,
  });
  const options = {
    port: listener.addr.port,
    caCerts: [pair.cert],
    psk: PSK,
  };
  const clients = [1, 2, 3].map(() => connect(options));
  const first = await listener.accept();
  let hasLeft = false;
  const second = listener.accept().then((channel) => {
    assertEquals(hasLeft, true);
    return channel;
  });
  // One that has proved its key waits.
  assertEquals(await told.promise, "connections");
  hasLeft = true;
  first.abort();
  (await second).abort();
  (await listener.accept()).abort();
  await Promise.all(clients);
});

test("maxConnections: one in standby is the first to go, but not at once", async () => {
  let proved = Promise.withResolvers<void>();
  await using echo = new Echo({
    maxConnections: 1,
    onHandshake: () => proved.resolve(),
  });
  const { port } = echo.listener.addr;
  const options = { port, caCerts: [pair.cert], psk: PSK };
  // The next one comes before the first has begun its stream.
  const first = await connect({ ...options, standby: true });
  await proved.promise;
  const second = await connect(options);
  await say(first, "it was about to");
  await say(second, "then the next");
  proved = Promise.withResolvers();
  const idle = await connect({ ...options, standby: true });
  await proved.promise;
  await say(await connect(options), "for whom it goes");
  const error = await assertRejects(() => idle.closed, ChannelError);
  assertEquals(error.code, "limit");
});

test("maxConnections: who proves nothing takes no place", async () => {
  await using echo = new Echo({ maxConnections: 1 });
  const { port } = echo.listener.addr;
  const stalled = await Promise.all(
    [1, 2, 3].map(() => Deno.connect({ port, hostname: "127.0.0.1" })),
  );
  await say(await echo.dial(), "honest");
  assertEquals(echo.reports.map(({ error }) => error), [undefined]);
  for (const conn of stalled) conn.close();
});

test("maxHandshakes: a burst of honest clients loses nobody", async () => {
  const { listener, reports } = standby({ maxHandshakes: 8 });
  const conns = await Promise.all(
    Array.from(
      { length: 32 },
      () => Deno.connect({ ...listener.addr, transport: "tcp" }),
    ),
  );
  const clients = await Promise.all(
    conns.map((conn) => connectChannel(conn, { psk: PSK })),
  );
  for (const _ of clients) (await listener.accept()).abort();
  await Promise.all(clients.map(codeOfClosed));
  assertEquals(reports, clients.map(() => undefined));
  listener.close();
});

test("maxHandshakes: the oldest makes room at once", async () => {
  await using echo = new Echo({ maxHandshakes: 1 });
  const { port } = echo.listener.addr;
  const stalled = await Promise.all(
    [1, 2, 3, 4, 5].map(() => Deno.connect({ port, hostname: "127.0.0.1" })),
  );
  await say(await echo.dial(), "honest");
  assertEquals(echo.limits, ["handshakes"]);
  const errors = echo.reports.map(({ error }) => error as ChannelError);
  assertEquals(errors.map((error) => error?.code), [
    "limit",
    "limit",
    undefined,
  ]);
  for (const conn of stalled) conn.close();
});

testUnless(
  lacksPermissions(...MAY_RUN),
  "listen: connections that are reset in the queue hold up nobody",
  async () => {
    for (const tls of [true, false]) {
      await using echo = new Echo({ tls });
      const { port } = echo.listener.addr;
      callAndReset(port, 20);
      const client = tls ? await echo.dial() : await connectChannel(
        await Deno.connect({ hostname: "127.0.0.1", port }),
        { psk: PSK },
      );
      await say(client, "hello");
      assertEquals(echo.limits, []);
    }
  },
);

test("onHandshake: is told of those that succeed too", async () => {
  await using echo = new Echo();
  await say(await echo.dial(), "hello");
  const [{ duration, error, remoteAddr }] = echo.reports as [HandshakeReport];
  assertEquals(duration > 0, true);
  assertEquals(error, undefined);
  assertEquals(remoteAddr.hostname, "127.0.0.1");
});

test("shutdown: a handshake under way may finish", async () => {
  const echo = new Echo();
  const { port } = echo.listener.addr;
  const conn = await Deno.connectTls({
    hostname: "localhost",
    port,
    caCerts: [pair.cert],
  });
  await conn.handshake();
  echo.listener.shutdown();
  await assertRejects(() => echo.dial(), Error);
  await say(await connectChannel(conn, { psk: PSK }), "just in time");
  await echo[Symbol.asyncDispose]();
});

test("tls: false leaves the outer lock out", async () => {
  await using echo = new Echo({ tls: false });
  const { port } = echo.listener.addr;
  const conn = await Deno.connect({ port, hostname: "127.0.0.1" });
  await say(await connectChannel(conn, { psk: PSK }), "one lock");
});

test("without a certificate it takes an explicit tls: false", () => {
  const { cert, key } = pair;
  for (const half of [{}, { cert }, { key }]) {
    assertThrows(
      () => listen({ port: 0, psk: PSK, ...half }),
      TypeError,
      "without a certificate and its key",
    );
  }
  return Promise.resolve();
});

test("a client that offers another ALPN protocol only is let in", async () => {
  await using echo = new Echo();
  const { port } = echo.listener.addr;
  const conn = await Deno.connectTls({
    hostname: "localhost",
    port,
    caCerts: [pair.cert],
    alpnProtocols: ["h2"],
  });
  await conn.handshake();
  await say(await connectChannel(conn, { psk: PSK }), "through a proxy");
});

for (const said of ["", "\0", "GET / HT", "PROXY TCP4 "]) {
  test(`a client that breaks off after ${JSON.stringify(said)} is cut`, async () => {
    const told = Promise.withResolvers<HandshakeReport>();
    const proxyProtocol = said.startsWith("PROXY");
    await using echo = new Echo({
      tls: false,
      proxyProtocol,
      isProxy: () => true,
      onHandshake: told.resolve,
    });
    const { hostname: host, port } = echo.listener.addr;
    const socket = connectNode({ host, port });
    await once(socket, "connect");
    await new Promise<unknown>((resolve) => socket.write(said, resolve));
    socket.resetAndDestroy();
    const { error } = await told.promise;
    assertEquals((error as ChannelError).code, "cut", `${error}`);
  });
}

test("shutdown: a reload under way opens nothing any more, at whatever step", async () => {
  for (let at = 0, isReached = true; isReached; at++) {
    const steps = new Steps();
    const system: System = {
      clock: {
        ...CLOCK,
        after: (time, callback) => {
          steps.step();
          return CLOCK.after(time, () => {
            steps.step();
            callback();
          });
        },
      },
      listenTls: (options) => {
        steps.step();
        return SYSTEM.listenTls(options);
      },
    };
    const echo = new Echo({}, system);
    steps.at(at, () => echo.listener.shutdown());
    await echo.listener.reload({ ...otherPair, psk: PSK });
    isReached = steps.stop();
    if (!isReached) echo.listener.shutdown();
    const { ConnectionRefused } = Deno.errors;
    await assertRejects(() => echo.dial(otherPair.cert), ConnectionRefused);
    await echo.listener.reload({ ...pair, psk: PSK });
    await assertRejects(() => echo.dial(), ConnectionRefused);
    await echo[Symbol.asyncDispose]();
  }
});

test("reload: a port that is lost is told, and live channels live on", async () => {
  const echo = new Echo({}, {
    ...SYSTEM,
    listenTls: (options) => {
      if (options.port === 0) return SYSTEM.listenTls(options);
      throw new Deno.errors.AddrInUse();
    },
  });
  const live = await echo.dial();
  await assertRejects(
    () => echo.listener.reload({ ...otherPair, psk: PSK }),
    Deno.errors.AddrInUse,
  );
  await say(live, "still here");
  await echo[Symbol.asyncDispose]();
});

/** A system whose listeners accept so, told which of them it is. */
function accepting(
  accept: (
    real: () => Promise<Deno.TlsConn>,
    opened: number,
  ) => Promise<Deno.TlsConn>,
): System {
  let count = 0;
  const listenTls = ((options) => {
    const listener = SYSTEM.listenTls(options);
    const real = listener.accept.bind(listener);
    const opened = count++;
    listener.accept = () => accept(real, opened);
    return listener;
  }) as System["listenTls"];
  return { ...SYSTEM, listenTls };
}

/** A listener in memory, by a clock that stands still, and its clients. */
function inMemory(options: Partial<ListenOptions> = {}) {
  const clock = new FakeClock();
  const coming: PipeEnd[] = [];
  const accepted: PipeEnd[] = [];
  const state = { isShort: false, isClosed: false };
  let change = Promise.withResolvers<void>();
  const set = (to: Partial<typeof state>) => {
    Object.assign(state, to);
    change.resolve();
    change = Promise.withResolvers();
  };
  const remoteAddr = { transport: "tcp", hostname: "192.0.2.1", port: 1 };
  const accept = async () => {
    while (true) {
      if (state.isClosed) throw new Deno.errors.BadResource();
      if (state.isShort) throw new Error("Too many open files (os error 24)");
      const conn = coming.shift();
      if (conn) {
        accepted.push(conn);
        return Object.assign(conn, { remoteAddr, setNoDelay: () => {} });
      }
      await change.promise;
    }
  };
  const close = () => set({ isClosed: true });
  const port = { addr: remoteAddr, accept, close };
  const listenTls = (() => port) as unknown as System["listenTls"];
  const listener = new ChannelListener({
    ...{ port: 0, cert: "", key: "", psk: PSK },
    ...options,
  }, { clock, listenTls });
  /** @param closes Whether the client closes when it is told to go. */
  const dial = async (
    options: { standby?: boolean; offer?: boolean; identity?: string },
    closes = true,
  ) => {
    const [near, far] = pipe();
    if (!closes) far.close = () => {};
    coming.push(near);
    set({});
    // Its clock is the runtime's.
    return await connectChannel(far, { ...options, psk: PSK, idleTimeout: 0 });
  };
  return { clock, listener, accepted, dial, set };
}

test("when descriptors run out it says so once, and accepts again", async () => {
  let failures = 0;
  const system = accepting(async (real) => {
    if (failures++ < 2) throw new Error("Too many open files (os error 24)");
    return await real();
  });
  await using echo = new Echo({}, system);
  await say(await echo.dial(), "hello");
  assertEquals(echo.limits, ["descriptors"]);
  assertEquals(failures > 2, true);
});

Deno.test("Listener: when descriptors run out it sheds no more while those that it shed are leaving", async () => {
  const { clock, listener, dial, set } = inMemory();
  const clients: Channel[] = [];
  let gone = 0;
  for (let i = 0; i < 8; i++) {
    const client = await dial({ standby: true }, false);
    await client.confirmed;
    client.opened.catch(() => gone++);
    clients.push(client);
  }
  const areGone = async (...some: Channel[]) => {
    for (const { opened } of some) await assertFails(opened, "limit");
  };
  set({ isShort: true });
  await areGone(...clients.slice(0, 2));
  await settled();
  for (let time = 0; time < 900; time += 100) {
    assertEquals(gone, 2);
    clock.pass(100);
    await settled();
  }
  clock.pass(200);
  await areGone(...clients.slice(2, 4));
  assertEquals(gone, 4);
  listener.close();
  await settled();
  clock.pass(1000);
  await listener.shutdown();
});

test("reload: an accept that fails late is of the listener before", async () => {
  const late = Promise.withResolvers<void>();
  const system = accepting(async (real, opened) => {
    try {
      return await real();
    } catch (error) {
      if (opened === 0) await late.promise;
      throw error;
    }
  });
  await using echo = new Echo({}, system);
  await say(await echo.dial(), "before");
  await echo.listener.reload({ ...otherPair, psk: PSK });
  late.resolve();
  await say(await echo.dial(otherPair.cert), "after");
  assertEquals(echo.limits, []);
});

test("reload: with the same pair the port stays open", async () => {
  const accepted = new Set<number>();
  const system = accepting((real, opened) => {
    accepted.add(opened);
    return real();
  });
  await using echo = new Echo({}, system);
  const psk = `alice:${KEY}`;
  await echo.listener.reload({ ...pair, psk });
  const refusal = await assertRejects(() => echo.dial(), ChannelError);
  assertEquals(refusal.code, "refused");
  assertEquals(accepted.size, 1);
  // Another pair opens it anew, and is the same the next time.
  for (const psk of [PSK, `alice:${KEY}`, PSK]) {
    await echo.listener.reload({ ...otherPair, psk });
  }
  await say(await echo.dial(otherPair.cert), "the other");
  assertEquals(accepted.size, 2);
  // So is one of which a half is another.
  await echo.listener.reload({
    ...otherPair,
    cert: otherPair.cert + "\n",
    psk: PSK,
  });
  await say(await echo.dial(otherPair.cert), "the other");
  assertEquals(accepted.size, 3);
});

test("close: handshakes under way are dropped, and nothing is told", async () => {
  const echo = new Echo({
    // Deno keeps what is stalled inside TLS open until its peer goes.
    tls: false,
    maxConnections: 1,
    handshakeTimeout: 60_000,
  });
  const { port } = echo.listener.addr;
  const conns = await Promise.all(
    [1, 2].map(() => Deno.connect({ port, hostname: "127.0.0.1" })),
  );
  // One is silent, the other in the middle of a request.
  await conns[1]!.write(new TextEncoder().encode("GET / HT"));
  await say(
    await connectChannel(await Deno.connect({ port, hostname: "127.0.0.1" }), {
      psk: PSK,
    }),
    "they have been accepted before",
  );
  await echo[Symbol.asyncDispose]();
  for (const conn of conns) {
    assertEquals(await conn.read(new Uint8Array(1)).catch(() => null), null);
    conn.close();
  }
  assertEquals(echo.reports.length, 1);
});

test("shutdown: resolves when the last channel has ended", async () => {
  const listener = listen({ port: 0, ...pair, psk: PSK });
  const { port } = listener.addr;
  const options = { port, caCerts: [pair.cert], psk: PSK };
  const clients = [await connect(options), await connect(options)];
  const taken = await listener.accept();
  let isDown = false;
  const down = listener.shutdown().then(() => isDown = true);
  await assertRejects(() => connect(options), Error);
  // The second one may still be taken.
  const second = await listener.accept();
  taken.abort();
  await assertRejects(() => taken.closed, ChannelError);
  assertEquals(isDown, false);
  second.abort();
  await down;
  await assertRejects(() => listener.accept(), Deno.errors.BadResource);
  await Promise.all(
    clients.map((client) => assertRejects(() => client.closed, ChannelError)),
  );
  await listen({ port: 0, ...pair, psk: PSK }).shutdown();
});

test("onHandshake, onLimit: what they throw disturbs nobody, and is told", async () => {
  const failures = [new Error("onHandshake"), new Error("onLimit")] as const;
  const errors = await told(async () => {
    await using echo = new Echo({
      maxHandshakes: 1,
      onHandshake: () => {
        throw failures[0];
      },
      onLimit: () => Promise.reject(failures[1]),
    });
    const { port } = echo.listener.addr;
    const stalled = await Promise.all(
      [1, 2, 3, 4].map(() => Deno.connect({ port, hostname: "127.0.0.1" })),
    );
    await say(await echo.dial(), "one");
    await say(await echo.dial(), "another");
    for (const conn of stalled) conn.close();
  });
  // A stalled one, and the two that it made room for.
  assertEquals(errors.filter((error) => error === failures[0]).length, 3);
  assertEquals(errors.filter((error) => error === failures[1]).length, 1);
});

test("close: at no step of a handshake it leaves a channel behind", async () => {
  for (let at = 0, isReached = true; isReached; at++) {
    const steps = new Steps();
    const reported = Promise.withResolvers<void>();
    // What is left behind stays: no time passes for it.
    const system = { ...SYSTEM, clock: new FakeClock() };
    const listener = new ChannelListener({
      port: 0,
      tls: false,
      psk: PSK,
      engine: steps.engine(webCrypto),
      trace: steps.step,
      hasService: () => {
        steps.step();
        return true;
      },
      onHandshake: () => {
        steps.step();
        reported.resolve();
      },
    }, system);
    const { addr } = listener;
    steps.at(at, () => {
      listener.close();
      reported.resolve();
    });
    const conn = await Deno.connect({ ...addr, transport: "tcp" });
    const connecting = connectChannel(conn, { psk: PSK, standby: true });
    const client = await connecting.catch(() => undefined);
    await reported.promise;
    isReached = steps.stop();
    if (!isReached) listener.close();
    const forgotten = setTimeout(() => client?.abort(), 5000);
    // What finished before is there, and what did not is gone.
    for await (const channel of listener) channel.abort();
    clearTimeout(forgotten);
    if (!client) continue;
    const error = await assertRejects(() => client.closed, ChannelError);
    // Before the proof nothing is said.
    const codes = ["cut", "stopping"];
    assert(codes.includes(error.code), `at step ${at}: ${error.code}`);
  }
});

test("a channel that is gone before it is taken is not given", async () => {
  const listener = listen({ port: 0, ...pair, psk: PSK, maxConnections: 1 });
  const dial = (identity: string) =>
    connect({
      port: listener.addr.port,
      caCerts: [pair.cert],
      psk: PSK,
      identity,
    });
  (await dial("default")).abort();
  // There is room for this one when the first has gone.
  const second = await dial("alice");
  for await (const channel of listener) {
    assertEquals(channel.identity, "alice");
    channel.abort();
    break;
  }
  await assertRejects(() => second.closed, ChannelError);
});

test("using: leaving the block closes it", async () => {
  let port: number;
  {
    using listener = listen({ port: 0, ...pair, psk: PSK });
    port = listener.addr.port;
  }
  await assertRejects(
    () => Deno.connect({ port, hostname: "127.0.0.1" }),
    Deno.errors.ConnectionRefused,
  );
});

test("idleTimeout, trace: are those of its channels", async () => {
  const times: number[] = [];
  const clock: Clock = {
    ...CLOCK,
    after: (time, callback) => {
      times.push(time);
      return CLOCK.after(time, callback);
    },
  };
  const seen = new Set<string>();
  await using echo = new Echo({
    idleTimeout: 123_456,
    trace: ({ direction, type }) => seen.add(`${direction} ${type}`),
  }, { ...SYSTEM, clock });
  await say(await echo.dial(), "hello");
  assertEquals(times.includes(123_456), true);
  for (const what of ["received hello", "sent noise", "sent data"]) {
    assertEquals(seen.has(what), true, what);
  }
});

/** Clients of a listener without TLS, and what the listener reports. */
function standby(options: Partial<ListenOptions> = {}, clock: Clock = CLOCK) {
  const reports: (string | undefined)[] = [];
  let reported = Promise.withResolvers<void>();
  const listener = new ChannelListener({
    port: 0,
    tls: false,
    psk: PSK,
    onHandshake: ({ error }) => {
      reports.push(error === undefined ? undefined : codeOf(error));
      reported.resolve();
      reported = Promise.withResolvers();
    },
    ...options,
  }, { ...SYSTEM, clock });
  const dial = async (identity = "default", standby = true) => {
    const { promise } = reported;
    const conn = await Deno.connect({ ...listener.addr, transport: "tcp" });
    const client = await connectChannel(conn, { psk: PSK, identity, standby });
    // The server is where the client is.
    await promise;
    return client;
  };
  return { listener, dial, reports };
}

const codeOf = (error: unknown) =>
  error instanceof ChannelError ? error.code : String(error);

async function codeOfClosed({ closed }: Channel): Promise<string> {
  return codeOf(await assertRejects(() => closed, Error));
}

/** Says nothing, over and over, as long as it is heard. */
async function sayNothing(conn: Deno.Conn, key?: Uint8Array): Promise<void> {
  const empty = encodeFrame({
    ...{ opcode: Opcode.binary, payload: new Uint8Array(0), key },
  });
  const many = concat(Array(1000).fill(empty));
  try {
    while (true) await writeAll(conn, many);
  } catch {
    // The other side has closed it.
  }
  conn.close();
}

test("a stranger in a WebSocket may not say much", async () => {
  const refused = Promise.withResolvers<HandshakeReport>();
  await using echo = new Echo({ onHandshake: refused.resolve });
  const { port } = echo.listener.addr;
  const hostname = "localhost";
  const caCerts = [pair.cert];
  const conn = await Deno.connectTls({ hostname, port, caCerts });
  await connectWebSocket(conn, { host: "localhost" });
  await sayNothing(conn, MASK);
  const { error } = await refused.promise;
  assertEquals((error as ChannelError).code, "protocol");
});

test("connect: nor may a box that opens a WebSocket", async () => {
  using box = Deno.listenTls({ port: 0, hostname: "127.0.0.1", ...pair });
  const { port } = box.addr;
  const options = { port, caCerts: [pair.cert], psk: PSK, websocket: true };
  const connecting = assertRejects(() => connect(options), ChannelError);
  const conn = await box.accept();
  await acceptWebSocket(conn);
  await sayNothing(conn);
  assertEquals((await connecting).code, "protocol");
});

test("health checks are answered, and nobody is told of them", async () => {
  for (const tls of [true, false]) {
    const reports: HandshakeReport[] = [];
    const listener = listen({
      ...{ port: 0, ...pair, psk: PSK, tls },
      onHandshake: (report) => reports.push(report),
    });
    const { port } = listener.addr;
    const dial = async () =>
      tls
        ? await Deno.connectTls({
          hostname: "localhost",
          port,
          caCerts: [pair.cert],
        })
        : await Deno.connect({ port });
    const ask = async (conn: Deno.Conn, request: string) => {
      const head = `${request} HTTP/1.1\r\nHost: a\r\n\r\n`;
      await conn.write(new TextEncoder().encode(head));
      return (await new Response(conn.readable).text()).split("\r\n")[0];
    };
    for (const request of ["GET /healthz", "HEAD /", "OPTIONS *"]) {
      assertEquals(await ask(await dial(), request), "HTTP/1.1 200 OK");
    }
    const late = await dial();
    // It is past the listener's queue when it has begun.
    await late.write(new TextEncoder().encode("G"));
    await ask(await dial(), "HEAD /");
    const down = listener.shutdown();
    assertEquals(
      await ask(late, "ET /healthz"),
      "HTTP/1.1 503 Service Unavailable",
    );
    await down;
    assertEquals(reports, []);
  }
});

test("standby: a client is handed out when it opens", async () => {
  const { listener, dial, reports } = standby();
  const [first, second] = [await dial("alice"), await dial()];
  // Its proof is what is reported.
  assertEquals(reports, [undefined, undefined]);
  await second.open();
  const channel = await listener.accept();
  assertEquals(channel.identity, "default");
  await first.open();
  const other = await listener.accept();
  assertEquals(other.identity, "alice");
  listener.close();
  for (const live of [channel, other]) live.abort();
  await Promise.all([first, second].map(codeOfClosed));
});

test("standby: a shutdown closes those that have not opened, and no others", async () => {
  const { listener, dial } = standby();
  const [idle, live] = [await dial(), await dial("alice", false)];
  const channel = await listener.accept();
  let isDown = false;
  const down = listener.shutdown().then(() => isDown = true);
  assertEquals(await codeOfClosed(idle), "stopping");
  await assertRejects(() => listener.accept(), Deno.errors.BadResource);
  assertEquals(isDown, false);
  const echoing = channel.readable.pipeTo(channel.writable);
  await say(live, "still here");
  await echoing;
  await down;
});

test("standby: who proves a key after the shutdown may say its first words for a second", async () => {
  for (const opens of [true, false]) {
    const clock = new FakeClock();
    const seconds = () => clock.left.filter((time) => time === 1000).length;
    const { listener, dial } = standby({
      trace: ({ direction, type }) => {
        if (direction === "received" && type === "hello") listener.shutdown();
      },
    }, clock);
    const client = await dial();
    assertEquals(seconds(), 1);
    if (opens) {
      await client.open();
      const channel = await listener.accept();
      assertEquals(seconds(), 0);
      const echoing = channel.readable.pipeTo(channel.writable);
      await say(client, "just in time");
      await echoing;
    } else {
      clock.pass(1000);
      assertEquals(await codeOfClosed(client), "stopping");
    }
    await listener.shutdown();
  }
});

test("standby: close() drops those that have not opened", async () => {
  const { listener, dial } = standby();
  const idle = await dial();
  listener.close();
  assertEquals(await codeOfClosed(idle), "stopping");
  await assertRejects(() => listener.accept(), Deno.errors.BadResource);
});

test("standby: it counts, and the oldest makes room for who proves a key", async () => {
  const limits: string[] = [];
  const { listener, dial } = standby({
    maxConnections: 3,
    onLimit: (limit) => limits.push(limit),
  });
  const live = await dial("default", false);
  const channel = await listener.accept();
  const idle = [await dial(), await dial()];
  assertEquals(limits, []);
  idle.push(await dial());
  assertEquals(await codeOfClosed(idle[0]!), "limit");
  // Nobody waits.
  assertEquals(limits, []);
  // One that wants to talk at once is served as well.
  const talking = await dial("alice", false);
  assertEquals(await codeOfClosed(idle[1]!), "limit");
  const other = await listener.accept();
  assertEquals(other.identity, "alice");
  // The newest may still open.
  await idle[2]!.open();
  const third = await listener.accept();
  listener.close();
  for (const live of [channel, other, third]) live.abort();
  await Promise.all([live, talking, idle[2]!].map(codeOfClosed));
});

test("standby: who proves nothing takes no place", async () => {
  const { listener, dial, reports } = standby({
    maxConnections: 2,
    maxHandshakes: 1,
  });
  const idle = [await dial(), await dial()];
  const strangers: Deno.TcpConn[] = [];
  for (let i = 0; i < 8; i++) {
    const conn = await Deno.connect({ ...listener.addr, transport: "tcp" });
    strangers.push(conn);
    await conn.write(new Uint8Array([0]));
  }
  // All but the latest have made room by now.
  for (const conn of strangers.slice(0, 4)) {
    assertEquals(await conn.read(new Uint8Array(1)).catch(() => null), null);
  }
  assertEquals(reports.filter((code) => code === "limit").length, 4);
  for (const client of idle) {
    await client.open();
    (await listener.accept()).abort();
    await codeOfClosed(client);
  }
  listener.close();
  for (const conn of strangers) conn.close();
});

test("maxPerClient: its own in standby make room, and then there is none for it", async () => {
  const limits: string[] = [];
  const { listener, dial, reports } = standby({
    maxPerClient: 2,
    onLimit: (limit) => limits.push(limit),
  });
  // What it asks for is no matter.
  const idle = [await dial("alice"), await dial("alice@db")];
  const other = await dial();
  const live = await dial("alice@web", false);
  assertEquals(await codeOfClosed(idle[0]!), "limit");
  const channels = [await listener.accept()];
  await idle[1]!.open();
  channels.push(await listener.accept());
  assertEquals(await codeOfClosed(await dial("alice")), "limit");
  assertEquals(reports, [undefined, undefined, undefined, undefined, "limit"]);
  // Others have room, and so has this one when another has left.
  await other.open();
  (await listener.accept()).abort();
  channels.shift()!.abort();
  await Promise.all([other, live].map(codeOfClosed));
  const late = await dial("alice", false);
  channels.push(await listener.accept());
  for (const channel of channels) channel.abort();
  await Promise.all([late, idle[1]!].map(codeOfClosed));
  assertEquals(limits, []);
  await listener.shutdown();
});

Deno.test("Listener: maxPerClient: those that are refused and do not close are bounded", async () => {
  const reports: (string | undefined)[] = [];
  const { clock, listener, accepted, dial } = inMemory({
    ...{ maxPerClient: 1, maxHandshakes: 1 },
    onHandshake: ({ error }) => reports.push((error as ChannelError)?.code),
  });
  const live = await dial({});
  const channel = await listener.accept();
  for (let i = 0; i < 8; i++) {
    const client = await dial({ standby: true }, false);
    await assertRejects(() => client.opened, ChannelError);
  }
  await settled();
  assertEquals(reports, [undefined, ...Array(8).fill("limit")]);
  // The one that lives, and a burst of four.
  assertEquals(accepted.filter(({ isClosed }) => !isClosed).length, 5);
  let isDown = false;
  const down = listener.shutdown().then(() => isDown = true);
  channel.abort();
  await assertRejects(() => live.closed, ChannelError);
  await settled();
  assertEquals(isDown, false);
  clock.pass(1000);
  await down;
});

Deno.test("Listener: maxConnections: those that made room and do not close are bounded", async () => {
  const { clock, listener, accepted, dial } = inMemory({ maxConnections: 2 });
  // Two in standby, two that are leaving, and one for which it waits already.
  for (let i = 0; i < 5; i++) {
    await (await dial({ standby: true }, false)).confirmed;
    await settled();
  }
  const others = [1, 2, 3].map(() => dial({ standby: true }, false));
  await settled();
  assertEquals(accepted.length, 5);
  clock.pass(1000);
  await Promise.all(others);
  assertEquals(accepted.length, 8);
  listener.close();
  await settled();
  clock.pass(1000);
  await listener.shutdown();
});

test("standby: nobody goes for one that came before its proof", async () => {
  const { listener, dial } = standby({ maxConnections: 1 });
  const conn = await Deno.connect({ ...listener.addr, transport: "tcp" });
  const idle = await dial();
  const early = await connectChannel(conn, { psk: PSK, identity: "alice" });
  // Though there are two now, the one in standby is in nobody's way.
  const first = await listener.accept();
  assertEquals(first.identity, "alice");
  await idle.open();
  first.abort();
  const second = await listener.accept();
  assertEquals(second.identity, "default");
  listener.close();
  second.abort();
  await Promise.all([early, idle].map(codeOfClosed));
});

test("standby: one whose key is revoked is cut", async () => {
  const { listener, dial } = standby();
  const [idle, other] = [await dial("alice"), await dial()];
  await listener.reload({ psk: `default:${KEY}` });
  assertEquals(await codeOfClosed(idle), "revoked");
  await other.open();
  assertEquals((await listener.accept()).identity, "default");
  listener.close();
  other.abort();
});

test("hasService: a service that is not there is cut after the proof", async () => {
  const asked: (string | undefined)[] = [];
  const { listener, dial, reports } = standby({
    hasService: (service) => {
      asked.push(service);
      if (service === "broken") throw new RangeError("It has failed");
      return service === undefined || service === "db";
    },
  });
  const clients = new Map<string, Channel>();
  for (const service of ["", "@db", "@web", "@broken"]) {
    clients.set(service, await dial(`alice${service}`));
  }
  assertEquals(asked, [undefined, "db", "web", "broken"]);
  assertEquals(reports, [
    undefined,
    undefined,
    "service",
    "RangeError: It has failed",
  ]);
  for (
    const [service, code] of [
      ["@web", "service"],
      ["@broken", "aborted"],
    ] as const
  ) {
    assertEquals(await codeOfClosed(clients.get(service)!), code);
  }
  for (const [service, name] of [["", undefined], ["@db", "db"]] as const) {
    await clients.get(service)!.open();
    const channel = await listener.accept();
    assertEquals(channel.service, name);
    channel.abort();
    await codeOfClosed(clients.get(service)!);
  }
  // Nothing is left of those that were cut.
  await listener.shutdown();
});

Deno.test("Listener: hasService, takesOffer: who asks is cut if they throw later", async () => {
  for (const offer of [false, true]) {
    let asked = 0;
    const fail = () => {
      if (asked++ > 0) throw new RangeError("It has failed");
      return true;
    };
    const { listener, dial } = inMemory({
      hasService: () => offer || fail(),
      takesOffer: () => offer && fail(),
    });
    const client = await dial(offer ? { offer } : {});
    const error = await assertRejects(() => client.closed, ChannelError);
    assertEquals([error.code, error.isFromPeer], ["aborted", true]);
    await listener.shutdown();
  }
});

test("hasService: whoever lacks the key does not learn which there are", async () => {
  let isAsked = false;
  const { listener, reports } = standby({ hasService: () => isAsked = true });
  const told = [];
  for (const service of ["db", "web"]) {
    const identity = `alice@${service}`;
    const conn = await Deno.connect({ ...listener.addr, transport: "tcp" });
    const error = await assertRejects(
      () => connectChannel(conn, { psk: `alice:${"ee".repeat(32)}`, identity }),
      ChannelError,
    );
    told.push([error.code, error.message.replace(service, "SERVICE")]);
  }
  assertEquals(told[0], told[1]);
  await listener.shutdown();
  assertEquals([isAsked, reports], [false, ["refused", "refused"]]);
});
