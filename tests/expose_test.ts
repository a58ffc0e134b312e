/** Services of machines that only dial out, and callers on the server's side. */

import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { expose } from "../cli/client/expose.ts";
import { Live } from "../cli/live.ts";
import { Clients } from "../cli/server/clients.ts";
import { type Door, Entrances } from "../cli/server/entrances.ts";
import { Metrics } from "../cli/server/metrics.ts";
import { listen, type Listener, type ListenOptions } from "../lib/deno.ts";
import { type Channel, ChannelError, connectChannel } from "../lib/mod.ts";
import { type Address, format, parseAddress } from "../tunnel/address.ts";
import type { Reserve } from "../tunnel/reserve.ts";
import { resettable } from "../tunnel/resettable.ts";
import { Cable } from "./cable.ts";
import { assertFails } from "./channels.ts";
import { KEY } from "./duplex.ts";
import {
  ask,
  connectTo,
  type End,
  exchange,
  exchanges,
  greeter,
  hear,
  heardEnd,
  listenAt,
  speak,
  whole,
} from "./plain_peers.ts";
import {
  clientFlags,
  freePort,
  programTests,
  run,
  serverFlags,
  start,
  TestEntrance,
  TestServer,
} from "./programs.ts";
import { lacksPermissions, testInFolder, testUnless } from "./requirements.ts";

const test = (name: string, fn: () => Promise<void>) =>
  testUnless(
    lacksPermissions("net", "read", "write"),
    `--expose: ${name}`,
    fn,
  );

const testPrograms = programTests("--expose: ", [
  "--identity",
  "alice@db",
  "--identity",
  "bob",
]);

const psk = ["alice@db", "bob", "carol@db"].map((name) => `${name}:${KEY}`)
  .join("\n");

/** The server's side in this process, with callers for what alice has. */
class Server implements AsyncDisposable {
  readonly log: string[] = [];
  readonly listener: Listener;
  readonly entrances: Entrances;
  readonly clients: Clients;
  readonly addresses: Address[] = [];
  /** Is called when a session has just been opened. */
  onCall: ((channel: Channel) => void) | undefined;
  readonly #offering: { reserve: Reserve; live: Live }[] = [];
  #more = Promise.withResolvers<void>();

  private constructor(doors: Door[], options: Partial<ListenOptions>) {
    const log = (event: string, message: string, fields = {}) => {
      if (event === "listen") {
        this.addresses.push(
          parseAddress(
            (fields as Record<string, string>).caller!,
          )!,
        );
      }
      this.log.push(message);
      this.#more.resolve();
      this.#more = Promise.withResolvers();
    };
    this.clients = new Clients(log, new Metrics());
    this.listener = listen({
      ...{ port: 0, tls: false, psk },
      hasService: () => false,
      takesOffer: (identity) => this.entrances.takes(identity),
      onOffer: (channel) => this.entrances.add(channel),
      ...options,
    });
    const opener: Pick<Listener, "open"> = {
      open: async (...args) => {
        const channel = await this.listener.open(...args);
        channel.opened.then(() => this.onCall?.(channel), () => {});
        return channel;
      },
    };
    this.entrances = new Entrances(doors, opener, this.clients, log);
  }

  static async start(
    options: Partial<ListenOptions> = {},
    doors = ["127.0.0.1:0"],
  ): Promise<Server> {
    const server = new Server(
      doors.map((text) => ({
        address: parseAddress(text, "127.0.0.1")!,
        identity: "alice@db",
      })),
      options,
    );
    await server.entrances.open();
    return server;
  }

  /** Where its callers come in. */
  get door(): Address {
    return this.addresses[0]!;
  }

  get port(): number {
    return this.listener.addr.port;
  }

  async dial(
    identity = "alice@db",
    port = this.port,
    signal?: AbortSignal,
  ): Promise<Channel> {
    const conn = await Deno.connect({ port, ...(signal && { signal }) });
    return await connectChannel(conn, { psk, identity, offer: true });
  }

