/** The server as its operator meets it: limits, signals, logs, metrics. */

import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { connect } from "../lib/deno.ts";
import { type Channel, ChannelError } from "../lib/mod.ts";
import { printed } from "./limit.ts";
import {
  clientFlags,
  dial,
  freePort,
  programTests,
  run,
  serverFlags,
  start,
  TestServer,
} from "./programs.ts";

/** A folder of certificates, for the identities `default` and `alice`. */
const test = programTests("server: ", [
  "--identity",
  "default",
  "--identity",
  "alice",
]);

/** Makes the certificate anew, for another time. */
async function remakeCert(dir: string, start: string, end: string) {
  const config = `[ca]\ndefault_ca=x\n[x]\ndatabase=${dir}/index\n` +
    `new_certs_dir=${dir}\ndefault_md=sha256\npolicy=any\nrand_serial=yes\n` +
    "[any]\ncommonName=supplied\n[e]\nsubjectAltName=DNS:localhost\n";
  await Deno.writeTextFile(`${dir}/index`, "");
  await Deno.writeTextFile(`${dir}/ca.cnf`, config);
  const key = `${dir}/key.pem`;
  const request = ["req", "-new", "-key", key, "-subj", "/CN=x"];
  const sign = [
    ...["ca", "-batch", "-notext", "-selfsign", "-keyfile", key],
    ...["-config", `${dir}/ca.cnf`, "-extensions", "e", "-in", `${dir}/csr`],
    ...["-startdate", start, "-enddate", end, "-out", `${dir}/cert.pem`],
  ];
  await printed(["openssl", ...request, "-out", `${dir}/csr`]);
  await printed(["openssl", ...sign]);
}

/** Sends a line, without an end, and waits for the reply. */
async function say(channel: Channel, text: string): Promise<string> {
  const writer = channel.writable.getWriter();
  await writer.write(new TextEncoder().encode(text));
  writer.releaseLock();
  const reader = channel.readable.getReader();
  const { value } = await reader.read();
  reader.releaseLock();
  return new TextDecoder().decode(value);
}

/** Ends our side and reads what is left. */
async function finish(channel: Channel): Promise<void> {
  await channel.writable.close();
  for await (const _ of channel.readable);
  await channel.closed;
}

test("SIGTERM lets live channels finish, and exits 0", async (dir) => {
  const server = await TestServer.start(serverFlags(dir));
  const channel = await dial(dir, server.port);
  assertEquals(await say(channel, "before"), "BEFORE");
  server.signal("SIGTERM");
  await server.logged(
    "1 client may finish, up to 30 s; Ctrl-C again stops at once",
  );
  await assertRejects(() => dial(dir, server.port), Error);
  assertEquals(await say(channel, "after"), "AFTER");
  await finish(channel);
  assertEquals(await server.exitCode(), 0);
  assertMatch(await server.stop(), / stopped\n$/);
});

test("after --grace live channels are cut, and it exits 1", async (dir) => {
  const server = await TestServer.start([...serverFlags(dir), "--grace", "0"]);
  const channel = await dial(dir, server.port);
  await server.logged("connected");
  server.signal("SIGINT");
  const error = await assertRejects(() => channel.closed, ChannelError);
  assertEquals([error.code, (error as ChannelError).isFromPeer], [
    "stopping",
    true,
  ]);
  assertEquals(await server.exitCode(), 1);
  const log = await server.stop();
  assertMatch(log, /stopping \(The server stopped\)/);
  assertMatch(log, /stopped: 1 client had to be cut/);
});

test("--grace counts for those who shake hands too", async (dir) => {
  const server = await TestServer.start([
    ...[...serverFlags(dir), "--grace", "1"],
    ...["--handshake-timeout", "3600"],
  ]);
  // It is accepted before the next one, which gets in.
  using _stalled = await Deno.connect({ port: server.port });
  const channel = await dial(dir, server.port);
  channel.abort();
  server.signal("SIGTERM");
  assertEquals(await server.exitCode(), 0);
  await server.stop();
});

test("a second signal ends it at once", async (dir) => {
  const server = await TestServer.start(serverFlags(dir));
  await using channel = await dial(dir, server.port);
  await server.logged("connected");
  let hasEnded = false;
  const ended = server.exitCode().finally(() => hasEnded = true);
  // What comes soon after the first is the same Ctrl-C: say it until it counts.
  while (!hasEnded) {
    try {
      server.signal("SIGTERM");
      await say(channel, "x");
    } catch {
      await ended;
    }
  }
  assertEquals(await ended, 1);
  await server.stop();
});

