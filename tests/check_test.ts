/** `client --check`: what it says of each step, and its exit code. */

import { assertEquals, assertMatch } from "@std/assert";
import { respond } from "../lib/lock/handshake.ts";
import { takePsks } from "../lib/lock/psk.ts";
import { Tracer } from "../lib/lock/trace.ts";
import { printed } from "./limit.ts";
import {
  clientFlags,
  command,
  environment,
  freePort,
  makeCerts,
  programTests,
  run,
  serverFlags,
  spawn,
  start,
  TestServer,
} from "./programs.ts";
import { lacksProgram } from "./requirements.ts";

const test = programTests("--check: ");

/** The lines, with what passed named only, and what failed in full. */
async function check(
  flags: string[],
  enter: string[] = [],
): Promise<{ code: number; passed: string; failed: string; text: string }> {
  const words = command("client", [...flags, "--check"]);
  const child = spawn([...enter, ...words], environment("client"));
  await child.stdin.close();
  const { code, stdout, stderr } = await child.output();
  const [text, complaints] = [stdout, stderr]
    .map((bytes) => new TextDecoder().decode(bytes)) as [string, string];
  assertEquals(complaints, "");
  const lines = text.trimEnd().split("\n");
  const named = (mark: string) =>
    lines.filter((line) => line.startsWith(mark))
      .map((line) => line.slice(mark.length + 1));
  const passed = named("✓").map((line) => line.split(":")[0]).join(", ");
  return { code, passed, failed: named("✗").join("\n"), text };
}

test("all is well", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const flags = clientFlags(dir, server.port);
  const { code, text } = await check(flags);
  assertEquals(code, 0);
  const day = String.raw`\d{4}-\d\d-\d\d`;
  assertMatch(
    text,
    new RegExp(
      String.raw`^✓ files: for localhost:${server.port} as default
✓ name: localhost is 127\.0\.0\.1\S*
✓ TCP: connected to 127\.0\.0\.1:${server.port}
✓ TLS: the server's own certificate, whose key --ca has; it expires on ${day}
✓ inner lock: the server has the key of default
✓ service: the server has the default service
✓ backend: it answers, with an end
✓ round trip: \d+\.\d ms, through both locks
✓ clock: it is ${day} at \d\d:\d\d UTC here, within .*, ${day} to ${day}
$`,
    ),
  );
  assertMatch((await check([...flags, "--websocket"])).passed, /, WebSocket, /);
});

test("nobody is there", async (dir) => {
  const { code, passed, failed } = await check(clientFlags(dir, freePort()));
  assertEquals([code, passed], [1, "files, name"]);
  assertMatch(failed, /^TCP: Cannot connect to .*: connection refused; is the/);
  const nowhere = [...clientFlags(dir, 1), "--host", "no.such.invalid"];
  const { failed: why } = await check(nowhere);
  assertMatch(why, /^name: there is no name no\.such\.invalid, or/);
});

/**
 * A network where 10.9.9.2 never answers, as behind a firewall; it is the name
 * server, too. To 10.8.8.8 there is no route.
 */
const SILENT_NETWORK = [
  ...["unshare", "--map-root-user", "--net", "--mount", "sh", "-ec"],
  `ip link set lo up
  ip link add near type veth peer name far
  ip address add 10.9.9.1/24 dev near
  ip link set near up
  ip link set far up
  ip neighbour add 10.9.9.2 lladdr 02:00:00:00:00:01 dev near
  ip route add unreachable 10.8.8.8
  mount -t tmpfs none /mnt
  echo nameserver 10.9.9.2 >/mnt/resolv.conf
  mount --bind /mnt/resolv.conf /etc/resolv.conf
  exec "$@"`,
  "sh",
];

test("no name server, no answer, no route", async (dir) => {
  for (
    const [flags, passed, failed] of [
      [
        ["--host", "db.example"],
        "files",
        "name: there is no name db.example, or the name server does not " +
        "answer; check --host",
      ],
      [
        ["--host", "10.9.9.2"],
        "files, name",
        "TCP: Cannot connect to 10.9.9.2:1: no answer within 1 s; the address " +
        "may be wrong, or a firewall may block it",
      ],
      [
        ["--host", "10.8.8.8"],
        "files, name",
        "TCP: Cannot connect to 10.8.8.8:1: there is no route to it; is it on, " +
        "and is the address right?",
      ],
      [
        ["--host", "10.7.7.7"],
        "files, name",
        "TCP: Cannot connect to 10.7.7.7:1: there is no route to its network; " +
        "is this machine online?",
      ],
      [
        ["--proxy", "http://10.9.9.2:3128", "--host", "db.example"],
        "files, name",
        "TCP: Cannot connect to the proxy 10.9.9.2:3128: no answer within 1 s; " +
        "the address may be wrong, or a firewall may block it; check --proxy",
      ],
    ] as const
  ) {
    const result = await check(
      [...clientFlags(dir, 1), "--handshake-timeout", "1", ...flags],
      SILENT_NETWORK,
    );
    assertEquals([result.code, result.passed, result.failed], [
      1,
      passed,
      failed,
    ]);
  }
}, lacksProgram([...SILENT_NETWORK, "true"], "unshare, ip and mount"));

