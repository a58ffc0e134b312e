/** What a program may still do while it talks to others. */

import { assertEquals } from "@std/assert";
import {
  clientFlags,
  command,
  environment,
  programTests,
  serverFlags,
  spawn,
  TestEntrance,
  TestServer,
} from "./programs.ts";

const test = programTests("least privilege: ");

const PROBE = new URL("testdata/probe.ts", import.meta.url).href;

/** Starts a program that tries what it may do when it gets SIGUSR2. */
function startProbed(
  task: "server" | "client",
  args: string[],
): Deno.ChildProcess {
  const words = command(task, args);
  words.splice(words.indexOf("run") + 1, 0, "--preload", PROBE);
  return spawn(words, environment(task));
}

/** What a client may do that has no listener: it is ended then. */
async function probe(child: Deno.ChildProcess): Promise<string> {
  child.kill("SIGUSR2");
  let said = "";
  for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
    said += text;
    const [, found] = /^let: (.*)\.$/m.exec(said) ?? [];
    if (found !== undefined) return found;
  }
  throw new Error(`The client has ended: ${said}`);
}

test("a server that listens has the network, and no more", async (dir) => {
  const child = startProbed("server", ["--port", "0", ...serverFlags(dir)]);
  await using server = await TestServer.of(child);
  server.signal("SIGUSR2");
  await server.logged("let: listen connect.\n");
});

test("a client that listens has the network, and no more", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const flags = [...clientFlags(dir, server.port), "--listen", "0"];
  await using entrance = await TestEntrance.of(startProbed("client", flags));
  entrance.signal("SIGUSR2");
  await entrance.logged("let: listen connect.\n");
});

for (const flags of [[], ["--check"]]) {
  test(`${flags[0] ?? "client"}: before the server has proved anything, the network and no more`, async (dir) => {
    using mute = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const args = [...clientFlags(dir, mute.addr.port), ...flags];
    const client = startProbed("client", args);
    using _ = await mute.accept();
    assertEquals(await probe(client), "listen connect");
    await end(client);
  });
}

/** A client that has been answered, and whose stdin stays open. */
async function inSession(args: string[], answer: string): Promise<void> {
  const client = startProbed("client", args);
  const writer = client.stdin.getWriter();
  await writer.write(new TextEncoder().encode("hello\n"));
  const reader = client.stdout.getReader();
  const { value } = await reader.read();
  assertEquals(new TextDecoder().decode(value), answer);
  assertEquals(await probe(client), "");
  await writer.close();
  await reader.cancel();
  await client.status;
}

test("a client in a session has nothing", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  await inSession(clientFlags(dir, server.port), "HELLO\n");
});

test("a client in a session with a service has nothing", async (dir) => {
  using backend = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const forward = ["--forward", `echo=127.0.0.1:${backend.addr.port}`];
  await using server = await TestServer.start([
    ...serverFlags(dir),
    ...forward,
  ]);
  const echoing = (async () => {
    // The first was the server's own, at its start.
    (await backend.accept()).close();
    const conn = await backend.accept();
    await conn.readable.pipeTo(conn.writable);
  })();
  const args = [...clientFlags(dir, server.port), "--connect", "echo"];
  await inSession(args, "hello\n");
  await echoing;
});

async function end(child: Deno.ChildProcess): Promise<void> {
  child.kill("SIGKILL");
  await child.stdin.close();
  await child.stdout.cancel();
  await child.status;
}