test("one Ctrl-C may come as several signals", async (dir) => {
  for (const again of ["SIGINT", "SIGTERM"] as const) {
    const server = await TestServer.start(serverFlags(dir));
    const channel = await dial(dir, server.port);
    await server.logged("connected");
    server.signal("SIGINT");
    server.signal(again);
    await server.logged(
      "1 client may finish, up to 30 s; Ctrl-C again stops at once",
    );
    assertEquals(await say(channel, "after"), "AFTER");
    await finish(channel);
    assertEquals(await server.exitCode(), 0);
    await server.stop();
  }
});

test("it warns of a certificate that is or comes out of date", async (dir) => {
  await remakeCert(dir, "20200101000000Z", "20210101000000Z");
  await using server = await TestServer.start(serverFlags(dir));
  await server.logged("cert.pem expired on 2021-01-01 at 00:00:00 UTC");
  const tomorrow = new Date(Date.now() + 36e5 * 36).toISOString()
    .replaceAll(/\D/g, "").slice(0, 14) + "Z";
  for (
    const [start, end, warning] of [
      [
        "20400101000000Z",
        "20410101000000Z",
        "is not valid until 2040-01-01 at",
      ],
      ["20200101000000Z", tomorrow, "cert.pem expires on"],
    ] as const
  ) {
    await remakeCert(dir, start, end);
    server.signal("SIGHUP");
    await server.logged("certificate and keys read again");
    await server.logged(warning);
  }
});

test("it warns of two identities with the same key, at its start and at a reload", async (dir) => {
  const path = `${dir}/psk.txt`;
  const sound = await Deno.readTextFile(path);
  const key = "5e".repeat(32);
  const shared = `${sound}carol:${key}\nbob@db:${key.toUpperCase()}\n`;
  for (const text of [shared, sound]) {
    await Deno.writeTextFile(path, text);
    await using server = await TestServer.start(serverFlags(dir));
    if (text === sound) {
      await Deno.writeTextFile(path, shared);
      server.signal("SIGHUP");
    }
    await server.logged("carol and bob@db have the same key: ");
    const log = await server.stop();
    // Once: the sound file has nothing of it.
    assertEquals(log.split("same key").length - 1, 1);
    assertEquals(log.toLowerCase().includes(key), false);
  }
});

test("its log says that a client distrusts the certificate", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const psk = await Deno.readTextFile(`${dir}/psk.txt`);
  const connecting = connect({ port: server.port, psk });
  const error = await assertRejects(() => connecting, ChannelError);
  assertEquals(error.code, "untrusted");
  await server.logged("not let in: protocol (The client does not trust this");
});

test("--max-connections: others wait until one leaves", async (dir) => {
  const flags = [...serverFlags(dir), "--max-connections", "2"];
  await using server = await TestServer.start(flags);
  const first = await dial(dir, server.port);
  const second = await dial(dir, server.port);
  const waiting = [dial(dir, server.port), dial(dir, server.port)];
  await server.logged("--max-connections is reached");
  await finish(first);
  const third = await Promise.race(waiting);
  await finish(second);
  await Promise.all(waiting.map(async (channel) => finish(await channel)));
  assertEquals(third.identity, "default");
  const log = await server.stop();
  assertEquals(log.match(/--max-connections is reached/g)?.length, 1);
});

test("--max-per-client: one more of the same name is told so, others are served", async (dir) => {
  const flags = [...serverFlags(dir), "--max-per-client", "1"];
  await using server = await TestServer.start(flags);
  const first = await dial(dir, server.port, { identity: "alice" });
  await server.logged("connected");
  const second = await dial(dir, server.port, { identity: "alice" });
  const error = await assertRejects(() => second.closed, ChannelError);
  assertEquals([error.code, error.isFromPeer], ["limit", true]);
  await server.logged(
    "not let in: limit (alice is at its limit of 1 at a time)",
  );
  await finish(await dial(dir, server.port));
  await finish(first);
});

