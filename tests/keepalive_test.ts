import { assertEquals } from "@std/assert";
import { Keepalive } from "../lib/lock/keepalive.ts";
import { FakeClock } from "./clock.ts";

/** A keepalive of 100 ms, and what it did. */
function keepalive(interval = 100) {
  const clock = new FakeClock();
  const did: string[] = [];
  const subject = new Keepalive(
    interval,
    () => did.push(`ping ${clock.now()}`),
    () => did.push(`give up ${clock.now()}`),
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

Deno.test("Keepalive: a side that only hears says that it is there", () => {
  const clock = new FakeClock();
  const pings: number[] = [];
  let saidAt = 0;
  const ping = () => pings.push(saidAt = clock.now());
  const giveUp = () => pings.push(NaN);
  const subject = new Keepalive(100, ping, giveUp, clock, () => saidAt);
  for (let i = 0; i < 15; i++) {
    clock.pass(20);
    subject.heard();
  }
  assertEquals(pings, [100, 200, 300]);
  // What it says otherwise is as good.
  for (let i = 0; i < 15; i++) {
    clock.pass(20);
    subject.heard();
    saidAt = clock.now();
  }
  assertEquals(pings.length, 3);
  clock.pass(1000);
  assertEquals(pings.slice(3), [700, NaN]);
});

Deno.test("Keepalive: while this side is deaf the peer is pinged, not given up", () => {
  const { clock, did, subject } = keepalive();
  subject.deaf(true);
  clock.pass(300);
  // What was read before is still being delivered.
  subject.heard();
  clock.pass(300);
  assertEquals(did.length, 6);
  subject.deaf(false);
  clock.pass(1000);
  assertEquals(did.slice(6), ["ping 700", "give up 800"]);
});

Deno.test("Keepalive: a ping that is out is forgiven while this side is deaf", () => {
  const { clock, did, subject } = keepalive();
  clock.pass(100);
  subject.deaf(true);
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

Deno.test("Keepalive: stopped by its own ping, it sets no timer", () => {
  for (const isDeaf of [false, true]) {
    const clock = new FakeClock();
    const keepalive: Keepalive = new Keepalive(
      1000,
      () => keepalive.stop(),
      () => {},
      clock,
    );
    keepalive.deaf(isDeaf);
    clock.pass(1000);
    assertEquals(clock.left, []);
  }
});
