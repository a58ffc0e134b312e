/**
 * `deno run -A bench/flood_peer.ts PORT CA KIND SECONDS`: one that sends over TLS
 * without pause what costs a server much. It dials again whenever it is closed,
 * and prints what it did.
 *
 * A stranger says nothing at all inside a WebSocket (`websocket …`); one that
 * holds a key says next to nothing in frames (`sealed …`).
 */

import { connectWebSocket } from "../lib/carrier/websocket_handshake.ts";
import { nextTurn } from "../lib/lock/runtime.ts";
import { closeQuietly, writeAll } from "../lib/lock/transport.ts";
import { data, open, ping, pong, RawPeer } from "../tests/raw_peer.ts";
import { type Bytes, concat } from "../tests/scripted.ts";
import { encodeFrame, KEY, Opcode } from "../tests/websocket_frame.ts";

/** How many messages one write has. */
const BATCH = 2000;

const message = (opcode: number, length: number, isFinal = true) =>
  encodeFrame({ opcode, isFinal, payload: new Uint8Array(length), key: KEY });

const KINDS: Record<string, Bytes> = {
  "websocket empty messages": message(Opcode.binary, 0),
  "websocket empty fragments": concat([
    message(Opcode.binary, 0, false),
    message(Opcode.continuation, 0),
  ]),
  "websocket Pings": message(Opcode.ping, 0),
  "sealed pongs": pong,
  "sealed pings": ping,
  "sealed bytes": data("x"),
};

const [port, ca, kind, seconds] = Deno.args;
const said = KINDS[kind!]!;
const caCerts = [await Deno.readTextFile(ca!)];
const end = performance.now() + 1000 * Number(seconds);
let [connections, bytes, longest] = [0, 0, 0];
for (let start; (start = performance.now()) < end;) {
  const conn = await Deno.connectTls({ port: Number(port), caCerts })
    .catch(() => undefined);
  if (!conn) continue;
  connections++;
  const timer = setTimeout(() => closeQuietly(conn), end - start);
  await (kind!.startsWith("sealed") ? saySealed(conn) : sayNothing(conn))
    .catch(() => {});
  clearTimeout(timer);
  closeQuietly(conn);
  longest = Math.max(longest, performance.now() - start);
}
console.log(
  `${connections} connections, ${
    (bytes / 1e6).toFixed(1)
  } MB, the longest of ` +
    `${(longest / 1000).toFixed(1)} s`,
);
Deno.exit(0);

/** In a WebSocket, before any proof. */
async function sayNothing(conn: Deno.TlsConn): Promise<void> {
  await connectWebSocket(conn, { host: "localhost" });
  drain(conn);
  const batch = concat(Array(BATCH).fill(said));
  while (true) await send(conn, batch);
}

/** In a stream that is open. */
async function saySealed(conn: Deno.TlsConn): Promise<void> {
  const peer = new RawPeer(conn);
  await peer.initiate();
  await peer.say(ping, open);
  drain(conn);
  while (true) {
    await send(conn, await peer.sealed(...Array<Bytes>(BATCH).fill(said)));
  }
}

async function send(conn: Deno.TlsConn, batch: Bytes): Promise<void> {
  await writeAll(conn, batch);
  bytes += batch.length;
  await nextTurn();
}

/** Takes whatever the server answers. */
async function drain(conn: Deno.TlsConn): Promise<void> {
  const p = new Uint8Array(65_536);
  while (await conn.read(p).catch(() => null) !== null);
}