/** A port where a new connection gets no answer. */
async function fullBacklog(): Promise<Disposable & { port: number }> {
  const resources = new DisposableStack();
  const hostname = "127.0.0.1";
  const listener = Deno.listen({ port: 0, hostname, tcpBacklog: 1 });
  resources.use(listener);
  const { port } = listener.addr;
  // With two in its queue, a third has to wait.
  for (let i = 0; i < 2; i++) {
    resources.use(await Deno.connect({ port, hostname }));
  }
  return { port, [Symbol.dispose]: () => resources.dispose() };
}

test("a TCP connection that nobody takes", async (dir) => {
  using full = await fullBacklog();
  const flags = [...clientFlags(dir, full.port), "--handshake-timeout", "1"];
  const { code, passed, failed } = await check(flags);
  assertEquals([code, passed], [1, "files, name"]);
  assertMatch(failed, /^TCP: .*: no answer within 1 s; .* firewall may block/);
});

/** Answers each client's first words so, or never, until it goes. */
async function reply(
  listener: Deno.Listener<Deno.Conn>,
  words = "",
): Promise<void> {
  const serve = async (conn: Deno.Conn) => {
    const read = () => conn.read(new Uint8Array(4096)).catch(() => null);
    await read();
    await conn.write(new TextEncoder().encode(words)).catch(() => {});
    while (await read() !== null);
    conn.close();
  };
  const serving: Promise<void>[] = [];
  for await (const conn of listener) serving.push(serve(conn));
  await Promise.all(serving);
}

/** A server with the right certificate, but with nothing of innerlock. */
async function listenTls(dir: string): Promise<Deno.TlsListener> {
  const read = (name: string) => Deno.readTextFile(`${dir}/${name}`);
  const [cert, key] = [await read("cert.pem"), await read("key.pem")];
  return Deno.listenTls({ hostname: "127.0.0.1", port: 0, cert, key });
}

test("somebody else is there", async (dir) => {
  for (
    const [listener, words, flags, passed, failed] of [
      [
        Deno.listen({ hostname: "127.0.0.1", port: 0 }),
        "220 mail.example\r\n",
        [],
        "files, name, TCP",
        /^TLS: The server .* did not speak TLS; is it innerlock\?$/,
      ],
      [
        Deno.listen({ hostname: "127.0.0.1", port: 0 }),
        undefined,
        [],
        "files, name, TCP",
        /^TLS: Connected to .*, but TLS did not begin within 1 s; is it innerlock\?$/,
      ],
      [
        await listenTls(dir),
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        [],
        "files, name, TCP, TLS",
        /^inner lock: .*HTTP\/1\.1 400 Bad Request.*, use --websocket$/,
      ],
      [
        await listenTls(dir),
        undefined,
        [],
        "files, name, TCP, TLS",
        /^inner lock: TLS .* works, but innerlock did not answer within 1 s: .*, use --websocket$/,
      ],
      [
        await listenTls(dir),
        "220 mail.example\r\n",
        ["--websocket"],
        "files, name, TCP, TLS",
        /^WebSocket: .*: it does not speak HTTP; try it without --websocket$/,
      ],
      [
        await listenTls(dir),
        undefined,
        ["--websocket"],
        "files, name, TCP, TLS",
        /^WebSocket: TLS .* works, but no WebSocket opened within 1 s; is it innerlock\?$/,
      ],
    ] as const
  ) {
    const replying = reply(listener, words);
    const { port } = listener.addr as Deno.NetAddr;
    const result = await check([
      ...[...clientFlags(dir, port), "--handshake-timeout", "1", ...flags],
    ]);
    listener.close();
    await replying;
    assertEquals([result.code, result.passed], [1, passed], result.text);
    assertMatch(result.failed, failed);
  }
});

