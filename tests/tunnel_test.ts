import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { once } from "node:events";
import { connect, createServer, type Server, Socket } from "node:net";
import {
  acceptChannel,
  type Channel,
  ChannelError,
  connectChannel,
} from "../lib/mod.ts";
import { Metrics } from "../cli/metrics.ts";
import { Sessions } from "../cli/sessions.ts";
import { forward } from "../handlers/forward.ts";
import { type Address, format, parseAddress } from "../tunnel/address.ts";
import { Entrance } from "../tunnel/entrance.ts";
import { relay } from "../tunnel/relay.ts";
import { connectSocket, listenSocket, SocketError } from "../tunnel/socket.ts";
import { whyNotReached } from "../tunnel/words.ts";
import { duplex, PSK } from "./duplex.ts";
import {
  clientFlags,
  freePort,
  MAY_RUN,
  run,
  serverFlags,
  start,
  TestEntrance,
  TestServer,
  withCerts,
} from "./programs.ts";
import { lacksPermissions, lacksProgram, testUnless } from "./requirements.ts";

const test = (name: string, fn: () => Promise<void>) =>
  testUnless(lacksPermissions("net"), name, fn);
const testPrograms = (name: string, fn: (dir: string) => Promise<void>) =>
  testUnless(lacksPermissions(...MAY_RUN), name, withCerts(fn));

Deno.test("parseAddress: hosts, addresses, ports, Unix sockets", () => {
  assertEquals(parseAddress("a.example:80"), { host: "a.example", port: 80 });
  assertEquals(parseAddress("[::1]:65535"), { host: "::1", port: 65_535 });
  assertEquals(parseAddress("80", "127.0.0.1"), {
    host: "127.0.0.1",
    port: 80,
  });
  assertEquals(parseAddress("0", "::1"), { host: "::1", port: 0 });
  assertEquals(parseAddress("unix:/run/x"), { path: "/run/x" });
  for (
    const text of [
      "80",
      "a:0",
      "a:65536",
      "::1:80",
      "a:",
      ":80",
      "unix:",
      "a b:1",
    ]
  ) {
    assertEquals(parseAddress(text), undefined, text);
  }
});

/** A local connection, as its two ends, and a channel, as its two. */
interface Ends extends AsyncDisposable {
  caller: Socket;
  near: Socket;
  channel: Channel;
  peer: Channel;
}

