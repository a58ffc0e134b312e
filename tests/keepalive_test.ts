import { assertEquals, assertRejects } from "@std/assert";
import { type Clock, Keepalive } from "../lib/keepalive.ts";
import {
  acceptChannel,
  ChannelError,
  connectChannel,
  type FrameTrace,
} from "../lib/mod.ts";
import { duplex, PSK } from "./duplex.ts";

/** Time that passes when the test says so. */
class FakeClock implements Clock {
  #now = 1000;
  #timer: { at: number; callback: () => void } | undefined;

  now = () => this.#now;
  clear = () => this.#timer = undefined;

  after(time: number, callback: () => void): ReturnType<Clock["after"]> {
    assertEquals(this.#timer, undefined, "one timer at a time");
    this.#timer = { at: this.#now + time, callback };
    return 1 as unknown as ReturnType<Clock["after"]>;
  }

  pass(time: number): void {
    const end = this.#now + time;
    while (this.#timer && this.#timer.at <= end) {
      const { at, callback } = this.#timer;
      this.#timer = undefined;
      this.#now = at;
      callback();
    }
    this.#now = end;
  }
}

/** A keepalive of 100 ms, and what it did. */
function keepalive(interval = 100) {
  const clock = new FakeClock();
  const did: string[] = [];
  const subject = new Keepalive(
    interval,
    () => did.push(`ping ${clock.now() - 1000}`),
    () => did.push(`give up ${clock.now() - 1000}`),
    clock,
  );
  return { clock, did, subject };
}

Deno.test("Keepalive: a silent peer is pinged, then given up", () => {
  const { clock, did } = keepalive();
  clock.pass(1000);
  assertEquals(did, ["ping 100", "give up 200"]);
});

Deno.test("Keepalive: a peer that answers is pinged again and again", () => {
  const { clock, did, subject } = keepalive();
  for (let i = 0; i < 3; i++) {
    clock.pass(110);
    subject.heard();
  }
  assertEquals(did, ["ping 100", "ping 210", "ping 320"]);
});

Deno.test("Keepalive: a peer that speaks is not pinged", () => {
  const { clock, did, subject } = keepalive();
  for (let i = 0; i < 10; i++) {
    clock.pass(99);
    subject.heard();
  }
  assertEquals(did, []);
});

Deno.test("Keepalive: while this side is deaf the peer is pinged, not given up", () => {
  const { clock, did, subject } = keepalive();
  subject.deaf();
  clock.pass(300);
  assertEquals(did, ["ping 100", "ping 200", "ping 300"]);
  subject.heard();
  clock.pass(1000);
  assertEquals(did.slice(3), ["ping 400", "give up 500"]);
});

Deno.test("Keepalive: a ping that is out is forgiven while this side is deaf", () => {
  const { clock, did, subject } = keepalive();
  clock.pass(100);
  subject.deaf();
  clock.pass(100);
  assertEquals(did, ["ping 100", "ping 200"]);
});

Deno.test("Keepalive: stopped, or with an interval of 0, it does nothing", () => {
  const stopped = keepalive();
  stopped.subject.stop();
  stopped.clock.pass(1000);
  const never = keepalive(0);
  never.clock.pass(1e9);
  assertEquals([stopped.did, never.did], [[], []]);
});

/** A trace that tells when so many messages of a type have been received. */
function whenReceived(type: FrameTrace["type"], count: number) {
  const { promise, resolve } = Promise.withResolvers<void>();
  let seen = 0;
  const trace = (frame: FrameTrace) => {
    if (frame.direction !== "received" || frame.type !== type) return;
    if (++seen === count) resolve();
  };
  return { promise, trace };
}

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
    connectChannel(near, { psk: PSK, idleTimeout: 200 }),
    acceptChannel({ readable: far.readable, writable }, { psk: PSK }),
  ]);
  await peer.writable.getWriter().write(new TextEncoder().encode("a sign"));
  await channel.readable.getReader().read();
  isLost = true;
  const error = await assertRejects(() => channel.closed, ChannelError);
  assertEquals([error.code, error.message], [
    "timeout",
    "The peer has been silent for 0.4 s and answered no ping",
  ]);
  await assertRejects(() => peer.closed, ChannelError);
});

Deno.test("idleTimeout: a live peer that says nothing answers pings", async () => {
  const [near, far] = duplex();
  // The first answers the client's first ping, which is no keepalive.
  const ponged = whenReceived("pong", 2);
  const { trace } = ponged;
  const [channel, peer] = await Promise.all([
    connectChannel(near, { psk: PSK, idleTimeout: 500, trace }),
    acceptChannel(far, { psk: PSK, idleTimeout: 0 }),
  ]);
  await Promise.race([ponged.promise, channel.closed]);
  channel.abort();
  peer.abort();
});

Deno.test("idleTimeout: a peer whose reader is slow is kept", async () => {
  // More than is held on the way, and soon read even by a busy machine.
  const CHUNKS = 60;
  const [near, far] = duplex();
  // Each is an interval in which the peer could read nothing.
  const pinged = whenReceived("ping", 3);
  const { trace } = pinged;
  const [channel, peer] = await Promise.all([
    connectChannel(near, { psk: PSK, idleTimeout: 1000, trace }),
    acceptChannel(far, { psk: PSK, idleTimeout: 1000 }),
  ]);
  const writer = channel.writable.getWriter();
  const writing = (async () => {
    for (let i = 0; i < CHUNKS; i++) await writer.write(new Uint8Array(65_536));
    await writer.close();
  })();
  writing.catch(() => {});
  await Promise.race([pinged.promise, channel.closed, peer.closed]);
  let received = 0;
  for await (const chunk of peer.readable) received += chunk.length;
  assertEquals(received, CHUNKS * 65_536);
  await writing;
  await peer.writable.close();
  await channel.closed;
});