  /** A client that offers a backend; what it has to say. */
  offer(
    backend: Deno.Addr,
    {
      identity = "alice@db",
      port = this.port,
      max = 8,
      places = Infinity,
      live = new Live(places),
    } = {},
  ) {
    const { hostname, port: at } = backend as Deno.NetAddr;
    const said: string[] = [];
    const reserve = expose({
      backend: { host: hostname, port: at },
      dial: (signal) => this.dial(identity, port, signal),
      report: (message) => said.push(message),
      complain: (error) => said.push(error.message),
      ...{ max, live },
    });
    this.#offering.push({ reserve, live });
    return { reserve, live, said };
  }

  /** Waits until this has been logged. */
  async logged(text: string): Promise<void> {
    while (!this.log.some((line) => line.includes(text))) {
      await this.#more.promise;
    }
  }

  /** How many callers it has told of, and how many have left; none is there. */
  async pairs(): Promise<number[]> {
    while (this.clients.live.size > 0) await this.clients.live.left;
    return ["called", "closed"]
      .map((word) => this.log.filter((line) => line.startsWith(word)).length);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { reserve } of this.#offering) reserve.close();
    const closing = this.entrances.close();
    const down = this.listener.shutdown();
    const stopped = new ChannelError("stopping", "The server stopped");
    await this.clients.live.drain(0, stopped);
    for (const { live } of this.#offering) await live.drain(0);
    await Promise.all([closing, down]);
    this.entrances.tellRest();
  }
}

/** The real client with these flags. */
const exposing = async (flags: string[]) =>
  await TestEntrance.of(start("client", flags));

/** The ends of a call, which a backend that takes what comes has accepted. */
async function call(
  server: Server,
  backend: Deno.Listener,
): Promise<Record<End, Deno.Conn>> {
  const [caller, back] = await Promise.all([
    connectTo(server.door),
    backend.accept(),
  ]);
  return { caller, backend: back };
}

const close = (ends: Record<End, Deno.Conn>) => {
  ends.caller.close();
  ends.backend.close();
};

testInFolder(
  lacksPermissions("net", "read", "write"),
  "--expose: a server that stops while it opens its doors leaves none open",
  async (dir) => {
    const doors = ["a", "b"].map((name) => (
      { address: { path: `${dir}/${name}` }, identity: "alice@db" }
    ));
    const log = () => {};
    const opener = { open: () => Promise.reject(new Error("Nobody calls")) };
    const clients = new Clients(log, new Metrics());
    const entrances = new Entrances(doors, opener, clients, log);
    const opening = entrances.open();
    await entrances.close();
    await opening;
    assertEquals(Array.from(Deno.readDirSync(dir)), []);
  },
);

test("every byte and a clean end, whoever ends first", async () => {
  using backend = listenAt("127.0.0.1:0");
  await using server = await Server.start();
  server.offer(backend.addr);
  for (const one of exchanges([0, 1, 3_000_000])) {
    const ends = await call(server, backend);
    await exchange(ends, one);
    close(ends);
  }
});

test("a cut is a reset at both ends", async () => {
  using backend = listenAt("127.0.0.1:0");
  await using server = await Server.start();
  await using cable = new Cable(server.port);
  server.offer(backend.addr, { port: cable.port });
  for (const isHalfClosed of [false, true]) {
    const ends = await call(server, backend);
    await ends.caller.write(new Uint8Array(1));
    await ends.backend.read(new Uint8Array(1));
    if (isHalfClosed) {
      await ends.backend.closeWrite();
      await heardEnd(ends.caller);
    }
    cable.cut();
    const readers = isHalfClosed ? [ends.backend] : Object.values(ends);
    for (const reader of readers) {
      assertEquals((await hear(reader)).end, "ConnectionReset");
    }
    close(ends);
  }
});

test("a peer that resets is a reset at the other end", async () => {
  using backend = listenAt("127.0.0.1:0");
  await using server = await Server.start();
  server.offer(backend.addr);
  for (const end of ["caller", "backend"] as const) {
    const ends = await call(server, backend);
    const other = end === "caller" ? ends.backend : ends.caller;
    resettable(ends[end]).reset();
    assertEquals((await hear(other)).end, "ConnectionReset");
    other.close();
  }
});

test("a backend that is away resets the caller, and both sides say so", async () => {
  await using server = await Server.start();
  const nobody = { hostname: "127.0.0.1", port: freePort() } as Deno.NetAddr;
  const { said } = server.offer(nobody);
  await assertRejects(
    () => ask(server.door, "you"),
    Deno.errors.ConnectionReset,
  );
  await server.logged("The client cannot reach what stands behind db");
  assertMatch(
    said.join(),
    /^Cannot reach 127\.0\.0\.1:\d+: connection refused/,
  );
});

test("a caller waits for a client that is away, and is served when it comes", async () => {
  await using backend = greeter("127.0.0.1:0");
  await using server = await Server.start();
  const answers = [ask(server.door, "you"), ask(server.door, "two")];
  server.offer(backend.addr);
  assertEquals(await Promise.all(answers), ["hello you", "hello two"]);
  assertEquals(server.log.filter((line) => line.includes("is there")), [
    "alice@db is there",
  ]);
});

test("a burst of callers is served by few sessions", async () => {
  await using backend = greeter("127.0.0.1:0");
  await using server = await Server.start();
  server.offer(backend.addr);
  const texts = Array.from({ length: 60 }, (_, i) => `${i}`.repeat(1000));
  assertEquals(
    await Promise.all(texts.map((text) => ask(server.door, text))),
    texts.map((text) => `hello ${text}`),
  );
});

test("sessions that died without a word cost nobody anything", async () => {
  await using backend = greeter("127.0.0.1:0");
  await using server = await Server.start();
  await using cable = new Cable(server.port);
  const gone = server.offer(backend.addr, { port: cable.port });
  const texts = Array.from("01234567", (i) => i.repeat(10_000));
  const askAll = () => Promise.all(texts.map((one) => ask(server.door, one)));
  const answers = texts.map((text) => `hello ${text}`);
  assertEquals(await askAll(), answers);
  // So that none that is offered counts any longer as one that lives.
  await cable.quiet(1100);
  cable.freeze();
  // Behind those that have been idle for longer.
  server.offer(backend.addr);
  assertEquals(await askAll(), answers);
  assertEquals(
    server.log.filter((line) => /^(a caller|The client)/.test(line)),
    [],
  );
  assertEquals(await server.pairs(), [16, 16]);
  gone.reserve.close();
});

test("a caller beyond the client's places waits until one leaves", async () => {
  using backend = listenAt("127.0.0.1:0");
  await using server = await Server.start();
  const { live } = server.offer(backend.addr, { places: 2 });
  const [first, second] = [
    await call(server, backend),
    await call(server, backend),
  ];
  let isServed = false;
  const third = call(server, backend).finally(() => isServed = true);
  const speaking = speak(second.caller, 5_000_000);
  assertEquals(await hear(second.backend), whole(5_000_000));
  await speaking;
  assertEquals([isServed, live.free], [false, 0]);
  for (const ends of [first, second]) close(ends);
  close(await third);
});

test("of two sessions offered for one place the second is given up with limit", async () => {
  using backend = listenAt("127.0.0.1:0");
  await using server = await Server.start();
  const { live } = server.offer(backend.addr, { places: 1 });
  server.offer(backend.addr, { live });
  const open = () => server.listener.open("alice@db");
  const channels = [await open(), await open()];
  const back = await backend.accept();
  const refused = await Promise.any(channels.map(async (channel) => {
    await assertFails(channel.closed, "limit");
    return channel;
  }));
  const served = channels.find((channel) => channel !== refused)!;
  assertEquals([live.size, live.free], [1, 0]);
  // When it has left, there is room for the next.
  served.abort();
  assertEquals((await hear(back)).end, "ConnectionReset");
  const next = await open();
  (await backend.accept()).close();
  next.abort();
  back.close();
});

test("two clients of one identity share the callers", async () => {
  await using one = greeter("127.0.0.1:0");
  using two = listenAt("127.0.0.1:0");
  await using server = await Server.start();
  server.offer(one.addr, { max: 1 });
  server.offer(two.addr, { max: 1 });
  await server.logged("is there");
  const isTwo = two.accept();
  let calls = 0;
  let served: Deno.Conn | undefined;
  isTwo.then((conn) => served = conn);
  // One of them is the second client's, which may come a little later.
  const callers: Deno.Conn[] = [];
  while (!served) {
    calls++;
    const caller = await connectTo(server.door);
    callers.push(caller);
    await Promise.race([caller.read(new Uint8Array(10)), isTwo]);
  }
  for (const conn of [...callers, served]) conn.close();
  assertEquals(calls < 10, true);
});

test("a key that is revoked is cut off", async () => {
  using backend = listenAt("127.0.0.1:0");
  await using server = await Server.start();
  const { said, reserve } = server.offer(backend.addr);
  const ends = await call(server, backend);
  await server.listener.reload({ psk: `bob:${KEY}` });
  for (const end of Object.values(ends)) {
    assertEquals((await hear(end)).end, "ConnectionReset");
  }
  close(ends);
  await server.logged("revoked (The key of alice@db was removed or replaced)");
  assertEquals(
    said.includes("The key of alice@db was revoked or replaced"),
    true,
  );
  reserve.close();
});

test("who offers what nobody listens for is told so, and gets no caller", async () => {
  await using backend = greeter("127.0.0.1:0");
  await using server = await Server.start();
  const others = ["bob", "bob@db", "carol@db"];
  for (const identity of others) {
    const channel = await server.dial(identity);
    const taken = channel.confirmed.then(() => channel.probe());
    const error = await assertRejects(() => taken, ChannelError);
    const said = `The server takes no offer of ${identity}`;
    assertEquals([error.code, error.message], ["service", said]);
  }
  server.offer(backend.addr);
  assertEquals(await ask(server.door, "you"), "hello you");
});

test("a refused offer is told once, though its key may call", async () => {
  await using backend = greeter("127.0.0.1:0");
  const tried = Promise.withResolvers<void>();
  let dials = 0;
  await using server = await Server.start({
    hasService: () => true,
    onHandshake: () => {
      if (++dials === 4) tried.resolve();
    },
  });
  const { said } = server.offer(backend.addr, { identity: "bob" });
  await tried.promise;
  assertEquals(said, ["The server takes no offer of bob; trying again"]);
});

test("thousands of offers of what is not one's own hold up nobody", async () => {
  await using backend = greeter("127.0.0.1:0");
  await using server = await Server.start();
  server.offer(backend.addr);
  assertEquals(await ask(server.door, "you"), "hello you");
  let refused = 0;
  const strangers = Array.from({ length: 8 }, async () => {
    for (let i = 0; i < 250; i++) {
      const channel = await server.dial("carol@db");
      await channel.closed.catch(() => refused++);
    }
  });
  const asking = (async () => {
    for (let i = 0; i < 20; i++) {
      assertEquals(await ask(server.door, `${i}`), `hello ${i}`);
    }
  })();
  await Promise.all([...strangers, asking]);
  assertEquals(refused, 2000);
});

test("two thousand offers of one's own are bounded, and the last one serves", async () => {
  await using server = await Server.start({ maxPerClient: 50 });
  const offered: Channel[] = [];
  const codes: unknown[] = [];
  for (let i = 0; i < 2000; i++) {
    const channel = await server.dial();
    offered.push(channel);
    channel.closed.catch(({ code }) => codes.push(code));
  }
  await offered.at(-1)!.probe();
  for (const channel of offered.slice(0, 1950)) {
    await channel.closed.catch(() => {});
  }
  assertEquals([codes.length, new Set(codes)], [1950, new Set(["limit"])]);
  const answer = ask(server.door, "you");
  const served = await Promise.any(
    offered.map((channel) => channel.opened.then(() => channel)),
  );
  await served.readable.pipeTo(served.writable);
  assertEquals(await answer, "you");
  for (const channel of offered) channel.abort();
});

test("offers that are never answered cost a caller little", async () => {
  await using backend = greeter("127.0.0.1:0");
  await using server = await Server.start();
  // It proves its key, offers, and reads no more.
  await using cable = new Cable(server.port);
  const silent = [];
  for (let i = 0; i < 5; i++) {
    silent.push(await server.dial("alice@db", cable.port));
    await silent.at(-1)!.probe();
  }
  await cable.quiet(1100);
  cable.freeze();
  server.offer(backend.addr);
  const answers = ["a", "b", "c"].map((text) => ask(server.door, text));
  assertEquals(await Promise.all(answers), ["hello a", "hello b", "hello c"]);
  for (const channel of silent) channel.abort();
});

test("an open that crosses a bye costs no caller anything", async () => {
  await using backend = greeter("127.0.0.1:0");
  await using server = await Server.start();
  const { reserve } = server.offer(backend.addr);
  const crossed: string[] = [];
  for (let round = 0; round < 10; round++) {
    // The server has just said open, and the client has not heard it.
    server.onCall = (channel) => {
      server.onCall = undefined;
      channel.closed.catch(({ message }) => crossed.push(message));
      reserve.renew();
    };
    const texts = ["a", "b", "c", "d"];
    const answers = texts.map((text) => ask(server.door, text));
    assertEquals(
      await Promise.all(answers),
      texts.map((text) => `hello ${text}`),
    );
    assertEquals(server.onCall, undefined);
  }
  assertEquals(crossed.includes("The client is stopping"), true);
  assertEquals(await server.pairs(), [40, 40]);
});

test("a caller that leaves while its session is opened leaves nothing behind", async () => {
  await using backend = greeter("127.0.0.1:0");
  await using server = await Server.start();
  // Before there is an offer, just when there is one, and later.
  const early = await connectTo(server.door);
  resettable(early).reset();
  await server.logged("The local caller broke the connection");
  const waiting = await connectTo(server.door);
  const { live } = server.offer(backend.addr);
  resettable(waiting).reset();
  for (let i = 0; i < 20; i++) {
    const caller = await connectTo(server.door);
    resettable(caller).reset();
    assertEquals(await ask(server.door, "you"), "hello you");
  }
  while (live.size > 0) await live.left;
  while (server.clients.live.size > 0) await server.clients.live.left;
});

testPrograms(
  "the real programs, through TCP, Unix sockets and WebSocket",
  async (dir) => {
    for (
      const [front, flags] of [
        [`127.0.0.1:${freePort()}`, ["--websocket"]],
        [`unix:${dir}/front`, []],
      ] as const
    ) {
      using backend = listenAt(
        front.startsWith("unix") ? `unix:${dir}/back` : "127.0.0.1:0",
      );
      const { addr } = backend;
      const to = "port" in addr
        ? `127.0.0.1:${(addr as Deno.NetAddr).port}`
        : `unix:${dir}/back`;
      await using server = await TestServer.start([
        ...serverFlags(dir),
        ...["--listen", `${front}=alice@db`],
      ]);
      await using client = await exposing([
        ...clientFlags(dir, server.port),
        ...["--identity", "alice@db", "--expose", to, ...flags],
      ]);
      await client.logged("ready: ");
      for (const one of exchanges([0, 1_000_000])) {
        const [caller, back] = await Promise.all([
          connectTo(parseAddress(front)!),
          backend.accept(),
        ]);
        await exchange({ caller, backend: back }, one);
        close({ caller, backend: back });
      }
      assertEquals((await client.stop()).code, 0);
      server.signal("SIGTERM");
      assertEquals(await server.exitCode(), 0);
      const log = await server.stop();
      assertMatch(log, /alice@db is there/);
      assertMatch(log, / alice@db called at /);
      assertEquals(/ closed: .*(?<!, end)$/m.exec(log), null);
      await Deno.remove(`${dir}/back`).catch(() => {});
      await assertRejects(
        () => Deno.lstat(`${dir}/front`),
        Deno.errors.NotFound,
      );
    }
  },
);

testPrograms(
  "both ways at once, and the client and the server drain",
  async (dir) => {
    await using forwarded = greeter("127.0.0.1:0");
    using backend = listenAt("127.0.0.1:0");
    const door = { host: "127.0.0.1", port: freePort() };
    const flags = [
      ...serverFlags(dir),
      ...["--listen", `${format(door)}=bob@db`],
      ...["--forward", `127.0.0.1:${(forwarded.addr as Deno.NetAddr).port}`],
    ];
    for (const stopping of ["client", "server"] as const) {
      await using server = await TestServer.start(flags);
      await using client = await TestEntrance.start(dir, server.port, "0", [
        ...["--identity", "bob", "--expose"],
        `db=127.0.0.1:${(backend.addr as Deno.NetAddr).port}`,
      ]);
      await client.logged("ready: ");
      await client.logged("ready: ");
      assertEquals(await ask(client.address, "you"), "hello you");
      const [caller, back] = await Promise.all([
        connectTo(door),
        backend.accept(),
      ]);
      const stopped = stopping === "client" ? client : server;
      stopped.signal("SIGTERM");
      await stopped.logged("may finish");
      await exchange({ caller, backend: back }, {
        ...{ size: 100_000, speed: "fast", says: "caller" },
        endsFirst: "backend",
      });
      close({ caller, backend: back });
      assertEquals(await stopped.exitCode(), 0);
    }
  },
);

testPrograms(
  "the client may go and come back, and callers wait meanwhile",
  async (dir) => {
    await using backend = greeter("127.0.0.1:0");
    const door = { host: "127.0.0.1", port: freePort() };
    await using server = await TestServer.start([
      ...serverFlags(dir),
      ...["--listen", `${door.port}=alice@db`],
    ]);
    const { port } = backend.addr as Deno.NetAddr;
    const expose = async () =>
      await exposing([
        ...clientFlags(dir, server.port),
        ...["--identity", "alice@db", "--expose", `127.0.0.1:${port}`],
      ]);
    {
      await using _client = await expose();
      await server.logged("alice@db is there");
      assertEquals(await ask(door, "you"), "hello you");
    }
    await server.logged("alice@db is away");
    const answer = ask(door, "again");
    await using _client = await expose();
    assertEquals(await answer, "hello again");
    const log = await server.stop();
    assertEquals(log.match(/is away/g)?.length, 1);
    assertEquals(log.match(/is there again/g)?.length, 1);
  },
);

testPrograms("flags that make no sense", async (dir) => {
  for (
    const [program, flags, error] of [
      ["server", ["--listen", "5432"], /^server: --listen takes .*, not 5432/],
      ["server", ["--listen", "0=a@b@c"], /--listen takes .*, not a@b@c\n$/],
      ["client", ["--expose", "x"], /^client: --expose takes .*, not x\n$/],
      [
        "client",
        ["--expose", "a=h:1", "--expose", "a=h:2"],
        /^client: --expose is given more than once for a\n$/,
      ],
    ] as const
  ) {
    const where = program === "server"
      ? [...serverFlags(dir), "--port", "0"]
      : clientFlags(dir, 1);
    const { code, stderr } = await run(program, [...where, ...flags]);
    assertEquals(code, 2);
    assertMatch(stderr, error);
  }
});
