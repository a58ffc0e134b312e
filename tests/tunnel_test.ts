/** Tunnels of the real programs, from end to end. */

import { delay } from "@std/async/delay";
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { type Address, parseAddress } from "../tunnel/address.ts";
import { type Resettable, resettable } from "../tunnel/resettable.ts";
import { Cable } from "./cable.ts";
import {
  ask,
  connectTo,
  type End,
  ENDS,
  exchange,
  exchanges,
  flood,
  greeter,
  hear,
  heardEnd,
  listenAt,
  other,
  speak,
  whole,
} from "./plain_peers.ts";
import {
  clientFlags,
  freePort,
  programTests,
  run,
  serverFlags,
  TestEntrance,
  TestServer,
} from "./programs.ts";

const test = programTests("");

/** Where the two ends of a tunnel are, in a test's folder. */
type Kind = "TCP" | "Unix";
const place = (kind: Kind, dir: string, name: string) =>
  kind === "TCP" ? "127.0.0.1:0" : `unix:${dir}/${name}`;

interface TunnelOptions {
  /** Of both programs. */
  flags?: string[];
  clientFlags?: string[];
  /** Gives the port at which the client reaches the server's. */
  via?: (port: number) => number;
}

/** A client, a server, and a backend that takes what comes. */
class Tunnel implements AsyncDisposable {
  private constructor(
    readonly client: TestEntrance,
    readonly server: TestServer,
    readonly backend: Deno.Listener,
    readonly front: Address,
  ) {}

  static async start(
    dir: string,
    kind: Kind,
    { flags = [], clientFlags = [], via = (port) => port }: TunnelOptions = {},
  ): Promise<Tunnel> {
    const backend = listenAt(place(kind, dir, "back"));
    const { addr } = backend;
    const to = "port" in addr ? `127.0.0.1:${addr.port}` : `unix:${dir}/back`;
    const server = await TestServer.start([
      ...serverFlags(dir),
      ...["--forward", to, ...flags],
    ]);
    // At its start the server looks whether anybody answers there.
    (await backend.accept()).close();
    const near = place(kind, dir, "front");
    const client = await TestEntrance.start(dir, via(server.port), near, [
      ...flags,
      ...clientFlags,
    ]);
    const front = kind === "TCP" ? client.address : parseAddress(near)!;
    return new Tunnel(client, server, backend, front);
  }

  /** A new caller, and the backend's end of it. */
  async open(): Promise<Record<End, Deno.Conn>> {
    const [caller, backend] = await Promise.all([
      connectTo(this.front),
      this.backend.accept(),
    ]);
    return { caller, backend };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client[Symbol.asyncDispose]();
    await this.server[Symbol.asyncDispose]();
    this.backend.close();
  }
}

for (const kind of ["TCP", "Unix"] as const) {
  test(`${kind}: every byte and a clean end, whoever ends first`, async (dir) => {
    await using tunnel = await Tunnel.start(dir, kind);
    for (const one of exchanges([0, 1, 5_000_000, 100_000_000])) {
      const ends = await tunnel.open();
      await exchange(ends, one);
      for (const end of ENDS) ends[end].close();
    }
    assertEquals((await tunnel.client.stop()).code, 0);
    const closed = (await tunnel.server.stop()).match(/closed: .*/g) ?? [];
    assertEquals(closed.filter((line) => !line.endsWith("end")), []);
  });
}

/** What an end is doing when the tunnel breaks. */
interface State {
  reader: End;
  isHalfClosed: boolean;
  /** What the other end says to it. */
  traffic: "nothing" | "what is not read" | "what is read";
}

const STATES: State[] = [];
for (const reader of ENDS) {
  for (const isHalfClosed of [false, true]) {
    for (
      const traffic of ["nothing", "what is not read", "what is read"] as const
    ) STATES.push({ reader, isHalfClosed, traffic });
  }
}

interface Break {
  /** At which ends it is a reset, whatever they are doing. */
  readers: End[];
  options?: TunnelOptions;
  by(tunnel: Tunnel, peers: Peer[]): void | Promise<void>;
}

/** The end that speaks to one that reads. */
interface Peer {
  end: End;
  conn: Resettable;
}

