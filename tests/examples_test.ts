import { assertEquals } from "@std/assert";
import { makeCerts, MAY_RUN } from "./programs.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const ROOT = new URL("..", import.meta.url).pathname;

function start(name: string, args: string[]): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-NRW", "--no-prompt", `${ROOT}examples/${name}.ts`, ...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1" },
  }).spawn();
}

/** The port on which an example says that it listens. */
async function portOf(child: Deno.ChildProcess): Promise<string> {
  const reader = child.stderr.getReader();
  const { value } = await reader.read();
  reader.releaseLock();
  return /(\d+)\n$/.exec(new TextDecoder().decode(value))![1]!;
}

/** What an example prints, until it ends. */
async function said(child: Deno.ChildProcess, input = ""): Promise<string> {
  const [text] = await Promise.all([
    new Response(child.stdout).text(),
    new Blob([input]).stream().pipeTo(child.stdin).catch(() => {}),
  ]);
  await Promise.all([child.status, child.stderr.cancel()]);
  return text;
}

const test = (name: string, fn: (dir: string) => Promise<void>) =>
  testUnless(lacksPermissions(...MAY_RUN), `examples: ${name}`, async () => {
    const dir = await makeCerts();
    await fn(dir);
    await Deno.remove(dir, { recursive: true });
  });

test("a chat", async (dir) => {
  const one = start("chat", ["listen", dir, "0"]);
  const other = start("chat", ["connect", dir, await portOf(one)]);
  assertEquals(
    await Promise.all([said(one, "hello\n"), said(other, "hi\n")]),
    ["hi\n", "hello\n"],
  );
});

test("a file and its hash", async (dir) => {
  const file = new Uint8Array(3_000_000).fill(7);
  await Deno.writeFile(`${dir}/file`, file);
  const receiver = start("send_file", ["receive", dir, "0", `${dir}/copy`]);
  const port = await portOf(receiver);
  const sender = start("send_file", ["send", dir, port, `${dir}/file`]);
  const [, sent] = await Promise.all([said(receiver), said(sender)]);
  const hash = await crypto.subtle.digest("SHA-256", file);
  assertEquals(sent, `${new Uint8Array(hash).toHex()} arrived\n`);
  assertEquals(await Deno.readFile(`${dir}/copy`), file);
});

test("a remote procedure call", async (dir) => {
  const server = start("rpc", ["serve", dir, "0"]);
  const call = ["call", dir, await portOf(server)];
  assertEquals(await said(start("rpc", [...call, "add", "1", "2"])), "3");
  server.kill();
  await said(server);
});