async function ends(): Promise<Ends> {
  const accepted = Promise.withResolvers<Socket>();
  const server = createServer({ allowHalfOpen: true }, accepted.resolve);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const caller = await connectSocket(addressOf(server));
  const near = await accepted.promise;
  caller.on("error", () => {});
  const [nearPair, farPair] = duplex();
  const [channel, peer] = await Promise.all([
    connectChannel(nearPair, { psk: PSK }),
    acceptChannel(farPair, { psk: PSK }),
  ]);
  return {
    caller,
    near,
    channel,
    peer,
    async [Symbol.asyncDispose]() {
      caller.destroy();
      near.destroy();
      channel.abort();
      peer.abort();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Begins to relay; a failure is looked at when the test comes to it. */
function begin({ channel, near }: Ends): Promise<void> {
  const relayed = relay(channel, near, "The caller", FOREVER);
  relayed.catch(() => {});
  return relayed;
}

function addressOf(server: Server): { host: string; port: number } {
  const { port } = server.address() as { port: number };
  return { host: "127.0.0.1", port };
}

async function readAll(socket: Socket): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    text += decoder.decode(chunk, { stream: true });
  }
  return text;
}

/** Stops nothing. */
const FOREVER = new AbortController().signal;

const bytes = (text: string) => new TextEncoder().encode(text);

test("relay: each direction ends by itself, the caller's first", async () => {
  await using t = await ends();
  const relayed = begin(t);
  t.caller.end("question");
  assertEquals(await new Response(t.peer.readable).text(), "question");
  const writer = t.peer.writable.getWriter();
  await writer.write(bytes("answer"));
  await writer.close();
  assertEquals(await readAll(t.caller), "answer");
  await relayed;
});

test("relay: each direction ends by itself, the peer's first", async () => {
  await using t = await ends();
  const relayed = begin(t);
  const writer = t.peer.writable.getWriter();
  await writer.write(bytes("banner"));
  await writer.close();
  assertEquals(await readAll(t.caller), "banner");
  t.caller.end("thanks");
  assertEquals(await new Response(t.peer.readable).text(), "thanks");
  await relayed;
});

test("relay: a caller that resets is a cut for the peer", async () => {
  await using t = await ends();
  const relayed = begin(t);
  t.caller.write("half a ques");
  const reader = t.peer.readable.getReader();
  await reader.read();
  t.caller.resetAndDestroy();
  const error = await assertRejects(() => reader.read(), ChannelError);
  assertEquals(error.code, "cut");
  await assertRejects(() => relayed, Error, "The caller broke the connection");
});

test("relay: a channel that is cut resets the caller", async () => {
  await using t = await ends();
  const relayed = begin(t);
  const writer = t.peer.writable.getWriter();
  await writer.write(bytes("half an ans"));
  await once(t.caller, "readable");
  t.peer.abort();
  const error = await assertRejects(() => readAll(t.caller), Error);
  assertEquals((error as NodeJS.ErrnoException).code, "ECONNRESET");
  await assertRejects(() => relayed, ChannelError);
});

test("relay: a slow side holds the other back", async () => {
  await using t = await ends();
  const total = 50_000_000;
  const write = t.near.write.bind(t.near);
  // Whoever is told to wait must not write: what is taken stays in bounds.
  t.near.write = (chunk: Uint8Array) => {
    if (t.near.writableNeedDrain) throw new Error("It did not wait");
    return write(chunk);
  };
  const isWaiting = Promise.withResolvers<void>();
  t.near.on("newListener", (event) => {
    if (event === "drain") isWaiting.resolve();
  });
  const relayed = begin(t);
  const sent = new Blob([new Uint8Array(total)]).stream()
    .pipeTo(t.peer.writable);
  sent.catch(() => {});
  // The caller does not read before the relay waits for it.
  await Promise.race([isWaiting.promise, relayed]);
  let received = 0;
  for await (const chunk of t.caller.iterator({ destroyOnReturn: false })) {
    received += chunk.length;
  }
  t.caller.end();
  await sent;
  assertEquals(received, total);
  await new Response(t.peer.readable).text();
  await relayed;
});

test("relay: a signal ends it though the channel has closed", async () => {
  await using t = await ends();
  const stop = new AbortController();
  // What the caller takes no more of: the channel is done, the relay is not.
  const isFull = Promise.withResolvers<void>();
  t.near.write = () => (isFull.resolve(), false);
  const relayed = relay(t.channel, t.near, "The caller", stop.signal);
  relayed.catch(() => {});
  t.caller.end();
  const writer = t.peer.writable.getWriter();
  await writer.write(bytes("answer"));
  await writer.close();
  await new Response(t.peer.readable).text();
  await Promise.all([t.channel.closed, t.peer.closed, isFull.promise]);
  stop.abort(new Error("Stop"));
  await assertRejects(() => relayed, Error, "Stop");
  await assertRejects(() => readAll(t.caller), Error);
});

test("forward: a channel that ends while the backend is dialled", async () => {
  await using t = await ends();
  const host = "127.0.0.1";
  using full = Deno.listen({ port: 0, hostname: host, tcpBacklog: 1 });
  const { port } = full.addr;
  // With two in its queue, a third gets no answer.
  using _one = await Deno.connect({ port });
  using _two = await Deno.connect({ port });
  const handled = forward({ host, port })(t.channel, FOREVER);
  t.channel.abort(new ChannelError("aborted", "The server stopped"));
  await assertRejects(() => handled, ChannelError, "The server stopped");
});

test("forward: a server that stops ends it though the channel has closed", async () => {
  await using t = await ends();
  const remoteAddr = { transport: "tcp", hostname: "::1", port: 1 };
  const accepted = Promise.withResolvers<Socket>();
  const { server, address } = await listenSocket(
    { host: "127.0.0.1", port: 0 },
    (backend) => accepted.resolve(backend.end()),
  );
  const { write } = Socket.prototype;
  // What the backend takes no more of: the channel is done, the session is not.
  const isFull = Promise.withResolvers<void>();
  Socket.prototype.write = () => (isFull.resolve(), false);
  try {
    const reasons: unknown[] = [];
    const sessions = new Sessions(
      (_event, _message, fields) => reasons.push(fields?.reason),
      new Metrics(),
    );
    sessions.serve(Object.assign(t.channel, { remoteAddr }), forward(address));
    const writer = t.peer.writable.getWriter();
    await writer.write(bytes("question"));
    await writer.close();
    await new Response(t.peer.readable).text();
    await Promise.all([t.channel.closed, t.peer.closed, isFull.promise]);
    assertEquals(await sessions.live.drain(0), 1);
    assertEquals(reasons, [undefined, "aborted"]);
  } finally {
    Socket.prototype.write = write;
  }
  const backend = await accepted.promise;
  await assertRejects(() => readAll(backend), Error);
  await new Promise((resolve) => server.close(resolve));
});

test("connectSocket: nobody there is a SocketError", async () => {
  const port = freePort();
  await assertRejects(
    () => connectSocket({ host: "127.0.0.1", port }),
    SocketError,
    `Cannot reach 127.0.0.1:${port}: connection refused; is the service running?`,
  );
  await assertRejects(
    () => connectSocket({ path: "/nowhere" }),
    SocketError,
    "Cannot reach unix:/nowhere: there is no such socket; is the service running?",
  );
});

test("whyNotReached: each of a name's addresses", async () => {
  const port = freePort();
  const socket = connect({
    host: "db.example",
    port,
    lookup: (_name, _options, found) => {
      // deno-lint-ignore no-explicit-any -- The types know one address only.
      (found as any)(null, [
        { address: "127.0.0.1", family: 4 },
        { address: "::1", family: 6 },
      ]);
    },
  });
  const error = await assertRejects(() => once(socket, "connect"), Error);
  assertEquals(
    whyNotReached({ host: "db.example", port }, error),
    "connection refused (127.0.0.1, ::1); is the service running?",
  );
  const codes = ["ECONNREFUSED", "ENETUNREACH"];
  const errors = codes.map((code) => Object.assign(new Error(), { code }));
  assertEquals(
    whyNotReached({ host: "x", port }, new AggregateError(errors)),
    "connection refused, there is no way to it",
  );
});

test("listenSocket: what cannot be had is said in words", async () => {
  using taken = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const { port } = taken.addr;
  const far = "a".repeat(200);
  const refusals: [Address, string][] = [
    [{ host: "127.0.0.1", port }, "the port is in use"],
    [{ host: "192.0.2.1", port: 0 }, "it is no address of this machine"],
    [{ path: "/nowhere/x" }, "there is no such folder"],
    [{ path: `/tmp/${far}` }, "the path is too long"],
  ];
  for (const [address, why] of refusals) {
    await assertRejects(
      () => listenSocket(address, () => {}),
      SocketError,
      `Cannot listen on ${format(address)}: ${why}`,
    );
  }
});

const PYTHON = "/usr/bin/python3";
/** Makes the socket that is named, and keeps it, without taking connections. */
const DATAGRAMS = `import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.bind(sys.argv[1]), print(flush=True), sys.stdin.read()`;

testUnless(
  lacksPermissions(...MAY_RUN) ?? lacksProgram([PYTHON, "-c", ""], "python3"),
  "listenSocket: a socket that answers otherwise than refusing stays",
  async () => {
    const dir = await Deno.makeTempDir();
    const path = `${dir}/socket`;
    const owner = new Deno.Command(PYTHON, {
      args: ["-c", DATAGRAMS, path],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const stdout = owner.stdout.getReader();
    await stdout.read();
    const before = await Deno.lstat(path);
    await assertRejects(
      () => listenSocket({ path }, () => {}),
      SocketError,
      `Cannot listen on unix:${path}: the socket is in use`,
    );
    assertEquals((await Deno.lstat(path)).ino, before.ino);
    await owner.stdin.close();
    await stdout.cancel();
    await owner.status;
    await Deno.remove(dir, { recursive: true });
  },
);

/** A channel to a server that repeats. */
async function repeating(): Promise<Channel> {
  const [nearPair, farPair] = duplex();
  const [channel, peer] = await Promise.all([
    connectChannel(nearPair, { psk: PSK }),
    acceptChannel(farPair, { psk: PSK }),
  ]);
  peer.readable.pipeTo(peer.writable).catch(() => {});
  return channel;
}

/** What callers get through an entrance that dials so, and what it reports. */
async function throughEntrance(
  dial: () => Promise<Channel>,
  texts: string[],
): Promise<{ replies: PromiseSettledResult<string>[]; reports: string[] }> {
  const reports: string[] = [];
  const entrance = new Entrance(dial, (message) => reports.push(message));
  const carrying: Promise<void>[] = [];
  const { server, address } = await listenSocket(
    { host: "127.0.0.1", port: 0 },
    (socket) => carrying.push(entrance.carry(socket, FOREVER)),
  );
  const replies = await Promise.allSettled(texts.map(async (text) => {
    const socket = await connectSocket(address);
    socket.end(text);
    return await readAll(socket);
  }));
  await Promise.all(carrying);
  await new Promise((resolve) => server.close(resolve));
  return { replies, reports };
}

/** What a caller is told if it gets its text back. */
const repeated = (value: string) => ({ status: "fulfilled" as const, value });

// A server that is full, and a proxy whose servers are down, look like this.
for (const code of ["refused", "protocol", "cut"] as const) {
  test(`Entrance: a server comes back from ${code}, which is said once`, async () => {
    let dials = 0;
    const dial = async () => {
      if (++dials <= 3) throw new ChannelError(code, "Cannot connect");
      return await repeating();
    };
    const texts = ["a", "b", "c"];
    const { replies, reports } = await throughEntrance(dial, texts);
    assertEquals(replies, texts.map(repeated));
    assertEquals(reports, [
      "Cannot connect; trying again for each connection",
      "The server is back",
    ]);
  });
}

test("Entrance: who is not trusted is not dialled again, the caller reset", async () => {
  let dials = 0;
  const dial = () => {
    dials++;
    return Promise.reject(new ChannelError("untrusted", "Wrong name"));
  };
  const { replies, reports } = await throughEntrance(dial, ["a"]);
  assertEquals(replies[0]!.status, "rejected");
  assertEquals(dials, 1);
  assertEquals(reports, ["Wrong name; trying again for each connection"]);
});

test("Entrance: a caller that comes after the pause does not wait", async () => {
  let dials = 0;
  const entrance = new Entrance(() => {
    dials++;
    return Promise.reject(new ChannelError("untrusted", "Wrong name"));
  }, () => {});
  const clock = performance.now.bind(performance);
  const start = clock();
  try {
    for (let hours = 1; hours <= 5; hours++) {
      await entrance.carry(new Socket(), FOREVER);
      performance.now = () => clock() + 3_600_000 * hours;
    }
  } finally {
    performance.now = clock;
  }
  assertEquals(dials, 5);
  // With its pauses it would be 3 s.
  assertEquals(clock() - start < 1000, true);
});

test("Entrance: a signal ends a caller that waits, and its dialling", async () => {
  const dialled = Promise.withResolvers<void>();
  const reports: string[] = [];
  const entrance = new Entrance(
    (signal) => {
      // The first is dialled for when the signal comes, the second awaits its turn.
      if (reports.length === 0) throw new Error("Cannot connect");
      dialled.resolve();
      const { promise, reject } = Promise.withResolvers<never>();
      signal.addEventListener("abort", () => reject(signal.reason));
      return promise;
    },
    (message) => reports.push(message),
  );
  const stop = new AbortController();
  const carrying: Promise<void>[] = [];
  const { server, address } = await listenSocket(
    { host: "127.0.0.1", port: 0 },
    (socket) => carrying.push(entrance.carry(socket, stop.signal)),
  );
  const callers = await Promise.all([
    connectSocket(address),
    connectSocket(address),
  ]);
  await dialled.promise;
  stop.abort(new Error("Stop"));
  await Promise.all(
    callers.map((caller) => assertRejects(() => readAll(caller), Error)),
  );
  await Promise.all(carrying);
  assertEquals(reports, ["Cannot connect; trying again for each connection"]);
  await new Promise((resolve) => server.close(resolve));
});

/** A service that greets, then repeats. */
async function greeter(
  address: { host: string; port: number } | { path: string },
) {
  return await listenSocket(address, (socket) => {
    socket.write("hello ");
    socket.pipe(socket);
  });
}

testPrograms(
  "--forward, --listen: a service that speaks first, over TCP",
  async (dir) => {
    const { server, address } = await greeter({ host: "127.0.0.1", port: 0 });
    const { port } = address as { port: number };
    const backend = `127.0.0.1:${port}`;
    await using exit = await TestServer.start([
      ...serverFlags(dir),
      ...["--forward", backend],
    ]);
    await using entrance = await TestEntrance.start(dir, exit.port);
    const replies = await Promise.all(
      Array.from({ length: 8 }, async (_, i) => {
        const socket = await connectSocket(entrance.address);
        socket.end(`${i}`.repeat(100_000));
        return await readAll(socket);
      }),
    );
    replies.forEach((reply, i) =>
      assertEquals(reply === "hello " + `${i}`.repeat(100_000), true)
    );
    // Nobody at the backend: the caller is reset, the log says why.
    await new Promise((resolve) => server.close(resolve));
    const socket = await connectSocket(entrance.address);
    await assertRejects(() => readAll(socket), Error);
    assertEquals((await entrance.stop()).code, 0);
    assertMatch(
      await exit.stop(),
      new RegExp(`backend \\(Cannot reach ${backend}: connection refused`),
    );
  },
);

testPrograms("--forward, --listen: over Unix sockets", async (dir) => {
  const { server } = await greeter({ path: `${dir}/back` });
  await using exit = await TestServer.start([
    ...serverFlags(dir),
    ...["--forward", `unix:${dir}/back`],
  ]);
  // One that was killed left its socket behind.
  const front = `unix:${dir}/front`;
  const killed = await TestEntrance.start(dir, exit.port, front);
  killed.child.kill("SIGKILL");
  await killed.child.status;
  await killed.reader.cancel();
  await killed.log;
  await using _ = await TestEntrance.start(dir, exit.port, front);
  const socket = await connectSocket({ path: `${dir}/front` });
  socket.end("you");
  assertEquals(await readAll(socket), "hello you");
  await new Promise((resolve) => server.close(resolve));
});

testPrograms("--listen: the server may come later, and go", async (dir) => {
  const { server, address } = await greeter({ host: "127.0.0.1", port: 0 });
  const { port } = address as { port: number };
  const flags = [
    ...serverFlags(dir),
    ...["--forward", `127.0.0.1:${port}`],
  ];
  const exitPort = freePort();
  await using entrance = await TestEntrance.start(dir, exitPort);
  const ask = async (text: string) => {
    const socket = await connectSocket(entrance.address);
    socket.end(text);
    return await readAll(socket);
  };
  for (const text of ["you", "again"]) {
    // The caller waits while the server starts.
    const reply = ask(text);
    await using _ = await TestServer.start(flags, exitPort);
    assertEquals(await reply, `hello ${text}`);
  }
  const { log } = await entrance.stop();
  assertEquals(log.match(/Cannot connect/g)?.length, 2, log);
  assertEquals(log.match(/The server is back/g)?.length, 2, log);
  await new Promise((resolve) => server.close(resolve));
});

/** Has a client that carries a caller to a backend stopped, with `--grace 0`. */
async function stopWhile(
  dir: string,
  onSocket: (socket: Socket) => void,
  busy: (caller: Socket) => Promise<void>,
): Promise<void> {
  const backends: Socket[] = [];
  const { server, address } = await listenSocket(
    { host: "127.0.0.1", port: 0 },
    (socket) => {
      backends.push(socket);
      onSocket(socket);
    },
  );
  const { port } = address as { port: number };
  await using exit = await TestServer.start([
    ...serverFlags(dir),
    ...["--forward", `127.0.0.1:${port}`],
  ]);
  const client = start("client", [
    ...clientFlags(dir, exit.port),
    ...["--listen", "0", "--grace", "0"],
  ]);
  await client.stdin.close();
  const log = new Response(client.stderr).text();
  const stdout = client.stdout.getReader();
  const ready = new TextDecoder().decode((await stdout.read()).value);
  const caller = await connectSocket(parseAddress(ready.slice(13).trim())!);
  const broken = assertRejects(() => readAll(caller), Error);
  await busy(caller);
  client.kill("SIGTERM");
  assertEquals((await client.status).code, 1);
  assertMatch(await log, /stopped: 1 caller had to be cut\n$/);
  const { code } = await broken as NodeJS.ErrnoException;
  // Who writes at that moment is told so.
  assertMatch(code!, /ECONNRESET|EPIPE/);
  await stdout.cancel();
  for (const socket of [caller, ...backends]) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
}

testPrograms("--listen --grace: a caller that has half-closed", async (dir) => {
  const ended = Promise.withResolvers<void>();
  await stopWhile(
    dir,
    (backend) => {
      backend.on("error", () => {}).on("end", ended.resolve).resume();
    },
    async (caller) => {
      caller.end("a question that gets no answer");
      await ended.promise;
    },
  );
});

testPrograms("--listen --grace: a backend that does not read", async (dir) => {
  const dialled = Promise.withResolvers<void>();
  await stopWhile(
    dir,
    (backend) => {
      backend.on("error", () => {});
      dialled.resolve();
    },
    async (caller) => {
      caller.on("error", () => {}).write(new Uint8Array(50_000_000));
      await dialled.promise;
    },
  );
});

testPrograms("--listen, --forward: an address that cannot be", async (dir) => {
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
      "perhaps by the same service here; choose another with --listen\n",
  );
  const flags = [...serverFlags(dir), "--port", "0"];
  const none = await run("server", [...flags, "--forward", "localhost:0"]);
  assertEquals(none.code, 2);
  assertMatch(none.stderr, /^server: --forward takes .*, not localhost:0\n$/);
});
