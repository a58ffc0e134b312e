/** Programs whose stderr or stdout cannot be written, or must not be trusted. */

import { assertEquals, assertMatch } from "@std/assert";
import { printed } from "./limit.ts";
import {
  clientFlags,
  command,
  programTests,
  run,
  serverFlags,
  spawn,
  start,
  Terminal,
  TestEntrance,
  TestServer,
} from "./programs.ts";
import { lacksProgram } from "./requirements.ts";

const noDevFull = lacksProgram(["test", "-w", "/dev/full"], "/dev/full");
const noTerminal = lacksProgram(["script", "--version"], "util-linux's script");

const test = programTests("");

/** What a shell appends to a command so that its stderr cannot be written. */
const DEV_FULL = "2> /dev/full";
const CLOSED_PIPE = "2> >(exec 0<&-)";

/** Starts a program with a shell's redirections. */
function startWith(redirect: string, command: string[]): Deno.ChildProcess {
  return spawn(["bash", "-c", `exec "$@" ${redirect}`, "bash", ...command]);
}

/** The same, and its stderr is a pipe that is full and that nobody reads. */
function startWithFullPipe(dir: string, command: string[]): Deno.ChildProcess {
  const script = 'mkfifo "$0"; exec 3<> "$0"; head -c 65536 /dev/zero >&3; ' +
    'exec "$@" 2>&3 3>&-';
  return spawn(["bash", "-c", script, `${dir}/pipe`, ...command]);
}

/** Clients who prove nothing, one after the other. */
async function knock(port: number, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port });
    await conn.write(new TextEncoder().encode("GET / HTTP/1.0\r\n\r\n"));
    // Until it was refused.
    await conn.read(new Uint8Array(1000)).catch(() => {});
    conn.close();
  }
}

/** Its code after a SIGTERM; one that takes no heed is killed. */
async function codeAtSigterm(child: Deno.ChildProcess): Promise<number> {
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
  const { code } = await child.status;
  clearTimeout(timer);
  return code;
}

for (
  const [name, startBadly, otherReason] of [
    [
      "a full disk",
      (_: string, command: string[]) => startWith(DEV_FULL, command),
      noDevFull,
    ],
    [
      "a pipe whose reader has gone",
      (_: string, command: string[]) => startWith(CLOSED_PIPE, command),
      undefined,
    ],
    ["a full pipe that nobody reads", startWithFullPipe, undefined],
  ] as const
) {
  test(
    `server: its log goes to ${name}, and it serves and stops`,
    async (dir) => {
      const server = command("server", [...serverFlags(dir), "--port", "0"]);
      const child = startBadly(dir, server);
      await using running = await TestServer.of(child);
      await knock(running.port, 20);
      const flags = clientFlags(dir, running.port);
      const { text, code } = await run("client", [...flags, "hi"]);
      assertEquals([text, code], ["HI\n", 0]);
      assertEquals(await codeAtSigterm(child), 0);
    },
    otherReason,
  );

  test(
    `client: --listen reports to ${name}, and carries and stops`,
    async (dir) => {
      await using server = await TestServer.start(serverFlags(dir));
      const flags = [...clientFlags(dir, server.port), "--listen", "0"];
      const child = startBadly(dir, command("client", flags));
      await using entrance = await TestEntrance.of(child);
      const { host: hostname, port } = entrance.address;
      const conn = await Deno.connect({ hostname, port });
      await conn.write(new TextEncoder().encode("hi\n"));
      await conn.closeWrite();
      assertEquals(await new Response(conn.readable).text(), "HI\n");
      assertEquals(await codeAtSigterm(child), 0);
    },
    otherReason,
  );

  test(
    `client: its error goes to ${name}, and its exit code is the same`,
    async (dir) => {
      const args = ["--psk", `${dir}/none`, "hi"];
      const child = startBadly(dir, command("client", args));
      await child.stdin.close();
      assertEquals((await child.output()).code, 2);
    },
    otherReason,
  );
}

test("server: a second SIGTERM loses no line whose reader is slow", async (dir) => {
  const server = command("server", [...serverFlags(dir), "--port", "0"]);
  const child = startWithFullPipe(dir, server);
  await using running = await TestServer.of(child);
  using pipe = await Deno.open(`${dir}/pipe`);
  const client = start("client", clientFlags(dir, running.port));
  const writer = client.stdin.getWriter();
  const replies = client.stdout.getReader();
  const say = async () => {
    await writer.write(new TextEncoder().encode("x\n"));
    return await replies.read();
  };
  await say();
  child.kill("SIGTERM");
  // What comes within half a second is the same signal.
  const first = performance.now();
  while (performance.now() - first < 600) await say();
  child.kill("SIGTERM");
  await say().catch(() => {});
  const log = await new Response(pipe.readable).text();
  assertMatch(log.replaceAll("\0", ""), /1 client may finish, up to 30 s/);
  assertEquals(await running.exitCode(), 1);
  await Promise.all([writer.close().catch(() => {}), replies.cancel()]);
  await client.stderr.cancel();
  await client.status;
});