test("another name than the certificate's", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const flags = [
    ...clientFlags(dir, server.port),
    "--server-name",
    "db.example",
  ];
  const { code, passed, failed } = await check(flags);
  assertEquals([code, passed], [3, "files, name, TCP"]);
  assertMatch(
    failed,
    /^TLS: .* is for localhost, .*, not for db\.example; use one of its names with --host or --server-name, .*; it showed a certificate of CN=innerlock, /,
  );
});

test("a client too many", async (dir) => {
  await using server = await TestServer.start([
    ...[...serverFlags(dir), "--max-per-client", "1"],
  ]);
  const flags = clientFlags(dir, server.port);
  const other = start("client", flags);
  await server.logged(" connected");
  const { code, passed, failed } = await check(flags);
  assertEquals([code, passed], [1, UP_TO_LOCK]);
  assertMatch(
    failed,
    /^service: The server has no room for more connections of default$/,
  );
  await other.stdin.close();
  await other.output();
});

test("another certificate than the one that is trusted", async (dir) => {
  const other = await makeCerts();
  await using server = await TestServer.start(serverFlags(other));
  const { code, passed, failed } = await check(clientFlags(dir, server.port));
  assertEquals([code, passed], [3, "files, name, TCP"]);
  assertMatch(
    failed,
    /^TLS: .* not trusted; .*; it showed a certificate of CN=innerlock, issued by CN=innerlock, key SHA-256 [0-9A-F:]{95}; if that is a box on the way that may end TLS, trust its CA with --ca FILE, or /,
  );
  await Deno.remove(other, { recursive: true });
});

test("a certificate of a trusted CA, perhaps a box's", async (dir) => {
  const openssl = (...args: string[]) => printed(["openssl", ...args]);
  const [ca, caKey] = [`${dir}/ca.pem`, `${dir}/ca-key.pem`];
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
  await openssl(
    ...["req", "-x509", "-noenc", ...key, "-keyout", caKey, "-out", ca],
    ...["-subj", "/CN=A CA", "-addext", "keyUsage=critical,keyCertSign"],
  );
  await openssl(
    ...["req", "-x509", "-key", `${dir}/key.pem`, "-subj", "/CN=A box"],
    ...["-CA", ca, "-CAkey", caKey, "-out", `${dir}/cert.pem`],
    ...["-addext", "subjectAltName=DNS:localhost"],
    ...["-addext", "basicConstraints=critical,CA:FALSE"],
  );
  await using server = await TestServer.start(serverFlags(dir));
  const flags = ["--port", `${server.port}`, "--psk", `${dir}/psk.txt`];
  const { code, text } = await check([...flags, "--ca", ca]);
  assertEquals(code, 0, text);
  assertMatch(
    text,
    /^✓ TLS: a certificate of CN=A box, issued by CN=A CA, .*; trusted through its issuer; /m,
  );
});

test("another key", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  await Deno.writeTextFile(`${dir}/other.txt`, `default:${"0e".repeat(32)}`, {
    mode: 0o600,
  });
  const flags = ["--port", `${server.port}`, "--ca", `${dir}/cert.pem`];
  const { code, passed, failed } = await check([
    ...[...flags, "--psk", `${dir}/other.txt`],
  ]);
  assertEquals([code, passed], [3, "files, name, TCP, TLS"]);
  assertMatch(failed, /^inner lock: .* has another key for it; copy its line/);
});

const UP_TO_LOCK = "files, name, TCP, TLS, inner lock";

test("a service that is not there, and a backend that is not", async (dir) => {
  await using server = await TestServer.start([
    ...[...serverFlags(dir), "--forward", `db=127.0.0.1:${freePort()}`],
  ]);
  for (
    const [flags, passed, why] of [
      [
        ["--connect", "web"],
        UP_TO_LOCK,
        "service: The server has no service web",
      ],
      [
        [],
        UP_TO_LOCK,
        "service: The server has no service without a name; name one with " +
        "--connect",
      ],
      [
        ["--connect", "db"],
        `${UP_TO_LOCK}, service`,
        "backend: The server cannot reach what stands behind db",
      ],
    ] as const
  ) {
    const result = await check([...clientFlags(dir, server.port), ...flags]);
    assertEquals([result.code, result.passed, result.failed], [1, passed, why]);
  }
});

test("a service, by the name of the key that opens it", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const flags = [...clientFlags(dir, server.port), "--connect", "dbx"];
  const { text } = await check(flags);
  assertMatch(text, /^✓ inner lock: the server has the key of default$/m);
});

