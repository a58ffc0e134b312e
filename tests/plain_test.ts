/** Plain connections and their listeners, and how they break. */

import {
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertRejects,
} from "@std/assert";
import { type Address, format, parseAddress } from "../tunnel/address.ts";
import { connectPlain, listenPlain, PlainError } from "../tunnel/plain.ts";
import { type Resettable, resettable } from "../tunnel/resettable.ts";
import { launch, printed } from "./limit.ts";
import {
  callAndReset,
  connectedPair,
  connectTo,
  flood,
  hear,
  heardEnd,
} from "./plain_peers.ts";
import { freePort, MAY_RUN, spawn } from "./programs.ts";
import {
  lacksPermissions,
  lacksProgram,
  testInFolder,
  testUnless,
} from "./requirements.ts";

const test = (name: string, fn: () => Promise<void>) =>
  testUnless(lacksPermissions("net"), name, fn);
/** With a folder for its sockets. */
const testUnix = (
  name: string,
  fn: (dir: string) => Promise<void>,
  reason = lacksPermissions("net", "read", "write"),
) => testInFolder(reason, name, fn);

/** Stops nothing. */
const FOREVER = new AbortController().signal;

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

testUnless(
  lacksPermissions(...MAY_RUN),
  "listenPlain: callers that are reset in the queue hold up nobody",
  async () => {
    let pauses = 0;
    const listener = await listenPlain({ host: "127.0.0.1", port: 0 }, {
      pause: () => Promise.resolve(void pauses++),
    });
    const { port } = listener.address as { port: number };
    const accepting = listener.accept();
    callAndReset(port, 20);
    const caller = await connectTo({ host: "127.0.0.1", port });
    const accepted = (await accepting)!;
    assertEquals(pauses, 0);
    for (const conn of [accepted, caller]) conn.close();
    await listener.close();
  },
);

test("connectPlain: nobody there is a PlainError", async () => {
  const port = freePort();
  const refusals: [Address, string][] = [
    [{ host: "127.0.0.1", port }, "connection refused"],
    [{ path: "/nowhere" }, "there is no such socket"],
  ];
  for (const [address, why] of refusals) {
    await assertRejects(
      () => connectPlain(address, FOREVER),
      PlainError,
      `Cannot reach ${format(address)}: ${why}; is the service running?`,
    );
  }
});

testUnix("listenPlain: what cannot be had is said in words", async (dir) => {
  using taken = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  await Deno.writeTextFile(`${dir}/file`, "");
  const { port } = taken.addr;
  const refusals: [Address, string][] = [
    [{ host: "127.0.0.1", port }, "the port is in use"],
    [{ host: "192.0.2.1", port: 0 }, "this machine has no such address"],
    [{ path: "/nowhere/x" }, "there is no such folder"],
    [{ path: `${dir}/${"a".repeat(200)}` }, "the path is too long"],
    [{ path: `${dir}/file` }, "a file of that name exists"],
  ];
  for (const [address, why] of refusals) {
    await assertRejects(
      () => listenPlain(address),
      PlainError,
      `Cannot listen on ${format(address)}: ${why}`,
    );
  }
});

testUnix(
  "listenPlain: a socket that cannot take its place is closed",
  async (dir) => {
    const { rename } = Deno;
    Deno.rename = () => Promise.reject(new Deno.errors.PermissionDenied());
    try {
      await assertRejects(
        () => listenPlain({ path: `${dir}/x` }),
        PlainError,
      );
    } finally {
      Deno.rename = rename;
    }
    assertEquals(Array.from(Deno.readDirSync(dir)), []);
  },
);

for (const kind of ["TCP", "Unix"]) {
  testUnix(
    `listenPlain: accepts over ${kind} until it is closed`,
    async (dir) => {
      const listener = await listenPlain(
        kind === "TCP" ? { host: "127.0.0.1", port: 0 } : { path: `${dir}/x` },
      );
      const caller = await connectTo(listener.address);
      const near = await listener.accept();
      const waiting = listener.accept();
      await listener.close();
      assertEquals(await waiting, undefined);
      // Who was accepted lives on.
      await near!.closeWrite();
      await heardEnd(caller);
      near!.close();
      caller.close();
    },
  );
}

