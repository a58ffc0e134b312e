/** Certificates and keys that change under running programs. */

import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { parse } from "../cli/main.ts";
import { credentialFiles } from "../cli/server/listen.ts";
import { connect } from "../lib/deno.ts";
import { type Channel, ChannelError } from "../lib/mod.ts";
import { printed } from "./limit.ts";
import {
  dial,
  makeCerts,
  programTests,
  run,
  serverFlags,
  start,
  TestEntrance,
  TestServer,
} from "./programs.ts";

/** A folder of certificates, for the identities `default` and `alice`. */
const test = programTests("reload: ", [
  "--identity",
  "default",
  "--identity",
  "alice",
]);

/** Both sides end, and what was said has come back. */
async function finish(channel: Channel): Promise<void> {
  const sent = new Blob(["still here"]).stream().pipeTo(channel.writable);
  assertEquals(await new Response(channel.readable).text(), "STILL HERE");
  await sent;
  await channel.closed;
}

/** Puts a file in a place by a rename, so that nobody sees a half of it. */
async function put(source: string, target: string): Promise<void> {
  await Deno.copyFile(source, `${target}.new`);
  await Deno.rename(`${target}.new`, target);
}

Deno.test({
  name: "reload: without TLS only the key file is followed",
  permissions: "none",
  fn() {
    const usage = `
  --dir DIR
  --psk FILE
  --cert FILE
  --key FILE
  --passphrase-file FILE
  --no-tls`;
    const files = (...argv: string[]) => credentialFiles(parse(argv, usage));
    const psk = "x/psk.txt";
    assertEquals(files("--dir", "x", "--no-tls"), { psk });
    const pair = { cert: "x/cert.pem", key: "x/key.pem" };
    assertEquals(files("--dir", "x"), { psk, ...pair });
  },
});

test("a revoked identity is cut and refused, without a signal; others live on", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const psk = await Deno.readTextFile(`${dir}/psk.txt`);
  const [alice, other] = await Promise.all([
    dial(dir, server.port, { identity: "alice" }),
    dial(dir, server.port),
  ]);
  const { code } = await run("certs", ["--out", dir, "--revoke", "alice"]);
  assertEquals(code, 0);
  await assertRejects(() => alice.closed, ChannelError);
  await server.logged("alice closed: 0 bytes in, 0 out, ");
  await server.logged("revoked (The key of alice was removed or replaced)");
  const refused = await assertRejects(
    () => dial(dir, server.port, { psk, identity: "alice" }),
    ChannelError,
  );
  assertEquals(refused.code, "refused");
  await server.logged("not let in: refused (There is no identity alice)");
  await finish(other);
});

test("another certificate is shown to the next client", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const live = await dial(dir, server.port);
  const oldCert = await Deno.readTextFile(`${dir}/cert.pem`);
  await run("certs", [
    "--out",
    dir,
    "--renew",
    "--new-key",
    "--identity",
    "carol",
  ]);
  await server.logged("certificate and keys read again");
  await finish(await dial(dir, server.port));
  const error = await assertRejects(
    () => dial(dir, server.port, { caCerts: [oldCert] }),
    ChannelError,
  );
  assertEquals(error.code, "untrusted");
  await finish(live);
});

test("a broken file is told once, and at each SIGHUP; the old ones stay", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const files = { "psk.txt": "nonsense", "cert.pem": "-", "key.pem": "-" };
  const client = await makeClientFiles(dir);
  for (const [file, broken] of Object.entries(files)) {
    const path = `${dir}/${file}`;
    const good = await Deno.readTextFile(path);
    await Deno.writeTextFile(path, broken);
    server.signal("SIGHUP");
    await server.logged("nothing reloaded: ");
    await finish(await dial(client, server.port));
    server.signal("SIGHUP");
    await server.logged("nothing reloaded: ");
    await Deno.writeTextFile(path, good);
    await server.logged("certificate and keys read again");
  }
  await Deno.remove(client, { recursive: true });
});

