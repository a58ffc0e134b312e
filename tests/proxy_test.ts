/** Where TLS ends early: HAProxy, with deploy/haproxy.cfg, and one of our own. */

import { assertEquals, assertMatch } from "@std/assert";
import { toText } from "@std/streams";
import { connect } from "../lib/deno.ts";
import { type Channel, ChannelError } from "../lib/mod.ts";
import { launch } from "./limit.ts";
import { ask } from "./plain_peers.ts";
import {
  clientFlags,
  freePort,
  programTests,
  run,
  serverFlags,
  TestEntrance,
  TestServer,
} from "./programs.ts";
import { lacksProgram } from "./requirements.ts";

const CONFIG = `${import.meta.dirname}/../deploy/haproxy.cfg`;
const testAlone = programTests("proxy: ");
const noHaproxy = lacksProgram(["haproxy", "-v"], "haproxy");
const test = (name: string, fn: (dir: string) => Promise<void>) =>
  testAlone(name, fn, noHaproxy);

/** Of HAProxy's statistics. */
enum Column {
  sessions = 4,
  status = 17,
}

/** HAProxy, before some servers, in all three ways. */
class HaProxy implements AsyncDisposable {
  readonly through = freePort();
  readonly ending = freePort();
  readonly endingPlain = freePort();
  /** Of all three ways. */
  readonly ports = [this.through, this.ending, this.endingPlain];
  readonly #admin: string;
  readonly #child: Deno.ChildProcess;