testUnix(
  "listenPlain: it closes, though the folder of its socket is gone",
  async (dir) => {
    await Deno.mkdir(`${dir}/sockets`);
    const listener = await listenPlain({ path: `${dir}/sockets/x` });
    await Deno.remove(`${dir}/sockets`, { recursive: true });
    await listener.close();
    assertEquals(await listener.accept(), undefined);
  },
);

testUnix(
  "listenPlain: a socket that is another's by now stays",
  async (dir) => {
    const path = `${dir}/socket`;
    const first = await listenPlain({ path });
    await Deno.remove(path);
    const second = await listenPlain({ path });
    await first.close();
    const caller = await connectTo({ path });
    const near = await second.accept();
    near!.close();
    caller.close();
    await second.close();
    await assertRejects(() => Deno.lstat(path), Deno.errors.NotFound);
    // Nothing else is left in the folder.
    assertEquals([...Deno.readDirSync(dir)], []);
  },
);

const mayRun = lacksPermissions(...MAY_RUN);

const CONTENDER = `${import.meta.dirname}/testdata/contender.ts`;

testUnix("listenPlain: of two at a stale socket one gets it", async (dir) => {
  const path = `${dir}/socket`;
  const contenders = [1, 2].map(() => {
    const child = spawn([
      ...[Deno.execPath(), "run", "--no-prompt", "--no-check", "--allow-net"],
      ...["--allow-read", "--allow-write", CONTENDER, path],
    ]);
    return {
      child,
      stdin: child.stdin.getWriter(),
      stdout: child.stdout.pipeThrough(new TextDecoderStream()).getReader(),
      stderr: child.stderr.cancel(),
    };
  });
  const heard = () =>
    Promise.all(
      contenders.map(async ({ stdout }) => (await stdout.read()).value),
    );
  const go = async () => {
    for (const { stdin } of contenders) await stdin.write(new Uint8Array([10]));
    return await heard();
  };
  assertEquals(await heard(), ["ready", "ready"]);
  for (let round = 0; round < 20; round++) {
    // What was bound and is not listened at any more refuses.
    const stale = Deno.listen({ transport: "unix", path: `${path}.was` });
    await Deno.rename(`${path}.was`, path);
    stale.close();
    assertEquals((await go()).toSorted(), ["mine", "not mine"]);
    await go();
    await assertRejects(() => Deno.lstat(path), Deno.errors.NotFound);
  }
  for (const { child, stdin, stdout, stderr } of contenders) {
    await stdin.close();
    await stdout.cancel();
    await stderr;
    await child.status;
  }
}, mayRun);

const PYTHON = "/usr/bin/python3";
/** Makes the socket that is named, and keeps it, without taking connections. */
const DATAGRAMS = `import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.bind(sys.argv[1]), print(flush=True), sys.stdin.read()`;

testUnix(
  "listenPlain: a socket that answers otherwise than refusing stays",
  async (dir) => {
    const path = `${dir}/socket`;
    const owner = launch(PYTHON, {
      args: ["-c", DATAGRAMS, path],
      stdin: "piped",
      stdout: "piped",
    });
    const stdout = owner.stdout.getReader();
    await stdout.read();
    const before = await Deno.lstat(path);
    await assertRejects(
      () => listenPlain({ path }),
      PlainError,
      `Cannot listen on unix:${path}: the socket is in use`,
    );
    assertEquals((await Deno.lstat(path)).ino, before.ino);
    await owner.stdin.close();
    await stdout.cancel();
    await owner.status;
  },
  mayRun ?? lacksProgram([PYTHON, "-c", ""], "python3"),
);

