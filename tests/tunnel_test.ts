import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import {
  acceptChannel,
  type Channel,
  ChannelError,
  connectChannel,
} from "../lib/mod.ts";
import { parseAddress } from "../tunnel/address.ts";
import { Entrance } from "../tunnel/entrance.ts";
import { relay } from "../tunnel/relay.ts";
import { connectSocket, listenSocket, SocketError } from "../tunnel/socket.ts";
import { duplex, PSK } from "./duplex.ts";
import {
  makeCerts,
  MAY_RUN,
  serverFlags,
  TestEntrance,
  TestServer,
} from "./programs.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const test = (name: string, fn: () => Promise<void>) =>
  testUnless(lacksPermissions("net"), name, fn);
const testPrograms = (name: string, fn: () => Promise<void>) =>
  testUnless(lacksPermissions(...MAY_RUN), name, fn);

Deno.test("parseAddress: hosts, addresses, ports, Unix sockets", () => {
  assertEquals(parseAddress("a.example:80"), { host: "a.example", port: 80 });
  assertEquals(parseAddress("[::1]:65535"), { host: "::1", port: 65_535 });
  assertEquals(parseAddress("80", "127.0.0.1"), {
    host: "127.0.0.1",
    port: 80,
  });
  assertEquals(parseAddress("unix:/run/x"), { path: "/run/x" });
  for (
    const text of ["80", "a:65536", "::1:80", "a:", ":80", "unix:", "a b:1"]
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
  const relayed = relay(channel, near, "The caller");
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
  const relayed = begin(t);
  const total = 50_000_000;
  const writer = t.peer.writable.getWriter();
  let sent = 0;
  const writing = (async () => {
    for (; sent < total; sent += 65_536) {
      await writer.write(new Uint8Array(65_536));
    }
    await writer.close();
  })();
  // The caller does not read: what fits into buffers is all that is taken.
  let before = -1;
  while (before !== sent) {
    before = sent;
    for (let i = 0; i < 100; i++) await new Promise((r) => setTimeout(r));
  }
  assertEquals(sent < total / 2, true, `${sent} bytes were taken`);
  let received = 0;
  for await (const chunk of t.caller.iterator({ destroyOnReturn: false })) {
    received += chunk.length;
  }
  t.caller.end();
  await writing;
  assertEquals(received, sent);
  await new Response(t.peer.readable).text();
  await relayed;
});

/** An address where nobody listens. */
function nowhere(): { host: string; port: number } {
  using listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  return { host: "127.0.0.1", port: listener.addr.port };
}

test("connectSocket: nobody there is a SocketError", async () => {
  const address = nowhere();
  await assertRejects(
    () => connectSocket(address),
    SocketError,
    `Cannot reach 127.0.0.1:${address.port}`,
  );
});

test("Entrance: a server that comes back is said once, as that it was away", async () => {
  const reports: string[] = [];
  let isAway = true;
  const entrance = new Entrance(
    async () => {
      if (isAway) throw new Error("Cannot connect");
      const [nearPair, farPair] = duplex();
      const [channel, peer] = await Promise.all([
        connectChannel(nearPair, { psk: PSK }),
        acceptChannel(farPair, { psk: PSK }),
      ]);
      peer.readable.pipeTo(peer.writable);
      return channel;
    },
    (message) => {
      reports.push(message);
      // It comes back after the first report.
      isAway = false;
    },
  );
  const carrying: Promise<void>[] = [];
  const { server, address } = await listenSocket(
    { host: "127.0.0.1", port: 0 },
    (socket) => carrying.push(entrance.carry(socket)),
  );
  const replies = await Promise.all(["a", "b", "c"].map(async (text) => {
    const socket = await connectSocket(address);
    socket.end(text);
    return await readAll(socket);
  }));
  assertEquals(replies, ["a", "b", "c"]);
  assertEquals(reports, [
    "Cannot connect; trying again for each connection",
    "The server is back",
  ]);
  await Promise.all(carrying);
  await new Promise((resolve) => server.close(resolve));
});

test("Entrance: a refusal is not tried again, and resets the caller", async () => {
  const reports: string[] = [];
  let dials = 0;
  const entrance = new Entrance(
    () => {
      dials++;
      return Promise.reject(new ChannelError("refused", "Wrong key"));
    },
    (message) => reports.push(message),
  );
  const carried = Promise.withResolvers<void>();
  const { server, address } = await listenSocket(
    { host: "127.0.0.1", port: 0 },
    (socket) => entrance.carry(socket).then(carried.resolve),
  );
  const socket = await connectSocket(address);
  await assertRejects(() => readAll(socket), Error);
  await carried.promise;
  assertEquals(dials, 1);
  assertEquals(reports, ["Wrong key; trying again for each connection"]);
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
  async () => {
    const dir = await makeCerts();
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
      new RegExp(`backend \\(Cannot reach ${backend}: .*ECONNREFUSED`),
    );
    await Deno.remove(dir, { recursive: true });
  },
);

testPrograms("--forward, --listen: over Unix sockets", async () => {
  const dir = await makeCerts();
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
  await Deno.remove(dir, { recursive: true });
});

testPrograms("--listen: the server may come later, and go", async () => {
  const dir = await makeCerts();
  const { server, address } = await greeter({ host: "127.0.0.1", port: 0 });
  const { port } = address as { port: number };
  const { port: exitPort } = nowhere();
  const flags = [
    ...serverFlags(dir),
    ...["--forward", `127.0.0.1:${port}`],
  ];
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
  await Deno.remove(dir, { recursive: true });
});