test("server: a flood of refusals is a few lines in its log", async (dir) => {
  const flags = [...serverFlags(dir), "--log-format", "json"];
  await using server = await TestServer.start(flags);
  await knock(server.port, 100);
  server.signal("SIGTERM");
  assertEquals(await server.exitCode(), 0);
  const refused = (await server.stop()).trim().split("\n")
    .map((line) => JSON.parse(line))
    .filter(({ event }) => event === "refused");
  assertEquals(refused.length <= 12, true, `${refused.length} lines`);
  const told = refused.map(({ count = 1 }) => count);
  assertEquals(told.reduce((sum, count) => sum + count), 100);
});

test(
  "examples: an error that cannot be written leaves the exit code",
  async (dir) => {
    const example = `${import.meta.dirname}/../examples/chat.ts`;
    const args = ["connect", "--certs", `${dir}/none`];
    const deno = [Deno.execPath(), "run", "-NR", "--no-prompt", example];
    const child = startWith(DEV_FULL, [...deno, ...args]);
    await child.stdin.close();
    assertEquals((await child.output()).code, 2);
  },
  noDevFull,
);

test("certs: notes that cannot be written are no failure", async (dir) => {
  const child = startWith("> /dev/full", command("certs", ["--out", dir]));
  await child.stdin.close();
  const { code, stderr } = await child.output();
  assertMatch(
    new TextDecoder().decode(stderr),
    /^certs: Cannot write to stdout: No space[^\n]+\n$/,
  );
  assertEquals(code, 0);
}, noDevFull);

test(
  "certs: an invitation, or a list, that cannot be written is a failure",
  async (dir) => {
    for (const flags of [["--invite", "bob"], ["--list"], ["--help"]]) {
      const certs = command("certs", ["--out", dir, ...flags]);
      const child = startWith("> /dev/full", certs);
      await child.stdin.close();
      const { code, stderr } = await child.output();
      assertMatch(
        new TextDecoder().decode(stderr),
        /^certs: Cannot write to stdout: No space[^\n]+\n$/m,
      );
      assertEquals(code, 1);
    }
  },
  noDevFull,
);

test("client: a reply whose reader has gone ends it as SIGPIPE ends cat", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const script = 'yes | "$@" | head -1; echo "${PIPESTATUS[1]}"';
  const client = command("client", clientFlags(dir, server.port));
  const child = spawn(["bash", "-c", script, "bash", ...client]);
  await child.stdin.close();
  const { stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  assertEquals(decoder.decode(stdout), "Y\n141\n");
  assertEquals(decoder.decode(stderr), "");
});

test("client: a reply that cannot be written exits 1", async (dir) => {
  await using server = await TestServer.start(serverFlags(dir));
  const flags = clientFlags(dir, server.port);
  const child = startWith("> /dev/full", command("client", [...flags, "hi"]));
  await child.stdin.close();
  const { code, stderr } = await child.output();
  assertMatch(
    new TextDecoder().decode(stderr),
    /^client: Cannot write the whole reply to stdout: No space[^\n]+\n$/,
  );
  assertEquals(code, 1);
}, noDevFull);

test("programs: control characters in what they were given are escaped", async (dir) => {
  for (
    const [task, args] of [
      ["client", ["--psk", `${dir}/psk.txt`, "--identity", "\x1b]0;x\x07"]],
      ["client", ["--host", "a\x9b\u202eb"]],
      ["client", ["--psk", `${dir}/\x1b[2J`]],
      ["server", ["\x1b[2J"]],
      ["certs", ["--host", "\x1b[2J"]],
    ] as const
  ) {
    const { code, stderr } = await run(task, [...args]);
    assertMatch(stderr, /^\w+: [^\n\p{Cc}\u202e]+\\u00[^\n\p{Cc}\u202e]+\n$/u);
    assertEquals(code, 2);
  }
});

test("client: control characters in the server's certificate are escaped", async (dir) => {
  const names = "subjectAltName=DNS:\x1b]0;title\x07.example";
  await printed([
    ...["openssl", "req", "-x509", "-key", `${dir}/key.pem`, "-subj", "/CN=x"],
    ...["-addext", names, "-addext", "basicConstraints=critical,CA:FALSE"],
    ...["-out", `${dir}/cert.pem`],
  ]);
  await using server = await TestServer.start(serverFlags(dir));
  const flags = clientFlags(dir, server.port);
  const { code, stderr } = await run("client", [...flags, "hi"]);
  assertMatch(stderr, /^client: [^\n\p{Cc}]+\n$/u);
  assertEquals(code, 3);
});

test(
  "client: escape sequences in a reply do nothing at a terminal",
  async (dir) => {
    await using server = await TestServer.start(serverFlags(dir));
    const flags = [...clientFlags(dir, server.port), "a\x1b]0;x\x07b"];
    await using terminal = new Terminal("client", flags);
    assertEquals(await terminal.end(), {
      code: 0,
      rest: "A\\u001b]0;X\\u0007B\r\n",
    });
    assertEquals((await run("client", flags)).text, "A\x1b]0;X\x07B\n");
  },
  noTerminal,
);

test(
  "client: Ctrl-C during a transfer leaves the terminal as it was",
  async (dir) => {
    await using server = await TestServer.start(serverFlags(dir));
    const redirect = "< /dev/zero > /dev/null";
    const flags = clientFlags(dir, server.port);
    await using terminal = new Terminal("client", flags, redirect);
    await terminal.expect(" sent, ");
    await terminal.type("\x03");
    const { rest } = await terminal.end();
    assertEquals(rest.includes("\x1b"), false, rest);
  },
  noTerminal,
);
