/**
 * Four servers with one certificate: plain TLS and innerlock, each echoing or
 * counting. In the caller's process, or, run as a program, in one of their own.
 */

import { makePair } from "../tests/pair.ts";
import { listen } from "../lib/deno.ts";
import { type Transport, writeAll } from "../lib/lock/transport.ts";

/** What a client needs. */
export interface Servers {
  cert: string;
  psk: string;
  inner: { echo: number; count: number };
  plain: { echo: number; count: number };
}

type Job = "echo" | "count";

const HOSTS = ["localhost", "127.0.0.1"];

/** Starts them here. */
export async function startHere(): Promise<Servers> {
  const { cert, key } = await makePair(HOSTS);
  const random = crypto.getRandomValues(new Uint8Array(32));
  const psk = `default:${random.toHex()}`;
  const inner = (job: Job) => {
    const listener = listen({ port: 0, cert, key, psk });
    serveAll(listener, job);
    return listener.addr.port;
  };
  const plain = (job: Job) => {
    const hostname = "127.0.0.1";
    const listener = Deno.listenTls({ hostname, port: 0, cert, key });
    serveAll(listener, job);
    return (listener.addr as Deno.NetAddr).port;
  };
  return {
    cert,
    psk,
    inner: { echo: inner("echo"), count: inner("count") },
    plain: { echo: plain("echo"), count: plain("count") },
  };
}

/** Starts them in a process of their own, which ends with this one. */
export async function startThere(): Promise<Servers> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", import.meta.filename!],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  child.unref();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.endsWith("\n")) text += (await reader.read()).value ?? "\n";
  return JSON.parse(text);
}

async function serveAll(
  conns: AsyncIterable<Transport>,
  job: Job,
): Promise<void> {
  for await (const conn of conns) serve(conn, job).catch(() => {});
}

async function serve(conn: Transport, job: Job): Promise<void> {
  const buffer = new Uint8Array(65_536);
  let count = 0;
  for (let n; (n = await conn.read(buffer)) !== null;) {
    count += n;
    if (job === "echo") await writeAll(conn, buffer.subarray(0, n));
  }
  if (job === "count") {
    await writeAll(conn, new TextEncoder().encode(String(count)));
  }
  await conn.closeWrite();
  conn.close();
}

if (import.meta.main) {
  console.log(JSON.stringify(await startHere()));
  // Stdin ends when the benchmark does.
  for await (const _ of Deno.stdin.readable);
  Deno.exit(0);
}
