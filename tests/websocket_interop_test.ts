/** Against npm's `ws`, in both roles. */

import { assert, assertEquals } from "@std/assert";
import { once } from "node:events";
import type { WebSocket } from "ws";
import type { WebSocketTransport } from "../lib/carrier/websocket_frames.ts";
import {
  acceptWebSocket,
  connectWebSocket,
} from "../lib/carrier/websocket_handshake.ts";
import { writeAll } from "../lib/lock/transport.ts";
import {
  lacksPermissions,
  lacksVariables,
  testUnless,
} from "./requirements.ts";
import { type Bytes, concat, readAll } from "./scripted.ts";

// Which it reads when it is loaded.
const reason = lacksPermissions("net") ??
  lacksVariables("WS_NO_BUFFER_UTIL", "WS_NO_UTF_8_VALIDATE");

const pattern = (length: number) =>
  new Uint8Array(length).map((_, i) => i * 7 + (i >> 8)) as Bytes;

/** Around every way to write a length, and one in fragments of TCP's. */
const LENGTHS = [1, 125, 126, 65_535, 65_536, 300_000];
const ALL = concat(LENGTHS.map(pattern));

/** Sends all; then `ws` echoes what it got, and closes. */
async function echoes(socket: WebSocketTransport): Promise<void> {
  const reading = readExactly(socket, ALL.length);
  for (const length of LENGTHS) await writeAll(socket, pattern(length));
  assertEquals(await reading, ALL);
}

async function readExactly(
  socket: WebSocketTransport,
  length: number,
): Promise<Bytes> {
  const all = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const count = await socket.read(all.subarray(at));
    assert(count !== null, "It ended early");
    at += count;
  }
  return all;
}

/** An echo of `ws`; tells with what code it was closed. */
function echo(socket: WebSocket): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  socket.on("message", (data) => socket.send(data));
  socket.on("close", resolve);
  socket.on("error", reject);
  return promise;
}

async function withServer(
  work: (socket: WebSocketTransport, theirs: WebSocket) => Promise<void>,
): Promise<void> {
  const { WebSocketServer } = await import("ws");
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  await once(server, "listening");
  const connected = once(server, "connection");
  const { port } = server.address();
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  try {
    const socket = await connectWebSocket(conn, { host: `127.0.0.1:${port}` });
    await work(socket, (await connected)[0]);
  } finally {
    conn.close();
    await new Promise<void>((resolve) => server.close(resolve));
  }
}

async function withClient(
  work: (socket: WebSocketTransport, theirs: WebSocket) => Promise<void>,
): Promise<void> {
  const { WebSocket } = await import("ws");
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  // It offers permessage-deflate, as browsers do.
  const client = new WebSocket(`ws://127.0.0.1:${port}/innerlock`);
  const isOpen = once(client, "open");
  const conn = await listener.accept();
  try {
    const { transport } = await acceptWebSocket(conn);
    await isOpen;
    await work(transport, client);
  } finally {
    conn.close();
  }
}

for (
  const [name, withSocket] of [
    ["the server of ws", withServer],
    ["the client of ws", withClient],
  ] as const
) {
  testUnless(
    reason,
    `WebSocket: ${name} echoes all lengths`,
    () =>
      withSocket(async (socket, theirs) => {
        const closed = echo(theirs);
        await echoes(socket);
        await socket.closeWrite();
        assertEquals(await readAll(socket), new Uint8Array(0));
        assertEquals(await closed, 1000);
      }),
  );

  testUnless(
    reason,
    `WebSocket: ${name} pings, and closes with a code`,
    () =>
      withSocket(async (socket, theirs) => {
        const closed = echo(theirs);
        const reading = readAll(socket);
        const ponged = once(theirs, "pong");
        await new Promise<void>((resolve, reject) =>
          theirs.ping(
            pattern(125),
            undefined,
            (error) => error ? reject(error) : resolve(),
          )
        );
        assertEquals(new Uint8Array((await ponged)[0]), pattern(125));
        theirs.send(pattern(3));
        theirs.close(1000, "enough");
        assertEquals(await reading, pattern(3));
        await socket.closeWrite();
        assertEquals(await closed, 1000);
      }),
  );

  testUnless(
    reason,
    `WebSocket: ${name} is refused a text message`,
    () =>
      withSocket(async (socket, theirs) => {
        const closed = echo(theirs);
        theirs.send("text");
        const error = await readAll(socket).catch((error) => error);
        assertEquals(error.code, "protocol");
        await socket.closeWrite();
        assertEquals(await closed, 1003);
      }),
  );
}
