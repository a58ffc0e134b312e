import { assertEquals, assertRejects } from "@std/assert";
import { type Clock, Keepalive } from "../lib/keepalive.ts";
import { acceptChannel, ChannelError, connectChannel } from "../lib/mod.ts";
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
  // Parts of frames may come while one waits to be delivered.
  subject.heard();
  clock.pass(200);
  assertEquals(did.slice(3), ["ping 400", "ping 500"]);
  subject.listens();
  clock.pass(1000);
  assertEquals(did.slice(5), ["ping 600", "give up 700"]);
});

Deno.test("Keepalive: stopped, or with an interval of 0, it does nothing", () => {
  const stopped = keepalive();
  stopped.subject.stop();
  stopped.clock.pass(1000);
  const never = keepalive(0);
  never.clock.pass(1e9);
  assertEquals([stopped.did, never.did], [[], []]);
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
    connectChannel(near, { psk: PSK, idleTimeout: 200 }),
    acceptChannel({ readable: far.readable, writable }, { psk: PSK }),
  ]);
  await peer.writable.getWriter().write(new TextEncoder().encode("a sign"));
  await channel.readable.getReader().read();
  isLost = true;
  const error = await assertRejects(() => channel.closed, ChannelError);
  assertEquals(error.code, "timeout");
  await assertRejects(() => peer.closed, ChannelError);
});

Deno.test("idleTimeout: a frame that comes byte by byte is a sign of life", async () => {
  const [near, far] = duplex();
  const wire = far.writable.getWriter();
  const start = performance.now();
  const writable = new WritableStream<Uint8Array>({
    write: async (chunk) => {
      if (chunk.length < 200) return await wire.write(chunk);
      // The frame takes longer than a silent peer would be given.
      for (let i = 0; i < chunk.length; i++) {
        const due = start + i * 1000 / chunk.length;
        const wait = Math.max(0, due - performance.now());
        await new Promise((resolve) => setTimeout(resolve, wait));
        await wire.write(chunk.slice(i, i + 1));
      }
    },
  });
  const [channel, peer] = await Promise.all([
    connectChannel(near, { psk: PSK, idleTimeout: 300 }),
    acceptChannel({ readable: far.readable, writable }, { psk: PSK }),
  ]);
  peer.writable.getWriter().write(new Uint8Array(300)).catch(() => {});
  const { value } = await channel.readable.getReader().read();
  assertEquals(value!.length, 300);
  channel.abort();
  peer.abort();
});