  constructor(dir: string, tls: number[], plain: number) {
    this.#admin = `${dir}/admin.sock`;
    const at = (port: number) => `127.0.0.1:${port}`;
    const servers = [0, 1, 2, 3].map((i) =>
      [`INNERLOCK_SERVER_${i + 1}`, at(tls[i % tls.length]!)] as const
    );
    this.#child = launch("haproxy", {
      args: ["-f", `${dir}/haproxy.cfg`],
      env: {
        ...Object.fromEntries(servers),
        INNERLOCK_THROUGH: at(this.through),
        INNERLOCK_ENDING: at(this.ending),
        INNERLOCK_ENDING_PLAIN: at(this.endingPlain),
        INNERLOCK_PLAIN_1: at(plain),
        INNERLOCK_ADMIN: this.#admin,
        INNERLOCK_PEM: `${dir}/proxy.pem`,
        INNERLOCK_CA: `${dir}/cert.pem`,
      },
      stdin: "null",
      stdout: "null",
      stderr: "null",
    });
  }

  /**
   * @param dir Its certificate comes from there too.
   * @param limits What takes the place of its times.
   */
  static async start(
    dir: string,
    tls: number[],
    plain = freePort(),
    limits: Record<string, string> = {},
  ) {
    const read = (file: string) => Deno.readTextFile(`${dir}/${file}`);
    const pem = await read("cert.pem") + await read("key.pem");
    await Deno.writeTextFile(`${dir}/proxy.pem`, pem, { mode: 0o600 });
    let config = await Deno.readTextFile(CONFIG);
    for (const [name, time] of Object.entries(limits)) {
      const [given] = new RegExp(`${name} \\d+\\w+`).exec(config)!;
      config = config.replace(given, `${name} ${time}`);
    }
    await Deno.writeTextFile(`${dir}/haproxy.cfg`, config);
    const proxy = new HaProxy(dir, tls, plain);
    const deadline = performance.now() + 10_000;
    // It says nowhere that it listens.
    while (performance.now() < deadline) {
      try {
        await proxy.ask("show info");
        return proxy;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
    throw new Error("HAProxy did not start");
  }

  /** What it answers to a command at its admin socket. */
  async ask(command: string): Promise<string> {
    return await ask({ path: this.#admin }, `${command}\n`);
  }

  /** Sends a server no more clients, and waits until it has none. */
  async drain(server: string): Promise<void> {
    await this.ask(`set server ${server} state drain`);
    await this.#until(server, Column.sessions, "0");
  }

  /** Waits until none of a backend's servers answers. */
  async down(backend: string): Promise<void> {
    await this.#until(`${backend}/BACKEND`, Column.status, "DOWN");
  }

  /** Waits until its statistics say this. */
  async #until(server: string, column: Column, value: string): Promise<void> {
    const [backend, name] = server.split("/");
    while (true) {
      const stat = await this.ask("show stat");
      const line = stat.split("\n").find((line) =>
        line.startsWith(`${backend},${name},`)
      );
      if (line?.split(",")[column] === value) return;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.status;
  }
}

async function dial(
  dir: string,
  port: number,
  options: { idleTimeout?: number } = {},
): Promise<Channel> {
  return await connect({
    ...options,
    port,
    caCerts: [await Deno.readTextFile(`${dir}/cert.pem`)],
    psk: await Deno.readTextFile(`${dir}/psk.txt`),
  });
}

/** Has a first word answered: the server has logged the channel by then. */
async function greet(channel: Channel): Promise<void> {
  const writer = channel.writable.getWriter();
  await writer.write(new TextEncoder().encode("hi"));
  writer.releaseLock();
  const reader = channel.readable.getReader();
  await reader.read();
  reader.releaseLock();
}

async function say(channel: Channel, line: string): Promise<void> {
  const [reply] = await Promise.all([
    toText(channel.readable),
    new Blob([line]).stream().pipeTo(channel.writable),
  ]);
  assertEquals(reply, line.toUpperCase());
  await channel.closed;
}

/** How a TLS client begins: a whole ClientHello. */
async function clientHello(): Promise<Uint8Array> {
  using listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  using client = await Deno.connectTls({ port: listener.addr.port });
  client.handshake().catch(() => {});
  using conn = await listener.accept();
  const buffer = new Uint8Array(16_384);
  return buffer.subarray(0, (await conn.read(buffer))!);
}

/** Reads until the other side closes or resets the connection. */
async function ended(conn: Deno.Conn): Promise<void> {
  const buffer = new Uint8Array(16_384);
  while (await conn.read(buffer).catch(() => null));
}

test("HAProxy passes TLS through, ends it, and ends it for good", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const flags = ["--psk", `${dir}/psk.txt`, "--no-tls"];
  await using plain = await TestServer.start(flags);
  await using proxy = await HaProxy.start(dir, [server.port], plain.port);
  for (const port of proxy.ports) {
    const { text, stderr } = await run("client", [
      ...clientFlags(dir, port),
      "straße",
    ]);
    assertEquals([text, stderr], ["STRASSE\n", ""]);
  }
});

test("HAProxy ends a handshake that has stalled, and no quiet channel", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const flags = ["--psk", `${dir}/psk.txt`, "--no-tls"];
  await using plain = await TestServer.start(flags);
  await using proxy = await HaProxy.start(dir, [server.port], plain.port, {
    "timeout client": "3s",
    "inspect-delay": "1s",
  });
  const openings = [
    new Uint8Array(0),
    Uint8Array.fromHex("16030100f0010000ec"),
  ];
  const descriptors = async () =>
    (await server.usage()).descriptors + (await plain.usage()).descriptors;
  for (const port of proxy.ports) {
    const quiet = await dial(dir, port);
    await greet(quiet);
    const before = await descriptors();
    const stalled = await Promise.all(
      Array.from({ length: 40 }, async (_, i) => {
        const conn = await Deno.connect({ port });
        await conn.write(openings[i % openings.length]!);
        return conn;
      }),
    );
    await say(await dial(dir, port), "honest");
    // None of them has reached a server.
    assertEquals(await descriptors() <= before + 2, true);
    for (const conn of stalled) {
      await ended(conn);
      conn.close();
    }
    await say(quiet, "still here");
  }
});

test("HAProxy ends what is silent, and pings keep a channel", async (dir) => {
  const patient = ["--handshake-timeout", "3600"];
  await using server = await TestServer.start([
    ...serverFlags(dir),
    ...patient,
  ]);
  const flags = ["--psk", `${dir}/psk.txt`, "--no-tls"];
  await using plain = await TestServer.start([...flags, ...patient]);
  await using proxy = await HaProxy.start(dir, [server.port], plain.port, {
    "timeout client": "3s",
    "timeout tunnel": "6s",
  });
  const hello = await clientHello();
  await Promise.all(proxy.ports.map(async (port) => {
    const quiet = await dial(dir, port, { idleTimeout: 1000 });
    await greet(quiet);
    const caCerts = [await Deno.readTextFile(`${dir}/cert.pem`)];
    using silent = await Deno.connectTls({ port, caCerts });
    await silent.handshake();
    using stalled = await Deno.connect({ port });
    await stalled.write(hello);
    await Promise.all([ended(silent), ended(stalled)]);
    await say(quiet, "still here");
  }));
});

test("all servers down: --listen waits for one", async (dir) => {
  const port = freePort();
  await using proxy = await HaProxy.start(dir, [port], freePort(), {
    "check inter": "200ms",
  });
  await proxy.down("servers");
  await proxy.down("servers_tls");
  const words = async (port: number) => {
    const { code, stderr } = await run("client", [
      ...clientFlags(dir, port),
      "hello",
    ]);
    return `${code} ${stderr}`;
  };
  assertMatch(
    await words(proxy.through),
    /^1 .* cut the connection during the TLS/,
  );
  // Where TLS ends early nobody says why; but no server has seen the key.
  assertMatch(
    await words(proxy.ending),
    /^1 .* closed the connection without an answer/,
  );
  const entrances = [
    await TestEntrance.start(dir, proxy.through),
    await TestEntrance.start(dir, proxy.ending),
  ];
  const replies = entrances.map(({ address }) => ask(address, "hello"));
  await using _ = await TestServer.start(serverFlags(dir), port);
  assertEquals(await Promise.all(replies), ["HELLO", "HELLO"]);
  for (const entrance of entrances) {
    const { log } = await entrance.stop();
    assertMatch(log, /trying again[^]*Connected to the server again/);
  }
});

test("four servers, one killed: only its own channels are cut", async (dir) => {
  const servers = await Promise.all(
    [1, 2, 3, 4].map(() => TestServer.start(serverFlags(dir))),
  );
  await using proxy = await HaProxy.start(dir, servers.map(({ port }) => port));
  const channels = await Promise.all(
    Array.from({ length: 16 }, () => dial(dir, proxy.through)),
  );
  await Promise.all(channels.map(greet));
  const killed = servers[2]!;
  const log = await killed.stop();
  const lost = log.match(/ connected$/gm)!.length;
  const outcomes = await Promise.allSettled(
    channels.map((channel, i) => say(channel, `channel ${i} `.repeat(9999))),
  );
  const failures = outcomes.filter(({ status }) => status === "rejected");
  assertEquals(failures.length, lost);
  for (const failure of failures) {
    const { reason } = failure as PromiseRejectedResult;
    assertEquals((reason as ChannelError).code, "cut");
  }
  for (let i = 0; i < 8; i++) await say(await dial(dir, proxy.through), "on");
  for (const server of servers) await server.stop();
});

test("four servers, each replaced: no new connection fails", async (dir) => {
  const ports = [1, 2, 3, 4].map(freePort);
  const servers = await Promise.all(
    ports.map((port) => TestServer.start(serverFlags(dir), port)),
  );
  await using proxy = await HaProxy.start(dir, ports);
  let isOver = false;
  let count = 0;
  const load = Array.from({ length: 4 }, async () => {
    while (!isOver) {
      await say(await dial(dir, proxy.through), "a line");
      count++;
    }
  });
  const replacing = (async () => {
    for (const [i, port] of ports.entries()) {
      const name = `servers/${["one", "two", "three", "four"][i]}`;
      await proxy.drain(name);
      servers[i]!.signal("SIGTERM");
      assertEquals(await servers[i]!.exitCode(), 0);
      await servers[i]!.stop();
      servers[i] = await TestServer.start(serverFlags(dir), port);
      await proxy.ask(`set server ${name} state ready`);
    }
    isOver = true;
  })();
  await Promise.all([replacing, ...load]);
  assertEquals(count > 0, true);
  for (const server of servers) await server.stop();
});

testAlone("--reuse-port: two servers share a port", async (dir) => {
  const flags = [...serverFlags(dir), "--reuse-port"];
  await using one = await TestServer.start(flags);
  await using two = await TestServer.start(flags, one.port);
  const seen = Promise.all([one.logged("connected"), two.logged("connected")]);
  let isSeen = false;
  seen.then(() => isSeen = true);
  // The system deals clients out at random.
  while (!isSeen) await say(await dial(dir, one.port), "hello");
});

testAlone("who ends TLS reads nothing but ciphertext", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const cert = await Deno.readTextFile(`${dir}/cert.pem`);
  const key = await Deno.readTextFile(`${dir}/key.pem`);
  using listener = Deno.listenTls({ port: 0, cert, key });
  const read: Uint8Array[] = [];
  const relay = async (from: Deno.TlsConn, to: Deno.TlsConn) => {
    for await (const chunk of from.readable) {
      read.push(chunk);
      for (let at = 0; at < chunk.length;) {
        at += await to.write(chunk.subarray(at));
      }
    }
    await to.closeWrite().catch(() => {});
  };
  const proxying = (async () => {
    const client = await listener.accept();
    const { port } = server;
    const backend = await Deno.connectTls({ port, caCerts: [cert] });
    await Promise.all([relay(client, backend), relay(backend, client)]);
  })();
  const secret = "A secret that a proxy would like to read. ".repeat(5000);
  await say(await dial(dir, listener.addr.port), secret);
  await proxying.catch(() => {});
  const seen = new TextDecoder("latin1").decode(
    await new Blob(read as BlobPart[]).bytes(),
  );
  assertEquals(seen.length > 2 * secret.length, true);
  assertMatch(seen, /^..innerlock\/1 default/);
  for (const said of [secret, secret.toUpperCase()]) {
    for (let at = 0; at + 8 <= 50; at++) {
      assertEquals(seen.includes(said.slice(at, at + 8)), false);
    }
  }
});