const resetAll = (end: End) => (_: Tunnel, peers: Peer[]) => {
  for (const peer of peers) if (peer.end === end) peer.conn.reset();
};

/** A second signal counts only some time after the first: sends it until then. */
async function stopTwice(program: TestEntrance | TestServer): Promise<void> {
  let hasEnded = false;
  const ended = program.exitCode().then(() => hasEnded = true);
  while (!hasEnded) {
    try {
      program.signal("SIGTERM");
    } catch {
      // It has just ended.
    }
    await Promise.race([
      ended,
      new Promise((resolve) => setTimeout(resolve, 20)),
    ]);
  }
}

// Whoever is killed cannot say anything: its own plain ends see an end.
const BREAKS: Record<string, Break> = {
  "the server is killed": {
    readers: ["caller"],
    by: ({ server }) => server.signal("SIGKILL"),
  },
  "the client is killed": {
    readers: ["backend"],
    by: ({ client }) => client.signal("SIGKILL"),
  },
  "the server's grace is over": {
    readers: ENDS,
    options: { flags: ["--grace", "0"] },
    by: ({ server }) => server.signal("SIGTERM"),
  },
  "the client's grace is over": {
    readers: ENDS,
    options: { flags: ["--grace", "0"] },
    by: ({ client }) => client.signal("SIGTERM"),
  },
  "the server is told to stop twice": {
    readers: ENDS,
    by: ({ server }) => stopTwice(server),
  },
  "the client is told to stop twice": {
    readers: ENDS,
    by: ({ client }) => stopTwice(client),
  },
  "the backend resets": { readers: ["caller"], by: resetAll("backend") },
  "the caller resets": { readers: ["backend"], by: resetAll("caller") },
};

/** Brings an end of a new tunnel into a state; what it has heard in the end. */
async function enter(tunnel: Tunnel, state: State) {
  const ends = await tunnel.open();
  const reader = ends[state.reader];
  const end = other(state.reader);
  const conn = resettable(ends[end]);
  if (state.isHalfClosed) {
    await reader.closeWrite();
    await heardEnd(conn);
  }
  const isReading = state.traffic === "what is read";
  const hearing = isReading ? hear(reader) : undefined;
  if (isReading) flood(conn);
  else if (state.traffic === "nothing") {
    await conn.write(new Uint8Array(1));
    await reader.read(new Uint8Array(1));
  } else await flood(conn);
  return {
    peer: { end, conn },
    async heard() {
      const { end } = await (hearing ?? hear(reader));
      reader.close();
      conn.close();
      return { ...state, end };
    },
  };
}

async function breaks(tunnel: Tunnel, { readers, by }: Break): Promise<void> {
  const states = STATES.filter(({ reader }) => readers.includes(reader));
  // Those that read keep the others waiting.
  states.sort((a, b) => a.traffic.localeCompare(b.traffic));
  const entered = [];
  for (const state of states) entered.push(await enter(tunnel, state));
  await by(tunnel, entered.map(({ peer }) => peer));
  const heard = await Promise.all(entered.map((one) => one.heard()));
  assertEquals(
    heard,
    states.map((one) => ({ ...one, end: "ConnectionReset" })),
  );
}

for (const [name, one] of Object.entries(BREAKS)) {
  test(`TCP: when ${name}, who reads sees a reset`, async (dir) => {
    await using tunnel = await Tunnel.start(dir, "TCP", one.options);
    await breaks(tunnel, one);
  });
}

test("TCP: when the connection is cut, who reads sees a reset", async (dir) => {
  await using cables = new AsyncDisposableStack();
  let cable: Cable;
  await using tunnel = await Tunnel.start(dir, "TCP", {
    via: (port) => (cable = cables.use(new Cable(port))).port,
  });
  await breaks(tunnel, { readers: ENDS, by: () => cable.cut() });
});

/** A server in front of a backend, and its port. */
async function startServer(
  dir: string,
  backend: Deno.Addr,
  port = 0,
): Promise<TestServer> {
  const { hostname, port: at } = backend as Deno.NetAddr;
  const flags = [...serverFlags(dir), "--forward", `${hostname}:${at}`];
  return await TestServer.start(flags, port);
}

