import { assertEquals, assertRejects } from "@std/assert";
import {
  acceptChannel,
  type Channel,
  ChannelError,
  connectChannel,
  type FrameTrace,
} from "../lib/mod.ts";
import { duplex, PSK } from "./duplex.ts";

/** Short enough to wait for, in milliseconds. */
const INTERVAL = 30;

async function pair(
  { idleTimeout, peerIdleTimeout, trace }: {
    idleTimeout: number;
    peerIdleTimeout: number;
    trace?: (frame: FrameTrace) => void;
  },
): Promise<[Channel, Channel]> {
  const [near, far] = duplex();
  return await Promise.all([
    connectChannel(near, { psk: PSK, idleTimeout, ...(trace && { trace }) }),
    acceptChannel(far, { psk: PSK, idleTimeout: peerIdleTimeout }),
  ]);
}

Deno.test("idleTimeout: a live peer that says nothing is kept", async () => {
  const enough = Promise.withResolvers<void>();
  let pongs = 0;
  const [channel, peer] = await pair({
    idleTimeout: INTERVAL,
    peerIdleTimeout: 0,
    trace: ({ direction, type }) => {
      if (direction === "received" && type === "pong" && ++pongs === 5) {
        enough.resolve();
      }
    },
  });
  await Promise.race([enough.promise, channel.closed]);
  assertEquals(pongs, 5);
  channel.abort();
  peer.abort();
});

Deno.test("idleTimeout: a peer that answers no ping is given up", async () => {
  const [near, far] = duplex();
  // From some time on, what the peer sends is lost.
  let isLost = false;
  const wire = far.writable.getWriter();
  const writable = new WritableStream<Uint8Array>({
    write: async (chunk) => {
      if (!isLost) await wire.write(chunk);
    },
  });
  const [channel, peer] = await Promise.all([
    connectChannel(near, { psk: PSK, idleTimeout: INTERVAL }),
    acceptChannel({ readable: far.readable, writable }, { psk: PSK }),
  ]);
  await peer.writable.getWriter().write(new TextEncoder().encode("a sign"));
  await channel.readable.getReader().read();
  isLost = true;
  const error = await assertRejects(() => channel.closed, ChannelError);
  assertEquals(error.code, "timeout");
  await assertRejects(() => peer.closed, ChannelError);
});

Deno.test("idleTimeout: a peer whose reader is slow is kept", async () => {
  const [channel, peer] = await pair({
    idleTimeout: INTERVAL,
    peerIdleTimeout: INTERVAL,
  });
  const writer = channel.writable.getWriter();
  const writing = (async () => {
    for (let i = 0; i < 200; i++) await writer.write(new Uint8Array(65_536));
    await writer.close();
  })();
  // Nothing is read for several intervals: no pong can come.
  let time = 0;
  while (time < 10 * INTERVAL) {
    const start = performance.now();
    await new Promise((resolve) => setTimeout(resolve, INTERVAL));
    time += performance.now() - start;
  }
  let received = 0;
  for await (const chunk of peer.readable) received += chunk.length;
  assertEquals(received, 200 * 65_536);
  await writing;
  await peer.writable.close();
  await channel.closed;
});
