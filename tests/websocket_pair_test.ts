import { assert, assertEquals, assertRejects } from "@std/assert";
import { acceptChannel, ChannelError, connectChannel } from "../lib/mod.ts";
import { acceptWebSocket } from "../lib/carrier/websocket_handshake.ts";
import { UnansweredError } from "../lib/lock/handshake.ts";
import { webSocketPair } from "../lib/platform_websocket.ts";
import { settled } from "./pipe.ts";
import { PSK } from "./duplex.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

/** The platform's side of a WebSocket, as a test says. */
class Fake extends EventTarget {
  binaryType = "blob";
  readyState = 0;
  bufferedAmount = 0;
  readonly sent: Uint8Array[] = [];
  readonly closed: (number | undefined)[] = [];

  send(data: Uint8Array): void {
    assertEquals(this.readyState, 1);
    this.sent.push(data.slice());
  }

  close(code?: number): void {
    this.readyState = Math.max(this.readyState, 2);
    this.closed.push(code);
  }

  open(): void {
    this.readyState = 1;
    this.dispatchEvent(new Event("open"));
  }

  receive(data: ArrayBuffer | string): void {
    this.dispatchEvent(new MessageEvent("message", { data }));
  }

  end(type: "error" | "close" = "close"): void {
    this.readyState = 3;
    this.dispatchEvent(new Event(type));
  }
}

const bytes = (length: number) => new Uint8Array(length).fill(7);

function pair(maxBuffered?: number) {
  const socket = new Fake();
  const options = maxBuffered === undefined ? {} : { maxBuffered };
  const { readable, writable } = webSocketPair(socket, options);
  const writer = writable.getWriter();
  writer.closed.catch(() => {});
  return { socket, reader: readable.getReader(), writer };
}

async function fails(work: Promise<unknown>, code: string): Promise<void> {
  const error = await assertRejects(() => work, ChannelError);
  assertEquals(error.code, code);
}

Deno.test("webSocketPair waits with a write until the WebSocket is open", async () => {
  const { socket, reader, writer } = pair();
  const writing = writer.write(bytes(3));
  await settled();
  assertEquals(socket.sent, []);
  socket.open();
  await writing;
  assertEquals(socket.sent, [bytes(3)]);
  assertEquals(socket.binaryType, "arraybuffer");
  socket.end();
  assertEquals((await reader.read()).done, true);
});

Deno.test("webSocketPair gives messages as they come, and a close as the end", async () => {
  const { socket, reader, writer } = pair();
  socket.open();
  socket.receive(bytes(3).buffer);
  socket.receive(bytes(0).buffer);
  socket.receive(bytes(4).buffer);
  socket.end();
  assertEquals((await reader.read()).value, bytes(3));
  assertEquals((await reader.read()).value, bytes(4));
  assertEquals((await reader.read()).done, true);
  await fails(writer.write(bytes(1)), "cut");
});

Deno.test("webSocketPair closes the WebSocket when the writer does", async () => {
  const { socket, reader, writer } = pair();
  socket.open();
  await writer.close();
  assertEquals(socket.closed, [1000]);
  socket.end();
  assertEquals((await reader.read()).done, true);
});

Deno.test("webSocketPair waits with a write while too much is not sent", async () => {
  const { socket, writer } = pair();
  socket.open();
  socket.bufferedAmount = 2 ** 20 + 1;
  let isWritten = false;
  const writing = writer.write(bytes(1)).then(() => isWritten = true);
  await settled();
  assert(!isWritten);
  socket.bufferedAmount = 2 ** 20;
  await writing;
});

Deno.test("webSocketPair waits no longer when the WebSocket is closed", async () => {
  const { socket, writer } = pair();
  socket.open();
  socket.bufferedAmount = 2 ** 30;
  const writing = writer.write(bytes(1));
  await settled();
  socket.end();
  await writing;
});

