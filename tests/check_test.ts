/** `client --check`: what it says of each step, and its exit code. */

import { assertEquals, assertMatch } from "@std/assert";
import { respond } from "../lib/lock/handshake.ts";
import { takePsks } from "../lib/lock/psk.ts";
import { Tracer } from "../lib/lock/trace.ts";
import {
  clientFlags,
  command,
  environment,
  freePort,
  makeCerts,
  MAY_RUN,
  run,
  serverFlags,
  spawn,
  TestServer,
  withCerts,
} from "./programs.ts";
import { lacksPermissions, lacksProgram, testUnless } from "./requirements.ts";

const test = (
  name: string,
  fn: (dir: string) => Promise<void>,
  otherReason?: string,
) =>
  testUnless(
    lacksPermissions(...MAY_RUN) ?? otherReason,
    `--check: ${name}`,
    withCerts(fn),
  );

/** The lines, with what passed named only, and what failed in full. */
async function check(
  flags: string[],
): Promise<{ code: number; passed: string; failed: string; text: string }> {
  const { code, text, stderr } = await run("client", [...flags, "--check"]);
  assertEquals(stderr, "");
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

test("somebody else is there", async (dir) => {
  using plain = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  (async () => {
    for await (const conn of plain) {
      await conn.write(new TextEncoder().encode("220 mail.example\r\n"));
      conn.close();
    }
  })();
  const { code, passed, failed } = await check(
    clientFlags(dir, plain.addr.port),
  );
  assertEquals([code, passed], [1, "files, name, TCP"]);
  assertMatch(failed, /^TLS: /);
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
  const openssl = async (...args: string[]) => {
    const { success, stderr } = await new Deno.Command("openssl", { args })
      .output();
    assertEquals(success, true, new TextDecoder().decode(stderr));
  };
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
    const words = command("client", [
      ...clientFlags(dir, server.port),
      "--check",
    ]);
    const child = spawn(
      ["faketime", "-f", time!, ...words],
      environment("client"),
    );
    await child.stdin.close();
    const { code, stdout } = await child.output();
    const text = new TextDecoder().decode(stdout);
    assertEquals(code, 3, text);
    assertMatch(
      text,
      new RegExp(
        `^✗ TLS: .* ${why} .* by this machine's clock; set the clock, or`,
        "m",
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
    ] as const
  ) {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    proxy(listener, server.port, answer);
    const url = `http://127.0.0.1:${listener.addr.port}`;
    const flags = [...clientFlags(dir, server.port), "--proxy", url];
    const result = await check(flags);
    assertEquals(result.code, code, result.text);
    assertMatch(result.passed, passed);
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

const testOffer = (name: string, fn: (dir: string) => Promise<void>) =>
  testUnless(
    lacksPermissions(...MAY_RUN),
    `--check: ${name}`,
    withCerts(fn, ["--identity", "alice"]),
  );

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
  },
);