test("a backend that says nothing is not known", async (dir) => {
  using backend = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const forward = ["--forward", `127.0.0.1:${backend.addr.port}`];
  await using server = await TestServer.start([
    ...serverFlags(dir),
    ...forward,
  ]);
  const flags = [...clientFlags(dir, server.port), "--handshake-timeout", "1"];
  const { code, passed, text } = await check(flags);
  assertEquals([code, passed], [
    1,
    `${UP_TO_LOCK}, service, round trip, clock`,
  ]);
  assertMatch(
    text,
    /^\? backend: no answer within 1 s: the server may still be trying to /m,
  );
});

test("a backend that greets is there", async (dir) => {
  using backend = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  (async () => {
    for await (const conn of backend) {
      await conn.write(new TextEncoder().encode("220 mail.example\r\n"));
      // It does not care that the client has said all.
      conn.readable.cancel();
    }
  })();
  const forward = ["--forward", `127.0.0.1:${backend.addr.port}`];
  await using server = await TestServer.start([
    ...serverFlags(dir),
    ...forward,
  ]);
  const { code, text } = await check(clientFlags(dir, server.port));
  assertEquals(code, 0, text);
  assertMatch(text, /^✓ backend: it answers$/m);
});

test("a server that proves its key, and then is mute", async (dir) => {
  const read = (name: string) => Deno.readTextFile(`${dir}/${name}`);
  const [cert, key] = [await read("cert.pem"), await read("key.pem")];
  using listener = Deno.listenTls({
    hostname: "127.0.0.1",
    port: 0,
    cert,
    key,
  });
  const psks = takePsks(await read("psk.txt"));
  const { promise: gone, resolve: leave } = Promise.withResolvers<void>();
  const work: Promise<unknown>[] = [];
  const accepting = (async () => {
    for await (const conn of listener) {
      const proven = respond(conn, psks, new Tracer(undefined)).catch(() => {});
      // It says nothing more, and hears no more.
      work.push(proven.then(() => gone).then(() => conn.close()));
    }
  })();
  const { port } = listener.addr;
  const flags = [...clientFlags(dir, port), "--handshake-timeout", "1"];
  const { code, passed, failed } = await check(flags);
  assertEquals([code, passed], [1, UP_TO_LOCK]);
  assertMatch(
    failed,
    /^service: the server has proved its key, but says nothing more: no answer within 1 s; /,
  );
  leave();
  listener.close();
  await accepting;
  await Promise.all(work);
});

test("the server's log has nothing but the client that came", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const flags = clientFlags(dir, server.port);
  assertEquals((await check(flags)).code, 0);
  assertEquals((await check([...flags, "--websocket"])).code, 0);
  await server.logged(", end");
  await server.logged(", end");
  const log = await server.stop();
  assertEquals(log.includes("not let in"), false, log);
  assertEquals(log.match(/ connected$/gm)?.length, 2, log);
});

test("files: a wrong folder, and one that is damaged", async (dir) => {
  const flags = clientFlags(dir, 1);
  const nowhere = await check(clientFlags(`${dir}/no`, 1));
  assertEquals([nowhere.code, nowhere.passed], [2, ""]);
  assertMatch(
    nowhere.failed,
    /^files: Cannot read .*\/no\/psk\.txt: there is no such file$/,
  );
  await Deno.writeTextFile(`${dir}/cert.pem`, "not one");
  const damaged = await check(flags);
  assertEquals([damaged.code, damaged.passed], [2, ""]);
  assertMatch(damaged.failed, /^files: Cannot use .*cert\.pem: it contains no/);
});

test("a clock that is years off", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  for (
    const [time, why] of [["+3y", "expired on"], ["-3y", "is not valid until"]]
  ) {
    const flags = clientFlags(dir, server.port);
    const { code, failed } = await check(flags, ["faketime", "-f", time!]);
    assertEquals(code, 3);
    assertMatch(
      failed,
      new RegExp(
        `^TLS: .* ${why} .* by this machine's clock; set the clock, or`,
      ),
    );
  }
}, lacksProgram(["faketime", "--version"], "faketime"));

/** A forward proxy that answers CONNECT so, and then leads to the server. */
async function proxy(
  listener: Deno.TcpListener,
  port: number,
  answer: string,
): Promise<void> {
  for await (const conn of listener) {
    await conn.read(new Uint8Array(1000));
    await conn.write(new TextEncoder().encode(`HTTP/1.1 ${answer}\r\n\r\n`));
    const server = await Deno.connect({ port });
    conn.readable.pipeTo(server.writable).catch(() => {});
    server.readable.pipeTo(conn.writable).catch(() => {});
  }
}