test("--max-handshakes: stalled ones make room for honest ones", async (dir) => {
  const flags = [...serverFlags(dir), "--max-handshakes", "4"];
  await using server = await TestServer.start(flags);
  const stalled = await Promise.all(
    Array.from({ length: 20 }, () => Deno.connect({ port: server.port })),
  );
  const channel = await dial(dir, server.port);
  assertEquals(await say(channel, "honest"), "HONEST");
  await finish(channel);
  for (const conn of stalled) conn.close();
  const log = await server.stop();
  assertEquals(log.match(/--max-handshakes is reached/g)?.length, 1);
  assertMatch(log, /not let in: limit \(Its handshake made room/);
});

test("garbage, plain HTTP, half a ClientHello: honest clients are served", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const openings = [
    new Uint8Array(1000).fill(0xff),
    new TextEncoder().encode("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    Uint8Array.fromHex("16030100f0010000ec0303"),
    new Uint8Array(0),
  ];
  const strangers = await Promise.all(
    Array.from({ length: 100 }, async (_, i) => {
      const conn = await Deno.connect({ port: server.port });
      await conn.write(openings[i % openings.length]!).catch(() => {});
      return conn;
    }),
  );
  const { text, code } = await run("client", [
    ...clientFlags(dir, server.port),
    "straße",
  ]);
  assertEquals([text, code], ["STRASSE\n", 0]);
  for (const conn of strangers) conn.close();
});

test("out of descriptors: it says so once, and recovers", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const { descriptors } = await server.usage();
  await server.limitDescriptors(descriptors + 10);
  const live = await dial(dir, server.port);
  const strangers = await Promise.all(
    Array.from({ length: 50 }, () => Deno.connect({ port: server.port })),
  );
  await server.logged("out of file descriptors");
  assertEquals(await say(live, "still here"), "STILL HERE");
  for (const conn of strangers) conn.close();
  await finish(await dial(dir, server.port));
  await finish(live);
  const log = await server.stop();
  assertEquals(log.match(/out of file descriptors/g)?.length, 1);
});

test("out of descriptors: sessions in standby are the first to go", async (dir) => {
  using backend = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const serving = (async () => {
    for await (const conn of backend) {
      conn.readable.pipeTo(conn.writable).catch(() => {});
    }
  })();
  const to = `127.0.0.1:${backend.addr.port}`;
  const flags = [...serverFlags(dir), "--forward", to];
  await using server = await TestServer.start(flags);
  const { descriptors } = await server.usage();
  await server.limitDescriptors(descriptors + 120);
  const idle = await Promise.all(
    Array.from(
      { length: 150 },
      () => dial(dir, server.port, { standby: true }),
    ),
  );
  const ended = Promise.all(
    idle.map(({ closed }) =>
      closed.then(() => "end", (error) => (error as ChannelError).code)
    ),
  );
  await server.logged("sessions in reserve make room");
  const replies = Array.from({ length: 10 }, async (_, i) => {
    const channel = await dial(dir, server.port);
    const sent = new Blob([`call ${i}`]).stream().pipeTo(channel.writable);
    const reply = await new Response(channel.readable).text();
    await sent;
    return reply;
  });
  assertEquals(
    await Promise.all(replies),
    replies.map((_, i) => `call ${i}`),
  );
  await server.stop();
  const codes = await ended;
  assertEquals(codes.filter((code) => code === "limit").length > 20, true);
  backend.close();
  await serving.catch(() => {});
});

test("a client that is interrupted is a cut, not an end", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const client = start("client", clientFlags(dir, server.port));
  const writer = client.stdin.getWriter();
  await writer.write(new TextEncoder().encode("half"));
  const reader = client.stdout.getReader();
  await reader.read();
  client.kill("SIGINT");
  await client.status;
  await server.logged("4 bytes in, 4 out, ");
  await server.logged("cut (The peer cut the connection)");
  await reader.cancel();
  await writer.abort().catch(() => {});
  await new Response(client.stderr).text();
});

test("--log-format json: each line is one event", async (dir) => {
  const server = await TestServer.start([
    ...serverFlags(dir),
    ...["--log-format", "json"],
  ]);
  await run("client", [...clientFlags(dir, server.port), "a secret"]);
  await run("client", [
    ...clientFlags(dir, server.port),
    ...["--identity", "alice", "--psk", `${dir}/wrong.txt`],
  ]);
  const wrong = `alice:${"0e".repeat(32)}`;
  await Deno.writeTextFile(`${dir}/wrong.txt`, wrong, { mode: 0o600 });
  await run("client", [
    ...["--port", String(server.port), "--ca", `${dir}/cert.pem`],
    ...["--identity", "alice", "--psk", `${dir}/wrong.txt`, "x"],
  ]);
  await server.logged(`"reason":"refused"`);
  const log = await server.stop();
  const events = log.trim().split("\n").map((line) => JSON.parse(line))
    .filter(({ address }) => address);
  const { address, seconds, time, ...closed } = events[1];
  assertMatch(address, /^127\.0\.0\.1:\d+$/);
  assertMatch(time, /^\d{4}-/);
  assertEquals(typeof seconds, "number");
  assertEquals(closed.event, "closed");
  assertEquals(closed.reason, "end");
  assertEquals([closed.bytesReceived, closed.bytesSent], [9, 9]);
  assertEquals(closed.identity, "default");
  assertEquals(events.map(({ event }) => event), [
    "connected",
    "closed",
    "refused",
  ]);
  assertEquals(/secret|SECRET/.test(log), false);
});