/** What a connection and its peer are doing when it is reset. */
const STATES: Record<
  string,
  (conn: Resettable, peer: Deno.TcpConn) => void | Promise<void>
> = {
  "nothing": () => {},
  "reading": (conn) => void conn.read(new Uint8Array(1)).catch(() => {}),
  "with data that it has not read": async (_, peer) => {
    await peer.write(new Uint8Array(100));
  },
  "with data that its peer has not read": async (conn) => {
    await conn.write(new Uint8Array(100_000));
  },
  "writing, and the peer reads": (conn) => void flood(conn),
  "writing, and the peer does not read": (conn) => flood(conn),
};

for (const [state, enter] of Object.entries(STATES)) {
  for (const isHalfClosed of [false, true]) {
    const name = isHalfClosed ? `${state}, the peer has half-closed` : state;
    test(`resettable: a reset while it is doing ${name}`, async () => {
      const [peer, near] = await connectedPair();
      const conn = resettable(near);
      if (isHalfClosed) {
        await peer.closeWrite();
        await heardEnd(conn);
      }
      const isReading = !/not read/.test(state);
      const hearing = isReading ? hear(peer) : undefined;
      if (!(isHalfClosed && /it has not/.test(state))) await enter(conn, peer);
      conn.reset();
      assertEquals((await (hearing ?? hear(peer))).end, "ConnectionReset");
      await assertRejects(() => conn.read(new Uint8Array(1)), Error);
      await assertRejects(() => conn.write(new Uint8Array(1)), Error);
      // Once more is nothing.
      conn.reset();
      conn.close();
      peer.close();
    });
  }
}

for (const internals of [undefined, null]) {
  const name = internals === null ? "Deno.Conn alone" : "internals";
  test(`resettable: closed, it ends what waits, by ${name}`, async () => {
    const [peer, near] = await connectedPair();
    const conn = resettable(near, internals);
    const reading = conn.read(new Uint8Array(1));
    const failed = assertRejects(() => reading, Error);
    conn.close();
    await failed;
    await heardEnd(peer);
    conn.close();
    peer.close();
  });

  test(`resettable: reads of any size, by ${name}`, async () => {
    const [peer, near] = await connectedPair();
    const conn = resettable(near, internals);
    const sent = crypto.getRandomValues(new Uint8Array(65_536));
    await peer.write(sent);
    await peer.closeWrite();
    const received: number[] = [];
    for (let size = 1;; size = size * 2 % 8191) {
      const buffer = new Uint8Array(size);
      const count = await conn.read(buffer);
      if (count === null) break;
      received.push(...buffer.subarray(0, count));
    }
    assertEquals(new Uint8Array(received), sent);
    conn.close();
    peer.close();
  });

  test(`resettable: a peer's reset is an error, behind what it has said, by ${name}`, async () => {
    const [peer, near] = await connectedPair();
    const conn = resettable(near, internals);
    await peer.write(new Uint8Array(10));
    assertEquals(await conn.read(new Uint8Array(4)), 4);
    resettable(peer).reset();
    assertNotEquals((await hear(conn)).end, "end");
    conn.reset();
  });
}

test("resettable: a reset ends a write, though the peer never reads", async () => {
  const [peer, near] = await connectedPair();
  const conn = resettable(near);
  await flood(conn);
  const writing = conn.write(new Uint8Array(1));
  const failed = assertRejects(() => writing, Error);
  conn.reset();
  await failed;
  peer.close();
});

testUnless(
  lacksPermissions(...MAY_RUN) ?? lacksProgram(["ss", "-V"], "ss"),
  "resettable: the system probes a peer that is silent",
  async () => {
    const [peer, near] = await connectedPair();
    const conn = resettable(near);
    const { port } = near.localAddr as Deno.NetAddr;
    const said = await printed(["ss", "-Htno", "sport", "=", `:${port}`]);
    assertMatch(said, /timer:\(keepalive,[34]min/);
    conn.close();
    peer.close();
  },
);
