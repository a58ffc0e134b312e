/**
 * What channels keep resident. Run as a program it is the process that is
 * measured: both ends of what its argument names, and its figure as JSON.
 */

import { makePair } from "../tests/pair.ts";
import { connect, listen } from "../lib/deno.ts";
import { type Channel } from "../lib/mod.ts";
import { type Transport, writeAll } from "../lib/lock/transport.ts";
import { type Dial, inner, plain } from "./channels.ts";
import { startHere } from "./servers.ts";

const MIB = 1024 * 1024;
const CHUNK = new Uint8Array(65_536);
const AT_ONCE = 50;
const PAUSE_EVERY = 16 * MIB;

/** Runs a measurement in a fresh process. */
export async function measure(
  name: keyof typeof MEASUREMENTS,
  count: number,
  ...args: string[]
): Promise<number> {
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A"],
      ...[import.meta.filename!, name, String(count), ...args],
    ],
    stderr: "inherit",
  }).output();
  if (!success) throw new Error(`The measurement ${name} failed`);
  return JSON.parse(new TextDecoder().decode(stdout));
}

const MEASUREMENTS = {
  /** So many idle channels: MiB above none. */
  idleChannels: (count: number) => idle(inner, count),
  /** So many idle TLS connections: MiB above none. */
  idleTls: (count: number) => idle(plain, count),
  /** So many MiB to a reader that pauses and brings its own buffer. */
  slowReader: (count: number) => readChannel(count, intoOneBuffer),
  /** The same to one that takes each chunk as it comes. */
  slowIterator: (count: number) => readChannel(count, (stream) => stream),
  /** The same, over TCP alone. */
  slowTcpIterator: readTcp,
  /** Its other half. */
  fastWriter: writeFast,
  fastTcpWriter: writeTcpFast,
};

async function idle(dial: Dial, count: number): Promise<number> {
  const servers = await startHere();
  return await growth(count, async () => {
    const conn = await dial(servers, "echo");
    await conn.write(new Uint8Array(1));
    await conn.read(new Uint8Array(1));
    return conn;
  });
}

/**
 * Receives so many MiB from another process and pauses now and then: how many
 * MiB are resident at the most above idle, here or there.
 */
async function readChannel(
  count: number,
  chunks: (stream: Channel["readable"]) => AsyncIterable<Uint8Array>,
): Promise<number> {
  const { cert, key } = await makePair();
  const psk = `default:${"0f".repeat(32)}`;
  const listener = listen({ port: 0, cert, key, psk });
  const { port } = listener.addr;
  const there = measure(
    "fastWriter",
    count,
    JSON.stringify({ port, cert, psk }),
  );
  const channel = await listener.accept();
  const most = await readSlowly(count, chunks(channel.readable));
  await channel.closeWrite();
  return Math.max(most, await there);
}

async function readTcp(count: number): Promise<number> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const there = measure("fastTcpWriter", count, String(listener.addr.port));
  const conn = await listener.accept();
  const most = await readSlowly(count, conn.readable);
  return Math.max(most, await there);
}

async function readSlowly(
  count: number,
  chunks: AsyncIterable<Uint8Array>,
): Promise<number> {
  const idle = resident();
  let most = idle;
  let received = 0;
  let pauseAt = PAUSE_EVERY;
  for await (const chunk of chunks) {
    received += chunk.length;
    if (received < pauseAt) continue;
    pauseAt += PAUSE_EVERY;
    most = Math.max(most, resident());
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  if (received !== count * MIB) throw new Error(`Only ${received} arrived`);
  return most - idle;
}

async function* intoOneBuffer(stream: Channel["readable"]) {
  const reader = stream.getReader({ mode: "byob" });
  let buffer = new Uint8Array(CHUNK.length);
  while (true) {
    const { done, value } = await reader.read(buffer);
    if (done) return;
    yield value;
    buffer = new Uint8Array(value.buffer);
  }
}

async function writeFast(count: number): Promise<number> {
  const { port, cert, psk } = JSON.parse(Deno.args[2]!);
  const channel = await connect({ port, caCerts: [cert], psk });
  const most = await writeAllTo(channel, count);
  await channel.closeWrite();
  await channel.closed.catch(() => {});
  return most;
}

async function writeTcpFast(count: number): Promise<number> {
  const conn = await Deno.connect({
    hostname: "127.0.0.1",
    port: Number(Deno.args[2]),
  });
  const most = await writeAllTo(conn, count);
  await conn.closeWrite();
  await conn.read(new Uint8Array(1));
  return most;
}

async function writeAllTo(to: Transport, count: number): Promise<number> {
  const idle = resident();
  let most = idle;
  for (let sent = 0; sent < count * MIB; sent += CHUNK.length) {
    await writeAll(to, CHUNK);
    if (sent % PAUSE_EVERY === 0) most = Math.max(most, resident());
  }
  return most - idle;
}

/** How many MiB more are resident with so many of them open. */
async function growth(
  count: number,
  open: () => Promise<unknown>,
): Promise<number> {
  const kept = [await open()];
  const before = resident();
  while (kept.length <= count) {
    kept.push(...await Promise.all(Array.from({ length: AT_ONCE }, open)));
  }
  return resident() - before;
}

function resident(): number {
  return Deno.memoryUsage().rss / MIB;
}

if (import.meta.main) {
  const [name, count] = Deno.args;
  const figure = await MEASUREMENTS[name as keyof typeof MEASUREMENTS](
    Number(count),
  );
  console.log(JSON.stringify(figure));
  Deno.exit(0);
}