test("a forward proxy", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  for (
    const [answer, code, passed, failed] of [
      [
        "200 OK",
        0,
        /^files, name, TCP, proxy, TLS, inner lock, service, /,
        /^$/,
      ],
      [
        "403 Forbidden",
        1,
        /^files, name, TCP$/,
        /^proxy: .* does not allow localhost/,
      ],
      [
        undefined,
        1,
        /^files, name, TCP$/,
        /^proxy: no answer within 1 s; it may be no proxy, or still trying to reach the server; check --proxy, --host and --port$/,
      ],
    ] as const
  ) {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const serving = answer === undefined
      ? reply(listener)
      : proxy(listener, server.port, answer);
    const url = `http://127.0.0.1:${listener.addr.port}`;
    const flags = [...clientFlags(dir, server.port), "--proxy", url];
    const result = await check([...flags, "--handshake-timeout", "1"]);
    assertEquals(result.code, code, result.text);
    assertMatch(result.passed, passed);
    assertMatch(result.failed, failed);
    listener.close();
    await serving;
  }
  for (
    const [url, failed] of [
      [
        `http://127.0.0.1:${freePort()}`,
        /^TCP: Cannot connect to the proxy .*: connection refused; check --proxy$/,
      ],
      [
        "http://no.such.invalid:3128",
        /^name: there is no name no\.such\.invalid, .*; check --proxy$/,
      ],
    ] as const
  ) {
    const flags = [...clientFlags(dir, server.port), "--proxy", url];
    const result = await check(flags);
    assertEquals(result.code, 1);
    assertMatch(result.failed, failed);
  }
});

test("HTTP there, but no WebSocket", async (dir) => {
  const read = (file: string) => Deno.readTextFile(`${dir}/${file}`);
  const [cert, key] = [await read("cert.pem"), await read("key.pem")];
  await using web = Deno.serve(
    { hostname: "127.0.0.1", port: 0, cert, key, onListen: () => {} },
    () => new Response("no", { status: 404 }),
  );
  const flags = [...clientFlags(dir, web.addr.port), "--websocket"];
  const { code, passed, failed } = await check(flags);
  assertEquals([code, passed], [1, "files, name, TCP, TLS"]);
  assertMatch(failed, /^WebSocket: .*404/);
});

test("with words or --listen it exits 2", async (dir) => {
  for (const args of [["hello"], ["--listen", "0"]]) {
    const flags = [...clientFlags(dir, 1), "--check", ...args];
    const { code, stderr } = await run("client", flags);
    assertEquals(code, 2);
    assertMatch(stderr, /^client: --check (takes no words|does not go with)/);
  }
});

const testOffer = programTests("--check: ", ["--identity", "alice"]);

testOffer(
  "whether the server takes an offer, and a backend stands behind it",
  async (dir) => {
    using backend = Deno.listen({ port: 0, hostname: "127.0.0.1" });
    await using server = await TestServer.start([
      ...serverFlags(dir),
      ...["--listen", `${freePort()}=alice@db`],
    ]);
    const offers = (exposed: string) => [
      ...clientFlags(dir, server.port),
      ...["--identity", "alice", "--expose", exposed],
    ];
    const to = `127.0.0.1:${backend.addr.port}`;
    const { code, text } = await check(offers(`db=${to}`));
    assertEquals(code, 0, text);
    assertMatch(text, /^✓ offer: the server takes what alice@db offers$/m);
    assertMatch(text, new RegExp(`^✓ backend: ${to} answers$`, "m"));
    const other = await check(offers(`web=${to}`));
    assertEquals(other.code, 1);
    assertEquals(
      other.failed,
      "offer: The server takes no offer of alice@web; start it with " +
        "--listen PORT=alice@web",
    );
    const nobody = await check(offers(`db=127.0.0.1:${freePort()}`));
    assertEquals(nobody.code, 1);
    assertMatch(
      nobody.failed,
      /^backend: Cannot reach 127.*: connection refused/,
    );
    using full = await fullBacklog();
    const { port } = full;
    const silent = await check([
      ...[...offers(`db=127.0.0.1:${port}`), "--handshake-timeout", "1"],
    ]);
    assertEquals([silent.code, silent.failed], [
      1,
      "backend: no answer within 1 s; check whether " +
      `127.0.0.1:${port} is the right address`,
    ]);
  },
);
