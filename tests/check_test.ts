/** `client --check`: what it says of each step, and its exit code. */

import { assertEquals, assertMatch } from "@std/assert";
import {
  clientFlags,
  freePort,
  makeCerts,
  MAY_RUN,
  run,
  serverFlags,
  TestServer,
  withCerts,
} from "./programs.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const test = (name: string, fn: (dir: string) => Promise<void>) =>
  testUnless(lacksPermissions(...MAY_RUN), `--check: ${name}`, withCerts(fn));

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
      String.raw`^✓ name: localhost is 127\.0\.0\.1\S*
✓ TCP: connected to 127\.0\.0\.1:${server.port}
✓ TLS: the server's own certificate, whose key --ca has; it expires on ${day}
✓ inner lock: the server has the key of default
✓ service: the server has the default service
✓ round trip: \d+\.\d ms, through both locks
✓ clock: it is ${day} at \d\d:\d\d UTC here, within .*, ${day} to ${day}
$`,
    ),
  );
  assertMatch((await check([...flags, "--websocket"])).passed, /, WebSocket, /);
});

test("nobody is there", async (dir) => {
  const { code, passed, failed } = await check(clientFlags(dir, freePort()));
  assertEquals([code, passed], [1, "name"]);
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
  assertEquals([code, passed], [1, "name, TCP"]);
  assertMatch(failed, /^TLS: /);
});

test("another certificate than the one that is trusted", async (dir) => {
  const other = await makeCerts();
  await using server = await TestServer.start(serverFlags(other));
  const { code, passed, failed } = await check(clientFlags(dir, server.port));
  assertEquals([code, passed], [3, "name, TCP"]);
  assertMatch(
    failed,
    /^TLS: .* not trusted; .*; it showed a certificate of CN=innerlock, issued by CN=innerlock, key SHA-256 [0-9A-F:]{95}$/,
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
  assertEquals([code, passed], [3, "name, TCP, TLS"]);
  assertMatch(failed, /^inner lock: .* has another key for it; copy its line/);
});

test("a service that is not there, and one that does not answer", async (dir) => {
  await using server = await TestServer.start([
    ...[...serverFlags(dir), "--forward", `db=127.0.0.1:${freePort()}`],
  ]);
  for (
    const [service, why] of [
      ["web", "the server does not have the service web, or is stopping"],
      ["db", "the server cannot reach the backend of the service db"],
    ] as const
  ) {
    const flags = [...clientFlags(dir, server.port), "--connect", service];
    const { code, passed, failed } = await check(flags);
    assertEquals([code, passed], [1, "name, TCP, TLS, inner lock"]);
    assertMatch(failed, new RegExp(`^service: .*: ${why}; its log says more$`));
  }
});

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
      ["200 OK", 0, /^name, TCP, proxy, TLS, inner lock, service, /, /^$/],
      [
        "403 Forbidden",
        1,
        /^name, TCP$/,
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
  assertEquals([code, passed], [1, "name, TCP, TLS"]);
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