/** Copies that stay as they are. */
async function makeClientFiles(dir: string): Promise<string> {
  const copy = await Deno.makeTempDir({ prefix: "innerlock-test-" });
  for (const name of ["cert.pem", "psk.txt"]) {
    await Deno.copyFile(`${dir}/${name}`, `${copy}/${name}`);
  }
  return copy;
}

test("SIGHUPs that overlap, each with another certificate: the last one counts", async (dir) => {
  const other = await makeCerts();
  const one = await makeCerts();
  for (const folder of [one, other]) {
    await put(`${dir}/psk.txt`, `${folder}/psk.txt`);
  }
  const server = await TestServer.start(serverFlags(dir));
  for (let round = 0; round < 8; round++) {
    const next = round % 2 ? one : other;
    // The pair does not fit while one half is there and the other is not.
    await put(`${next}/key.pem`, `${dir}/key.pem`);
    storm(server);
    await put(`${next}/cert.pem`, `${dir}/cert.pem`);
    storm(server);
    await server.logged("certificate and keys read again");
    // Until the last of them has been taken.
    for (let channel; !channel;) {
      try {
        channel = await dial(next, server.port);
        await finish(channel);
      } catch {
        channel = undefined;
      }
    }
  }
  server.signal("SIGTERM");
  assertEquals(await server.exitCode(), 0);
  await server.stop();
  for (const folder of [one, other]) {
    await Deno.remove(folder, { recursive: true });
  }
});

/** Signals so close that each meets the work of the one before. */
function storm(server: TestServer): void {
  for (let i = 0; i < 50; i++) {
    server.signal("SIGHUP");
    for (const end = performance.now() + 0.1; performance.now() < end;);
  }
}

/** A key file that is a pipe: who reads it waits until it has been written. */
async function makePipe(dir: string): Promise<string> {
  const path = `${dir}/pipe`;
  await printed(["mkfifo", "-m", "600", path]);
  return path;
}

/** A server that begins to read its keys from a pipe. */
const startAt = (dir: string, pipe: string) =>
  start("server", [
    ...["--cert", `${dir}/cert.pem`, "--key", `${dir}/key.pem`],
    ...["--psk", pipe, "--port", "0"],
  ]);

test("SIGHUP while the server starts does not end it", async (dir) => {
  const pipe = await makePipe(dir);
  const child = startAt(dir, pipe);
  // It opens when the server reads it, and nothing else has begun by then.
  const file = await Deno.open(pipe, { write: true });
  child.kill("SIGHUP");
  const psk = await Deno.readTextFile(`${dir}/psk.txt`);
  await file.write(new TextEncoder().encode(psk));
  await put(`${dir}/psk.txt`, pipe);
  file.close();
  await using server = await TestServer.of(child);
  await finish(await dial(dir, server.port));
});

test("SIGHUP while the server starts is not forgotten", async (dir) => {
  const pipe = await makePipe(dir);
  const child = startAt(dir, pipe);
  const file = await Deno.open(pipe, { write: true });
  child.kill("SIGHUP");
  const psk = await Deno.readTextFile(`${dir}/psk.txt`);
  await file.write(new TextEncoder().encode(psk));
  file.close();
  await using server = await TestServer.of(child);
  // Unasked, it would not look at a pipe again.
  await server.logged(`nothing reloaded: Cannot read ${pipe}: it is no file; `);
});

test("a pipe in a file's place is told, and what comes after it is taken", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const client = await makeClientFiles(dir);
  const path = `${dir}/psk.txt`;
  const good = await Deno.readTextFile(path);
  const pipe = await makePipe(dir);
  await Deno.rename(pipe, path);
  // Nobody ever writes into it.
  await server.logged(`nothing reloaded: Cannot read ${path}: it is no file; `);
  server.signal("SIGHUP");
  await server.logged(`nothing reloaded: Cannot read ${path}: it is no file; `);
  await finish(await dial(client, server.port, { identity: "alice" }));
  const without = good.replace(/^alice:.*\n/m, "");
  await Deno.writeTextFile(`${dir}/new`, without, { mode: 0o600 });
  await Deno.rename(`${dir}/new`, path);
  await server.logged("certificate and keys read again");
  const refused = await assertRejects(
    () => dial(client, server.port, { identity: "alice" }),
    ChannelError,
  );
  assertEquals(refused.code, "refused");
  await Deno.remove(client, { recursive: true });
});