Deno.test("webSocketPair holds so much that nobody has read, and no more", async () => {
  const { socket, reader, writer } = pair(10);
  socket.open();
  socket.receive(bytes(6).buffer);
  socket.receive(bytes(4).buffer);
  await reader.read();
  socket.receive(bytes(6).buffer);
  assertEquals(socket.closed, []);
  socket.receive(bytes(1).buffer);
  assertEquals(socket.closed, [undefined]);
  await fails(reader.read(), "limit");
  await fails(writer.write(bytes(1)), "limit");
});

Deno.test("webSocketPair refuses a text message", async () => {
  const { socket, reader, writer } = pair();
  socket.open();
  socket.receive("text");
  await fails(reader.read(), "protocol");
  await fails(writer.write(bytes(1)), "protocol");
  assertEquals(socket.closed.length, 1);
});

Deno.test("webSocketPair fails with a WebSocket that does not open", async () => {
  for (const type of ["error", "close"] as const) {
    const { socket, reader, writer } = pair();
    const writing = writer.write(bytes(1));
    await settled();
    socket.end(type);
    await fails(writing, "cut");
    if (type === "error") await fails(reader.read(), "cut");
  }
});

Deno.test("webSocketPair closes the WebSocket when a stream is given up", async () => {
  const cancelled = pair();
  cancelled.socket.open();
  await cancelled.reader.cancel();
  assertEquals(cancelled.socket.closed.length, 1);
  await fails(cancelled.writer.write(bytes(1)), "aborted");
  const aborted = pair();
  aborted.socket.open();
  await aborted.writer.abort();
  assertEquals(aborted.socket.closed.length, 1);
  await fails(aborted.reader.read(), "aborted");
});

Deno.test("webSocketPair tells of a Close for a fault, whose error event says nothing", async () => {
  const { socket, reader, writer } = pair();
  socket.open();
  socket.receive(bytes(3).buffer);
  socket.dispatchEvent(new Event("error"));
  assertEquals((await reader.read()).value, bytes(3));
  const close = new CloseEvent("close", { code: 1013, reason: "busy" });
  socket.dispatchEvent(close);
  for (const work of [reader.read(), writer.write(bytes(1))]) {
    const error = await assertRejects(() => work, ChannelError);
    assertEquals(error.code, "cut");
    assert(error.message.includes("1013 (too much to do"), error.message);
    assert(error.message.includes('"busy"'), error.message);
  }
});

testUnless(
  lacksPermissions("net"),
  "over the platform's WebSocket a wrong key is called one",
  async () => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const serving = (async () => {
      const { transport } = await acceptWebSocket(await listener.accept());
      const other = `default:${"ab".repeat(32)}`;
      const accepting = acceptChannel(transport, { psk: other });
      await assertRejects(() => accepting, ChannelError);
    })();
    const { port } = listener.addr;
    const socket = new WebSocket(`ws://127.0.0.1:${port}/innerlock`);
    const connecting = connectChannel(webSocketPair(socket), { psk: PSK });
    const error = await assertRejects(() => connecting, UnansweredError);
    assertEquals(error.code, "refused");
    await serving;
  },
);

testUnless(
  lacksPermissions("net"),
  "a channel runs from the platform's WebSocket to ours",
  async () => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const serving = (async () => {
      const { transport } = await acceptWebSocket(await listener.accept());
      const channel = await acceptChannel(transport, { psk: PSK });
      await channel.readable.pipeTo(channel.writable);
      await channel.closed;
    })();
    const { port } = listener.addr;
    const socket = new WebSocket(`ws://127.0.0.1:${port}/innerlock`);
    const closed = new Promise((resolve) =>
      socket.addEventListener("close", resolve)
    );
    const channel = await connectChannel(webSocketPair(socket), { psk: PSK });
    const sent = new Blob([bytes(300_000)]).stream().pipeTo(channel.writable);
    const reply = await new Response(channel.readable).bytes();
    await Promise.all([sent, serving, channel.closed, closed]);
    assertEquals(reply, bytes(300_000));
  },
);

Deno.test("webSocketPair fails a write to a WebSocket that is closing", async () => {
  const { socket, reader, writer } = pair();
  socket.open();
  socket.readyState = 2;
  await fails(writer.write(bytes(3)), "cut");
  reader.releaseLock();
});
