/**
 * What one does with a connection. A channel has the shape of `Deno.Conn`: the
 * two locks together and plain TLS do the same, by the same lines.
 */

import { connect } from "../lib/deno.ts";
import { type Transport, writeAll } from "../lib/lock/transport.ts";
import { milliseconds } from "./measure.ts";
import type { Servers } from "./servers.ts";

const MB = 1e6;
const CHUNK = crypto.getRandomValues(new Uint8Array(65_536));
const SMALL = new Uint8Array(64);

/** Connects to a server of either kind, for one of its jobs. */
export type Dial = (
  servers: Servers,
  job: "echo" | "count",
) => Promise<Transport>;

/** Both locks. */
export const inner: Dial = ({ cert, psk, inner }, job) =>
  connect({ port: inner[job], caCerts: [cert], psk });

/** TLS alone. */
export const plain: Dial = async ({ cert, plain }, job) => {
  const hostname = "localhost";
  const tcp = await Deno.connect({ hostname, port: plain[job] });
  tcp.setNoDelay(true);
  const conn = await Deno.startTls(tcp, { hostname, caCerts: [cert] });
  await conn.handshake();
  return conn;
};

/** Ends our side, reads what is left, closes. */
async function finish(conn: Transport): Promise<string> {
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

/** Reads at least as many bytes as the buffer has. */
export async function receive(
  conn: Transport,
  buffer: Uint8Array,
): Promise<void> {
  for (let got = 0; got < buffer.length;) {
    const n = await conn.read(buffer);
    if (n === null) throw new Error("The connection was cut");
    got += n;
  }
}

/** One way, in writes of `chunk`. MB/s. */
export async function oneWay(
  dial: Dial,
  servers: Servers,
  bytes: number,
  chunk = CHUNK,
): Promise<number> {
  const count = Math.ceil(bytes / chunk.length);
  const conn = await dial(servers, "count");
  const ms = await milliseconds(async () => {
    for (let i = 0; i < count; i++) await writeAll(conn, chunk);
    const counted = await finish(conn);
    if (counted !== String(count * chunk.length)) {
      throw new Error(`${counted} of ${count * chunk.length} bytes arrived`);
    }
  });
  return count * chunk.length / MB / ms * 1000;
}

/** Many 64-byte writes, which need not wait for each other. Writes a second. */
export async function smallWrites(
  servers: Servers,
  count: number,
): Promise<number> {
  const bytes = count * SMALL.length;
  const rate = await oneWay(inner, servers, bytes, SMALL);
  return rate * MB / SMALL.length;
}

/** 64 bytes there and back, one after another. Microseconds each. */
export async function roundTrip(
  dial: Dial,
  servers: Servers,
  count: number,
): Promise<number> {
  const conn = await dial(servers, "echo");
  const us = await turns(conn, count);
  await finish(conn);
  return us;
}

/** The same over a connection that echoes. */
export async function turns(conn: Transport, count: number): Promise<number> {
  const buffer = new Uint8Array(SMALL.length);
  const turn = async () => {
    await writeAll(conn, SMALL);
    await receive(conn, buffer);
  };
  await turn();
  const ms = await milliseconds(async () => {
    for (let i = 0; i < count; i++) await turn();
  });
  return ms / count * 1000;
}

/** From nothing to the first reply, one after another. Milliseconds each. */
export async function setUp(
  dial: Dial,
  servers: Servers,
  count: number,
): Promise<number> {
  let ms = 0;
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    const conn = await dial(servers, "echo");
    await writeAll(conn, SMALL);
    await receive(conn, new Uint8Array(SMALL.length));
    ms += performance.now() - start;
    await finish(conn);
  }
  return ms / count;
}

/** Connections set up and ended, so many at once. A second. */
export async function handshakes(
  dial: Dial,
  servers: Servers,
  count: number,
  atOnce: number,
): Promise<number> {
  let left = count;
  const ms = await milliseconds(() =>
    Promise.all(Array.from({ length: atOnce }, async () => {
      while (left-- > 0) await finish(await dial(servers, "count"));
    }))
  );
  return count / ms * 1000;
}
