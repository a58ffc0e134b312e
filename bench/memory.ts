/**
 * What channels keep resident. Run as a program it is the process that is
 * measured: both ends of what its argument names, and its figure as JSON.
 */

import { makeCertificate, makeKey } from "../cli/openssl.ts";
import { connect, listen } from "../lib/deno.ts";
import { type Channel } from "../lib/mod.ts";
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
      ...[new URL(import.meta.url).pathname, name, String(count), ...args],
    ],
    stderr: "inherit",
  }).output();
  if (!success) throw new Error(`The measurement ${name} failed`);
  return JSON.parse(new TextDecoder().decode(stdout));
}

const MEASUREMENTS = {
  /** So many idle channels: MiB above none. */
  idleChannels: async (count: number) => {
    const { inner, cert, psk } = await startHere();
    const options = { port: inner.echo, caCerts: [cert], psk };
    return await growth(count, async () => {
      const channel = await connect(options);
      const writer = channel.writable.getWriter();
      await writer.write(new Uint8Array(1));
      await channel.readable.getReader().read();
      return { channel, writer };
    });
  },
  /** So many idle TLS connections: MiB above none. */
  idleTls: async (count: number) => {
    const { plain, cert } = await startHere();
    const options = {
      hostname: "localhost",
      port: plain.echo,
      caCerts: [cert],
    };
    return await growth(count, async () => {
      const conn = await Deno.connectTls(options);
      await conn.write(new Uint8Array(1));
      await conn.read(new Uint8Array(1));
      return conn;
    });
  },
  /** So many MiB to a reader that pauses and brings its own buffer. */
  slowReader: (count: number) => readSlowly(count, intoOneBuffer),
  /** The same to one that takes each chunk as it comes. */
  slowIterator: (count: number) => readSlowly(count, (stream) => stream),
  /** Its other half. */
  fastWriter: writeFast,
};

/**
 * Receives so many MiB from another process and pauses now and then: how many
 * MiB are resident at the most above idle, here or there.
 */
async function readSlowly(
  count: number,
  chunks: (stream: Channel["readable"]) => AsyncIterable<Uint8Array>,
): Promise<number> {
  const key = await makeKey(false);
  const cert = await makeCertificate(key, ["localhost"], 2);
  const psk = `default:${"0f".repeat(32)}`;
  const listener = listen({ port: 0, cert, key, psk });
  const { port } = listener.addr;
  const there = measure(
    "fastWriter",
    count,
    JSON.stringify({ port, cert, psk }),
  );
  const { value: channel } = await listener[Symbol.asyncIterator]().next();
  const idle = resident();
  let most = idle;
  let received = 0;
  let pauseAt = PAUSE_EVERY;
  for await (const chunk of chunks(channel!.readable)) {
    received += chunk.length;
    if (received < pauseAt) continue;
    pauseAt += PAUSE_EVERY;
    most = Math.max(most, resident());
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  if (received !== count * MIB) throw new Error(`Only ${received} arrived`);
  await channel!.writable.close();
  return Math.max(most - idle, await there);
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
  const idle = resident();
  let most = idle;
  const writer = channel.writable.getWriter();
  for (let sent = 0; sent < count * MIB; sent += CHUNK.length) {
    await writer.write(CHUNK);
    if (sent % PAUSE_EVERY === 0) most = Math.max(most, resident());
  }
  await writer.close();
  await channel.closed.catch(() => {});
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
