import { assertEquals } from "@std/assert";
import { text } from "node:stream/consumers";
import { listen } from "../lib/deno.ts";
import { launch } from "./limit.ts";
import { makeCerts, programTests } from "./programs.ts";

const ROOT = `${import.meta.dirname}/../`;

function start(name: string, args: string[], cwd = "."): Deno.ChildProcess {
  return launch(Deno.execPath(), {
    args: ["run", "-NRW", "--no-prompt", `${ROOT}examples/${name}.ts`, ...args],
    cwd,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1" },
  });
}

/** The flags that say so. */
const at = (dir: string, port: number) => [
  ...["--certs", dir, "--port", String(port)],
];

/** The port on which an example says that it listens. */
async function portOf(child: Deno.ChildProcess): Promise<number> {
  const reader = child.stderr.getReader();
  const { value } = await reader.read();
  reader.releaseLock();
  return Number(/(\d+)\n$/.exec(new TextDecoder().decode(value))?.[1]);
}

/** What an example prints, and its exit code, when it has ended. */
async function said(
  child: Deno.ChildProcess,
  input = "",
): Promise<{ code: number; text: string; stderr: string }> {
  const [said, stderr, { code }] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    child.status,
    new Blob([input]).stream().pipeTo(child.stdin).catch(() => {}),
  ]);
  return { code, text: said, stderr };
}

const test = programTests("examples: ");

test("a chat", async (dir) => {
  const one = start("chat", ["listen", ...at(dir, 0)]);
  const other = start("chat", ["connect", ...at(dir, await portOf(one))]);
  const [hi, hello] = await Promise.all([
    said(one, "hello\n"),
    said(other, "hi\n"),
  ]);
  assertEquals([hi.code, hi.text], [0, "hi\n"]);
  assertEquals([hello.code, hello.text], [0, "hello\n"]);
});

test("a file and its hash", async (dir) => {
  const file = new Uint8Array(3_000_000).fill(7);
  await Deno.writeFile(`${dir}/file`, file);
  const receiver = start("send_file", [
    "receive",
    ...at(dir, 0),
    `${dir}/copy`,
  ]);
  const port = await portOf(receiver);
  const sender = start("send_file", ["send", ...at(dir, port), `${dir}/file`]);
  const [received, sent] = await Promise.all([said(receiver), said(sender)]);
  const hash = await crypto.subtle.digest("SHA-256", file);
  assertEquals(sent.text, `${new Uint8Array(hash).toHex()} arrived\n`);
  assertEquals([received.code, sent.code], [0, 0]);
  assertEquals(await Deno.readFile(`${dir}/copy`), file);
});

/** A server of these certificates, in this process. */
async function listenHere(dir: string) {
  const read = (file: string) => Deno.readTextFile(`${dir}/${file}`);
  const [cert, key] = [await read("cert.pem"), await read("key.pem")];
  return listen({ port: 0, cert, key, psk: await read("psk.txt") });
}

test("a file whose copy differs", async (dir) => {
  await Deno.writeTextFile(`${dir}/file`, "original");
  const listener = await listenHere(dir);
  const { port } = listener.addr;
  const sent = said(
    start("send_file", ["send", ...at(dir, port), `${dir}/file`]),
  );
  for await (await using channel of listener) {
    await new Response(channel.readable).text();
    await new Blob(["another hash"]).stream().pipeTo(channel.writable);
    break;
  }
  const stderr = `send_file: The copy of ${dir}/file differs\n`;
  assertEquals(await sent, { code: 1, text: "", stderr });
});

test("a remote procedure call, in time and too late", async (dir) => {
  const server = start("rpc", ["serve", ...at(dir, 0)]);
  const call = ["call", ...at(dir, await portOf(server))];
  const late = said(start("rpc", [...call, "wait", "3600000"]));
  const sum = await said(start("rpc", [...call, "add", "1", "2"]));
  assertEquals([sum.code, sum.text], [0, "3\n"]);
  assertEquals(await late, {
    code: 1,
    text: "",
    stderr: "rpc: The operation was aborted due to timeout\n",
  });
  // The server has given it up too: nothing but the signal's end is waited for.
  const log = server.stderr.pipeThrough(new TextDecoderStream());
  let seen = "";
  for await (const chunk of log.values({ preventCancel: true })) {
    if (/The client gave the connection up/.test(seen += chunk)) break;
  }
  server.kill();
  await Promise.all([server.status, server.stdout.cancel(), log.cancel()]);
  await server.stdin.close();
});

test("a remote procedure that there is not", async (dir) => {
  const server = start("rpc", ["serve", ...at(dir, 0)]);
  const call = ["call", ...at(dir, await portOf(server))];
  assertEquals(await said(start("rpc", [...call, "toString"])), {
    code: 1,
    text: "",
    stderr: "rpc: There is no procedure toString\n",
  });
  server.kill();
  await said(server);
});

test("a client that has joined needs no flags", async (dir) => {
  const server = start("chat", ["listen", ...at(dir, 0)]);
  const port = await portOf(server);
  await Deno.mkdir(`${dir}/client/certs`, { recursive: true });
  for (const file of ["cert.pem", "psk.txt"]) {
    await Deno.copyFile(`${dir}/${file}`, `${dir}/client/certs/${file}`);
  }
  await Deno.writeTextFile(
    `${dir}/client/certs/server.json`,
    JSON.stringify({ host: "localhost", port, identity: "default" }),
  );
  const client = said(start("chat", ["connect"], `${dir}/client`), "hi\n");
  assertEquals((await said(server)).text, "hi\n");
  assertEquals((await client).code, 0);
});

test("they exit as the client does", async (dir) => {
  const listener = await listenHere(dir);
  const { port } = listener.addr;
  const other = await makeCerts();
  await Deno.copyFile(`${dir}/cert.pem`, `${other}/cert.pem`);
  for (
    const [name, side] of [
      ["chat", "connect"],
      ["send_file", "send"],
      ["rpc", "call"],
    ] as const
  ) {
    const codes = await Promise.all([
      [],
      ["nothing"],
      [side, "--port", "x"],
      [side, ...at(`${dir}/nowhere`, port)],
      [side, ...at(dir, port), "--identity", "bob"],
      [side, ...at(other, port), `${dir}/cert.pem`],
    ].map(async (args) => (await said(start(name, args))).code));
    assertEquals(codes, [2, 2, 2, 2, 2, 3], name);
  }
  listener.close();
  await Deno.remove(other, { recursive: true });
});