test("its start says what it does, and with what", async (dir) => {
  const names = String.raw`localhost, 127\.0\.0\.1, ::1`;
  const fingerprint = "key SHA-256 [0-9A-F:]{95}";
  const credentials =
    "the key file has 2 identities\n[^ ]+ the certificate is for " +
    `${names}; ${fingerprint}, valid until \\d{4}-\\d\\d-\\d\\d\n`;
  for (
    const [flags, back] of [
      [[], "text back in upper case"],
      [["--echo"], "bytes back unchanged"],
    ] as const
  ) {
    const log = await startOf([...serverFlags(dir), ...flags]);
    const what = `^[^ ]+ sending ${back}\n[^ ]+ `;
    assertMatch(log, new RegExp(what + credentials));
  }
  const { code, stderr } = await run("server", [
    ...[...serverFlags(dir), "--port", "0"],
    ...["--echo", "--forward", "127.0.0.1:1"],
  ]);
  assertEquals(code, 2);
  assertMatch(stderr, /^server: --echo does not go with --forward\n$/);
});

/** What a server says until it has been told to stop. */
async function startOf(flags: string[]): Promise<string> {
  await using server = await TestServer.start(flags);
  server.signal("SIGTERM");
  await server.exitCode();
  return await server.stop();
}

test("its start says whether each backend answers", async (dir) => {
  using backend = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const here = `127.0.0.1:${backend.addr.port}`;
  const gone = `127.0.0.1:${freePort()}`;
  for (
    const [forward, says] of [
      [here, `to ${here}, which answers\n`],
      [
        `db=${gone}`,
        `db to ${gone}, which does not answer yet: Cannot reach ${gone}: connection refused; ` +
        "is the service running?\n",
      ],
      [
        `unix:${dir}/none`,
        `to unix:${dir}/none, which does not answer yet: Cannot reach unix`,
      ],
    ] as const
  ) {
    const flags = [...serverFlags(dir), "--forward", forward];
    await using server = await TestServer.start(flags);
    await server.logged(`forwarding ${says}`);
  }
});

test("--echo: binary goes back as it came", async (dir) => {
  await using server = await TestServer.start([...serverFlags(dir), "--echo"]);
  const bytes = crypto.getRandomValues(new Uint8Array(65_536));
  const flags = clientFlags(dir, server.port);
  const { code, stdout, stderr } = await run("client", flags, bytes);
  assertEquals(code, 0, stderr);
  assertEquals(stdout, bytes);
});

test("OpenTelemetry is told of channels, bytes and refusals", async (dir) => {
  const names = [
    "innerlock.channels",
    "innerlock.channels.live",
    "innerlock.certificate.expiry",
    "innerlock.bytes",
    "innerlock.refused",
    "innerlock.handshake.duration",
  ];
  let told = "";
  const all = Promise.withResolvers<void>();
  await using collector = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    async (request) => {
      told += await request.text();
      if (names.every((name) => told.includes(`"${name}"`))) all.resolve();
      return new Response("{}");
    },
  );
  const server = await TestServer.start(
    serverFlags(dir),
    0,
    {
      OTEL_DENO: "true",
      OTEL_DENO_CONSOLE: "ignore",
      OTEL_METRIC_EXPORT_INTERVAL: "100",
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${collector.addr.port}`,
    },
  );
  await run("client", [...clientFlags(dir, server.port), "hello"]);
  const stranger = await Deno.connect({ port: server.port });
  await stranger.write(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
  await server.logged("not let in");
  stranger.close();
  await all.promise;
  await server.stop();
  assertEquals(/hello|HELLO/.test(told), false);
});

test("--no-tls: only on an address that stays in, and loud", async (dir) => {
  const psk = ["--psk", `${dir}/psk.txt`, "--no-tls"];
  for (const host of ["0.0.0.0", "::", "192.0.2.1", "server.example"]) {
    const { code, stderr } = await run("server", [...psk, "--host", host]);
    assertEquals(code, 2, host);
    assertMatch(
      stderr,
      /--no-tls needs a loopback or private address as --host/,
    );
  }
  for (const flag of ["--cert", "--key", "--passphrase-file"]) {
    const flags = [...psk, flag, `${dir}/key.pem`];
    const { code, stderr } = await run("server", flags);
    assertEquals(
      [code, stderr],
      [2, `server: --no-tls does not go with ${flag}\n`],
    );
  }
  await using server = await TestServer.start(psk);
  await server.logged("no TLS: whoever sees this network");
});