test("a service that speaks first, for many callers, until it goes", async (dir) => {
  let back: Deno.NetAddr;
  await using server = await (async () => {
    await using backend = greeter("127.0.0.1:0");
    back = backend.addr as Deno.NetAddr;
    const server = await startServer(dir, back);
    await using client = await TestEntrance.start(dir, server.port);
    const texts = Array.from("01234567", (i) => i.repeat(100_000));
    assertEquals(
      await Promise.all(texts.map((text) => ask(client.address, text))),
      texts.map((text) => `hello ${text}`),
    );
    assertEquals((await client.stop()).code, 0);
    return server;
  })();
  await using client = await TestEntrance.start(dir, server.port);
  await assertRejects(
    () => ask(client.address, "you"),
    Deno.errors.ConnectionReset,
  );
  assertMatch(
    await server.stop(),
    new RegExp(
      `backend \\(Cannot reach 127.0.0.1:${back!.port}: connection refu`,
    ),
  );
});

test("--listen: why callers are reset is told once, by who gave up", async (dir) => {
  const back = freePort();
  const backend = {
    ...{ hostname: "127.0.0.1", port: back },
    transport: "tcp",
  };
  await using server = await startServer(dir, backend as Deno.NetAddr);
  const nowhere = freePort();
  await using client = await TestEntrance.start(dir, server.port, "0", [
    ...["--listen", `${nowhere}=nowhere`],
  ]);
  await client.logged("The server has no service nowhere; trying again");
  const other = { host: "127.0.0.1", port: nowhere };
  for (const place of [client.address, other]) {
    for (let caller = 0; caller < 3; caller++) {
      await assertRejects(
        () => ask(place, "you"),
        Deno.errors.ConnectionReset,
      );
    }
  }
  const { log } = await client.stop();
  const lines = log.split("\n").filter((line) => !line.includes("ready"));
  assertEquals(lines.toSorted(), [
    "",
    "client: The server cannot reach what stands behind it",
    "client: The server cannot reach what stands behind it (2 more)",
    "client: The server has no service nowhere; trying again",
    "client: a caller was refused: The server has no service nowhere",
    "client: a caller was refused: The server has no service nowhere (2 more)",
    "client: stopped",
  ]);
  const closed = (await server.stop()).match(/closed: .*/g) ?? [];
  assertEquals(closed.length, 3);
  assertMatch(closed[0]!, /backend \(Cannot reach 127\.0\.0\.1:\d+: conn/);
});

test("--listen: the server may come later, go, and come back", async (dir) => {
  await using backend = greeter("127.0.0.1:0");
  const port = freePort();
  await using client = await TestEntrance.start(dir, port);
  await client.logged("connection refused");
  for (const text of ["you", "again"]) {
    // The caller waits while the server starts.
    const answer = ask(client.address, text);
    const server = await startServer(dir, backend.addr, port);
    assertEquals(await answer, `hello ${text}`);
    // Sessions in reserve hold up nobody who stops.
    server.signal("SIGTERM");
    assertEquals(await server.exitCode(), 0);
    await server.stop();
    await client.logged("connection refused");
  }
  const { log } = await client.stop();
  assertEquals(log.match(/connection refused/g)?.length, 3, log);
  assertEquals(log.match(/Connected to the server again/g)?.length, 2, log);
});

test("--listen: sessions that died without a word cost no caller anything", async (dir) => {
  await using backend = greeter("127.0.0.1:0");
  await using server = await startServer(dir, backend.addr);
  await using cable = new Cable(server.port);
  await using client = await TestEntrance.start(dir, cable.port);
  const texts = Array.from("01234567", (i) => i.repeat(10_000));
  const answers = texts.map((text) => `hello ${text}`);
  const askAll = () => Promise.all(texts.map((t) => ask(client.address, t)));
  // So many are in reserve then.
  assertEquals(await askAll(), answers);
  await client.logged("ready");
  // So that none in reserve counts any longer as one that lives.
  await cable.quiet(1100);
  cable.freeze();
  assertEquals(await askAll(), answers);
  const { log } = await client.stop();
  assertEquals(log.match(/refused|broke|cut|no sign/g), null, log);
});

test("--listen: servers that take turns at a port lose no caller", async (dir) => {
  await using backend = greeter("127.0.0.1:0");
  const { port: at } = backend.addr as Deno.NetAddr;
  const flags = [
    ...serverFlags(dir),
    ...["--reuse-port", "--forward", `127.0.0.1:${at}`],
  ];
  let server = await TestServer.start(flags);
  const { port } = server;
  await using client = await TestEntrance.start(dir, port);
  await client.logged("ready");
  let isOver = false;
  let served = 0;
  const callers = Array.from({ length: 8 }, async (_, i) => {
    const text = `${i}`.repeat(20_000);
    while (!isOver) {
      assertEquals(await ask(client.address, text), `hello ${text}`);
      served++;
    }
  });
  const changing = (async () => {
    for (let turn = 0; turn < 6; turn++) {
      const next = await TestServer.start(flags, port);
      const before = served;
      while (served < before + 20) await Promise.race([...callers, delay(10)]);
      server.signal("SIGTERM");
      assertEquals(await server.exitCode(), 0);
      await server.stop();
      server = next;
    }
    isOver = true;
  })();
  await Promise.all([changing, ...callers]).finally(() => {
    isOver = true;
    return server.stop();
  });
  await client.stop();
});

test("--listen: on a slow way callers wait, and none is lost", async (dir) => {
  await using backend = greeter("127.0.0.1:0");
  await using server = await startServer(dir, backend.addr);
  // 32 kbit/s each way.
  await using cable = new Cable(server.port, 4000);
  await using client = await TestEntrance.start(dir, cable.port);
  await client.logged("ready");
  const calls = Array.from({ length: 20 }, () => ask(client.address, "you"));
  assertEquals(await Promise.all(calls), calls.map(() => "hello you"));
});

test("--listen: out of descriptors callers wait, and are served in the end", async (dir) => {
  await using backend = greeter("127.0.0.1:0");
  await using server = await startServer(dir, backend.addr);
  await using client = await TestEntrance.start(dir, server.port);
  await client.logged("ready");
  await client.limitDescriptors(64);
  const mayGo = Promise.withResolvers<void>();
  let greeted = 0;
  const callers = Array.from({ length: 100 }, async () => {
    const caller = await connectTo(client.address);
    assertEquals(await caller.read(new Uint8Array(9)), "hello ".length);
    greeted++;
    await mayGo.promise;
    await caller.closeWrite();
    await heardEnd(caller);
    caller.close();
  });
  // Until no more are served, as those who are do not go.
  let [before, start, busy] = [-1, 0, 0];
  while (before < greeted || greeted === 0) {
    [before, start] = [greeted, performance.now()];
    busy = (await client.usage()).busy;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  const share = ((await client.usage()).busy - busy) /
    (performance.now() - start);
  assertEquals([greeted < 100, share < 0.5], [true, true]);
  mayGo.resolve();
  await Promise.all(callers);
  assertEquals(await ask(client.address, "you"), "hello you");
  const { code, log } = await client.stop();
  assertEquals(code, 0);
  const lines = log.split("\n").filter((line) =>
    !/ready|out of file descriptors|Connected to the server again/.test(line)
  );
  assertEquals(lines, ["client: stopped", ""]);
  assertMatch(log, /callers wait in the system's queue/);
});

test("--forward: out of descriptors the server waits, and reaches the backend", async (dir) => {
  await using backend = greeter("127.0.0.1:0");
  await using server = await startServer(dir, backend.addr);
  await using client = await TestEntrance.start(dir, server.port);
  await client.logged("ready");
  // Not one more than there are.
  await server.limitDescriptors((await server.usage()).descriptors - 1);
  const answer = ask(client.address, "you");
  // By then it has been dialled in vain.
  await server.logged(" connected");
  await server.limitDescriptors(256);
  assertEquals(await answer, "hello you");
});

test("--max-connections: one more waits, and is served when there is room", async (dir) => {
  await using tunnel = await Tunnel.start(dir, "TCP", {
    clientFlags: ["--max-connections", "2"],
  });
  const first = await tunnel.open();
  const second = await tunnel.open();
  // It is connected, but a second one is served before it.
  const third = tunnel.open();
  let isServed = false;
  third.then(() => isServed = true);
  const speaking = speak(second.caller, 5_000_000);
  assertEquals(await hear(second.backend), whole(5_000_000));
  await speaking;
  assertEquals(isServed, false);
  first.caller.close();
  first.backend.close();
  const { caller, backend } = await third;
  assertEquals(await Promise.all([hear(backend), speak(caller, 1)]), [
    whole(1),
    undefined,
  ]);
  for (const end of [second.caller, second.backend, caller, backend]) {
    end.close();
  }
});

test("--max-connections: it holds for all entrances together", async (dir) => {
  const other = `unix:${dir}/other`;
  await using tunnel = await Tunnel.start(dir, "TCP", {
    clientFlags: ["--max-connections", "1", "--listen", other],
  });
  const first = await tunnel.open();
  const second = await connectTo(parseAddress(other)!);
  let isServed = false;
  const served = tunnel.backend.accept().then((conn) => {
    isServed = true;
    return conn;
  });
  const speaking = speak(first.caller, 50_000_000);
  assertEquals(await hear(first.backend), whole(50_000_000));
  await speaking;
  assertEquals(isServed, false);
  for (const end of [first.caller, first.backend]) end.close();
  for (const end of [await served, second]) end.close();
});

test("--max-connections: a caller that waits while the client stops is reset", async (dir) => {
  const other = `127.0.0.1:${freePort()}`;
  await using tunnel = await Tunnel.start(dir, "TCP", {
    clientFlags: ["--max-connections", "1", "--listen", other],
  });
  const first = await tunnel.open();
  const waiting = await connectTo(parseAddress(other)!);
  // By then it has been accepted: callers of both entrances come in turn.
  const speaking = speak(first.caller, 50_000_000);
  assertEquals(await hear(first.backend), whole(50_000_000));
  await speaking;
  tunnel.client.signal("SIGTERM");
  await tunnel.client.logged("may finish");
  const heard = hear(waiting);
  for (const end of [first.caller, first.backend]) end.close();
  assertEquals((await heard).end, "ConnectionReset");
  waiting.close();
  await tunnel.client.stop();
  const log = await tunnel.server.stop();
  assertEquals(log.match(/ connected$/gm)?.length, 1, log);
});

test("--listen unix: what a killed client left behind is taken", async (dir) => {
  await using backend = greeter("127.0.0.1:0");
  await using server = await startServer(dir, backend.addr);
  const path = `${dir}/front`;
  {
    await using _killed = await TestEntrance.start(
      dir,
      server.port,
      `unix:${path}`,
    );
  }
  assertEquals((await Deno.lstat(path)).isSocket, true);
  // Of two that come together one gets it.
  const comers = await Promise.allSettled(
    [1, 2].map(() => TestEntrance.start(dir, server.port, `unix:${path}`)),
  );
  assertEquals(comers.map(({ status }) => status).sort(), [
    "fulfilled",
    "rejected",
  ]);
  assertEquals(await ask({ path }, "you"), "hello you");
  const [client] = comers.flatMap((one) => "value" in one ? [one.value] : []);
  assertEquals((await client!.stop()).code, 0);
  await assertRejects(() => Deno.lstat(path), Deno.errors.NotFound);
});

test("--listen, --forward: an address that cannot be", async (dir) => {
  using taken = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const place = `127.0.0.1:${taken.addr.port}`;
  const busy = await run("client", [
    ...clientFlags(dir, 1),
    ...["--listen", `${taken.addr.port}`],
  ]);
  assertEquals(busy.code, 1);
  assertEquals(
    busy.stderr,
    `client: Cannot listen on ${place}: the port is in use, ` +
      "perhaps by the same service on this machine; choose another with --listen\n",
  );
  const flags = [...serverFlags(dir), "--port", "0"];
  const none = await run("server", [...flags, "--forward", "localhost:0"]);
  assertEquals(none.code, 2);
  assertMatch(none.stderr, /^server: --forward takes .*, not localhost:0\n$/);
});
