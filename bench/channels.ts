/** The two locks together, beside plain TLS doing the same. */

import { connect } from "../lib/deno.ts";

import { type Channel } from "../lib/mod.ts";
import { writeAll } from "../lib/transport.ts";
import { milliseconds } from "./measure.ts";
import type { Servers } from "./servers.ts";

const MB = 1e6;
const CHUNK = crypto.getRandomValues(new Uint8Array(65_536));
const SMALL = new Uint8Array(64);

function dialInner(servers: Servers, job: "echo" | "count"): Promise<Channel> {
  const { cert, psk, inner } = servers;
  return connect({ port: inner[job], caCerts: [cert], psk });
}

async function dialPlain(
  { cert, plain }: Servers,
  job: "echo" | "count",
): Promise<Deno.TlsConn> {
  const hostname = "localhost";
  const tcp = await Deno.connect({ hostname, port: plain[job] });
  tcp.setNoDelay(true);
  const conn = await Deno.startTls(tcp, { hostname, caCerts: [cert] });
  await conn.handshake();
  return conn;
}

/** Ends our side, reads what is left, closes. */
async function finishPlain(conn: Deno.TlsConn): Promise<string> {
  await conn.closeWrite();
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(1024);
  let text = "";
  for (let n; (n = await conn.read(buffer)) !== null;) {
    text += decoder.decode(buffer.subarray(0, n));
  }
  conn.close();
  return text;
}

/** Fails if not all has arrived. */
function check(counted: string, bytes: number): void {
  if (counted !== String(bytes)) {
    throw new Error(`${counted} of ${bytes} bytes arrived`);
  }
}

/** One way, in writes of `chunk`, each awaited or all at once. MB/s. */
export async function innerOneWay(
  servers: Servers,
  bytes: number,
  chunk = CHUNK,
  awaitEach = true,
): Promise<number> {
  const count = Math.ceil(bytes / chunk.length);
  const channel = await dialInner(servers, "count");
  const ms = await milliseconds(async () => {
    const writer = channel.writable.getWriter();
    for (let i = 0; i < count; i++) {
      const writing = writer.write(chunk);
      if (awaitEach) await writing;
    }
    await writer.close();
    check(await new Response(channel.readable).text(), count * chunk.length);
  });
  await channel.closed;
  return count * chunk.length / MB / ms * 1000;
}

export async function plainOneWay(
  servers: Servers,
  bytes: number,
): Promise<number> {
  const count = Math.ceil(bytes / CHUNK.length);
  const conn = await dialPlain(servers, "count");
  const ms = await milliseconds(async () => {
    for (let i = 0; i < count; i++) await writeAll(conn, CHUNK);
    check(await finishPlain(conn), count * CHUNK.length);
  });
  return count * CHUNK.length / MB / ms * 1000;
}

/** Many 64-byte writes that nobody awaits. Writes a second. */
export async function innerSmallWrites(
  servers: Servers,
  count: number,
): Promise<number> {
  const rate = await innerOneWay(servers, count * SMALL.length, SMALL, false);
  return rate * MB / SMALL.length;
}

/** 64 bytes there and back, one after another. Microseconds each. */
export async function innerRoundTrip(
  servers: Servers,
  count: number,
): Promise<number> {
  const channel = await dialInner(servers, "echo");
  const writer = channel.writable.getWriter();
  const reader = channel.readable.getReader();
  const turn = async () => {
    writer.write(SMALL);
    for (let n = 0; n < SMALL.length;) n += (await reader.read()).value!.length;
  };
  await turn();
  const ms = await milliseconds(async () => {
    for (let i = 0; i < count; i++) await turn();
  });
  await writer.close();
  while (!(await reader.read()).done);
  await channel.closed;
  return ms / count * 1000;
}

export async function plainRoundTrip(
  servers: Servers,
  count: number,
): Promise<number> {
  const conn = await dialPlain(servers, "echo");
  const buffer = new Uint8Array(SMALL.length);
  const turn = async () => {
    await writeAll(conn, SMALL);
    for (let n = 0; n < SMALL.length;) n += (await conn.read(buffer))!;
  };
  await turn();
  const ms = await milliseconds(async () => {
    for (let i = 0; i < count; i++) await turn();
  });
  await finishPlain(conn);
  return ms / count * 1000;
}

/** From nothing to the first reply, one after another. Milliseconds each. */
export async function innerSetUp(
  servers: Servers,
  count: number,
): Promise<number> {
  let ms = 0;
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    const channel = await dialInner(servers, "echo");
    const writer = channel.writable.getWriter();
    writer.write(SMALL);
    const reader = channel.readable.getReader();
    await reader.read();
    ms += performance.now() - start;
    await writer.close();
    while (!(await reader.read()).done);
    await channel.closed;
  }
  return ms / count;
}

export async function plainSetUp(
  servers: Servers,
  count: number,
): Promise<number> {
  let ms = 0;
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    const conn = await dialPlain(servers, "echo");
    await writeAll(conn, SMALL);
    await conn.read(new Uint8Array(SMALL.length));
    ms += performance.now() - start;
    await finishPlain(conn);
  }
  return ms / count;
}

/** Connections set up and ended, so many at once. A second. */
export async function innerHandshakes(
  servers: Servers,
  count: number,
  atOnce: number,
) {
  return await perSecond(count, atOnce, async () => {
    const channel = await dialInner(servers, "count");
    await channel.writable.close();
    await new Response(channel.readable).text();
    await channel.closed;
  });
}

export async function plainHandshakes(
  servers: Servers,
  count: number,
  atOnce: number,
) {
  return await perSecond(count, atOnce, async () => {
    await finishPlain(await dialPlain(servers, "count"));
  });
}

async function perSecond(
  count: number,
  atOnce: number,
  work: () => Promise<void>,
): Promise<number> {
  let left = count;
  const ms = await milliseconds(() =>
    Promise.all(Array.from({ length: atOnce }, async () => {
      while (left-- > 0) await work();
    }))
  );
  return count / ms * 1000;
}