test("a server that has read a pipe reads its other files again", async (dir) => {
  const pipe = await makePipe(dir);
  const child = startAt(dir, pipe);
  await Deno.writeTextFile(pipe, await Deno.readTextFile(`${dir}/psk.txt`));
  await using server = await TestServer.of(child);
  server.signal("SIGHUP");
  await server.logged(`nothing reloaded: Cannot read ${pipe}: it is no file; `);
  await finish(await dial(dir, server.port));
  // A file in the pipe's place counts.
  await put(`${dir}/psk.txt`, pipe);
  await server.logged("certificate and keys read again");
  await finish(await dial(dir, server.port, { identity: "alice" }));
});

test("SIGHUP ends a client only if it does not listen", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const pipe = await makePipe(dir);
  const flags = [
    ...["--ca", `${dir}/cert.pem`, "--psk", pipe],
    ...["--port", `${server.port}`],
  ];
  for (const more of [["--listen", "0"], []]) {
    const child = start("client", [...flags, ...more]);
    const file = await Deno.open(pipe, { write: true });
    child.kill("SIGHUP");
    const psk = await Deno.readTextFile(`${dir}/psk.txt`);
    await file.write(new TextEncoder().encode(psk)).catch(() => {});
    file.close();
    if (more.length > 0) {
      const entrance = await TestEntrance.of(child);
      const { code } = await entrance.stop();
      assertEquals(code, 0);
    } else {
      await child.stdin.close().catch(() => {});
      assertEquals((await child.output()).code, 129);
    }
  }
});

test("a client that listens comes back by itself after a rotation", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const client = await makeClientFiles(dir);
  // A session in reserve would outlive the certificate.
  const flags = ["--reserve", "0"];
  await using entrance = await TestEntrance.start(
    client,
    server.port,
    "0",
    flags,
  );
  assertEquals(await say(entrance), "HELLO");
  await run("certs", ["--out", dir, "--renew", "--new-key"]);
  await server.logged("certificate and keys read again");
  assertEquals(await say(entrance), "");
  for (const name of ["cert.pem", "psk.txt"]) {
    await put(`${dir}/${name}`, `${client}/${name}`);
  }
  while (await say(entrance) !== "HELLO");
  const { log } = await entrance.stop();
  assertMatch(log, /certificates and keys read again/);
  await Deno.remove(client, { recursive: true });
});

/** A line through the tunnel; nothing if there is none. */
async function say({ address }: TestEntrance): Promise<string> {
  const { host, port } = address;
  const buffer = new Uint8Array(100);
  try {
    // It may be reset as soon as it is accepted.
    using conn = await Deno.connect({ hostname: host, port });
    await conn.write(new TextEncoder().encode("hello"));
    const count = await conn.read(buffer);
    return new TextDecoder().decode(buffer.subarray(0, count ?? 0));
  } catch {
    return "";
  }
}

test("SIGHUP: a key file that changes again right after counts", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const before = await Deno.readTextFile(`${dir}/psk.txt`);
  const after = before.replace(/^alice:.*\n/m, "");
  const caCerts = [await Deno.readTextFile(`${dir}/cert.pem`)];
  const { port } = server;
  for (let round = 0; round < 20; round++) {
    for (const text of [before, after]) {
      await Deno.writeTextFile(`${dir}/psk.new`, text, { mode: 0o600 });
      await Deno.rename(`${dir}/psk.new`, `${dir}/psk.txt`);
      server.signal("SIGHUP");
    }
    server.signal("SIGHUP");
    // What is logged later than the last signal is of the last state.
    const psk = before;
    while (true) {
      try {
        await using alice = await connect({
          port,
          caCerts,
          psk,
          identity: "alice",
        });
        await alice.closed;
      } catch (error) {
        if ((error as ChannelError).code === "refused") break;
      }
    }
  }
});
