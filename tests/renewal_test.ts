/** Certificates that nobody has to think of: renewed, they are still trusted. */

import { assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { connect } from "../lib/deno.ts";
import { outputOf } from "./limit.ts";
import {
  programTests,
  run,
  serverFlags,
  succeeds,
  TestServer,
} from "./programs.ts";
import { lacksProgram } from "./requirements.ts";

const noFaketime = lacksProgram(["faketime", "--version"], "faketime");

/** With the folder of a server, whose clients join in another. */
const test = programTests("renewal: ");

/** What makes a program's clock go so many days ahead. */
async function ahead(days: number): Promise<Record<string, string>> {
  // Preloaded, and not by the command, which would stand between the program and
  // its signals.
  const { stdout } = await outputOf("faketime", {
    args: ["-f", "+0d", "sh", "-c", 'echo "$LD_PRELOAD"'],
  });
  const LD_PRELOAD = new TextDecoder().decode(stdout).trim();
  return { LD_PRELOAD, FAKETIME: `+${days}d` };
}

/** Invites a client, and joins in a folder of its own. */
async function join(dir: string, port: number): Promise<string[]> {
  const file = ["--invite-file", `${dir}/line`];
  const client = `${dir}/client`;
  const invite = ["--out", dir, "--invite", "alice", "--port", `${port}`];
  await succeeds(run("certs", [...invite, ...file]));
  await succeeds(run("certs", ["--join", "--out", client, ...file]));
  return ["--ca", `${client}/cert.pem`, "--psk", `${client}/psk.txt`];
}

test("a client of the first day goes on, and connects again", async (dir) => {
  const files = await join(dir, 1);
  await using server = await TestServer.start(serverFlags(dir));
  const flags = [...files, "--port", `${server.port}`];
  const caCerts = [await Deno.readTextFile(`${dir}/client/cert.pem`)];
  const psk = await Deno.readTextFile(`${dir}/client/psk.txt`);
  const { port } = server;
  await using live = await connect({ port, caCerts, psk, identity: "alice" });
  const key = await Deno.readTextFile(`${dir}/key.pem`);
  const renewed = await succeeds(run("certs", ["--out", dir, "--renew"]));
  assertMatch(renewed, /its key is the same, so clients need nothing new\n$/);
  assertEquals(await Deno.readTextFile(`${dir}/key.pem`), key);
  assertNotEquals(await Deno.readTextFile(`${dir}/cert.pem`), caCerts[0]);
  await server.logged("certificate and keys read again");
  await live.write(new TextEncoder().encode("hello"));
  await live.closeWrite();
  assertEquals(await new Response(live.readable).text(), "HELLO");
  assertEquals(await succeeds(run("client", [...flags, "x"])), "X\n");
  assertMatch(
    await succeeds(run("client", [...flags, "--check"])),
    /✓ TLS: the server's own certificate, whose key --ca has; /,
  );
});

test("what uses OpenSSL needs the new certificate, as deploy/README.md says", async (dir) => {
  const old = `${dir}/old.pem`;
  await Deno.copyFile(`${dir}/cert.pem`, old);
  await succeeds(run("certs", ["--out", dir, "--renew"]));
  const verify = async (trusted: string) =>
    (await outputOf("openssl", {
      args: ["verify", "-partial_chain", "-CAfile", trusted, `${dir}/cert.pem`],
    })).success;
  assertEquals([await verify(`${dir}/cert.pem`), await verify(old)], [
    true,
    false,
  ]);
});

test("another key is for one that has leaked: every client joins again", async (dir) => {
  const files = await join(dir, 1);
  const key = await Deno.readTextFile(`${dir}/key.pem`);
  const flags = ["--out", dir, "--renew", "--new-key"];
  const renewed = await succeeds(run("certs", flags));
  assertMatch(renewed, /every client must join again: invite each/);
  assertNotEquals(await Deno.readTextFile(`${dir}/key.pem`), key);
  await using server = await TestServer.start(serverFlags(dir));
  const port = ["--port", `${server.port}`];
  const { code, stderr } = await run("client", [...files, ...port, "x"]);
  assertEquals(code, 3);
  assertMatch(stderr, /is not trusted; join again, or copy cert\.pem/);
});

test(
  "a clock that is wrong is told, whatever file the client has",
  async (dir) => {
    const files = await join(dir, 1);
    await succeeds(
      run("certs", ["--out", dir, "--renew"], "", await ahead(500)),
    );
    const env = await ahead(510);
    await using server = await TestServer.start(serverFlags(dir), 0, env);
    const flags = [...files, "--port", `${server.port}`, "x"];
    for (
      const [days, why] of [
        [0, /is not valid until .* by this machine's clock; set the clock, or/],
        [
          1000,
          /expired on .* by this machine's clock; set the clock, or renew/,
        ],
      ] as const
    ) {
      const result = await run("client", flags, "", await ahead(days));
      assertEquals([result.code, result.text], [3, ""]);
      assertMatch(result.stderr, why);
    }
  },
  noFaketime,
);

test(
  "who has joined once is let in for ten years, and does nothing",
  async (dir) => {
    const files = await join(dir, 1);
    const service = await Deno.readTextFile(
      new URL("../deploy/innerlock-renew@.service", import.meta.url),
    );
    const [, renew] = /^ExecStart=\S+ certs (.*?) \$RENEW_ARGS$/m.exec(
      service,
    )!;
    // As its working folder: it says `--out certs`.
    await Deno.symlink(dir, `${dir}/certs`);
    // The timer runs each month. Here it has missed all but one of them a year.
    for (let days = 0; days <= 3650; days += 350) {
      const env = await ahead(days);
      if (days > 0) {
        await succeeds(run("certs", renew!.split(" "), "", env, dir));
      }
      await using server = await TestServer.start(serverFlags(dir), 0, env);
      const flags = [...files, "--port", `${server.port}`, "hello"];
      const later = await ahead(days + 14);
      assertEquals(
        await succeeds(run("client", flags, "", later)),
        "HELLO\n",
        `after ${days} days`,
      );
    }
  },
  noFaketime,
);
