/** What a client offers, on a clock that tests hold. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { type Channel, ChannelError } from "../lib/mod.ts";
import { Offers } from "../lib/offers.ts";
import { Offered } from "../tunnel/offered.ts";
import { Unreachable } from "../tunnel/reserve.ts";
import { FakeClock } from "./clock.ts";
import { settled } from "./pipe.ts";

/** An offered session, of which only its life matters. */
class FakeSession {
  readonly identity = "nas@db";
  silence = 0;
  /** What it was given up with, and is not told of at once. */
  reason: unknown;
  readonly #opened = Promise.withResolvers<void>();
  readonly opened = this.#opened.promise;
  /** Its peer does not close. */
  readonly closed = new Promise<void>(() => {});

  constructor() {
    this.opened.catch(() => {});
  }

  abort(reason: unknown): void {
    this.reason = reason;
  }

  die(): void {
    this.#opened.reject(new ChannelError("cut", "It was cut"));
  }
}

const FOREVER = new AbortController().signal;

function offering() {
  const clock = new FakeClock();
  const offers = new Offers();
  const said: string[] = [];
  const offered = new Offered({
    identity: "nas@db",
    open: (signal) => offers.take("nas@db", signal),
    report: (message) => said.push(message),
    clock,
  });
  const offer = () => {
    const session = new FakeSession();
    offered.add(session as unknown as Channel);
    offers.add(session as unknown as Channel);
    return session;
  };
  return { clock, offered, offer, said };
}

Deno.test("Offered: those that were silent for as long as a dead one go with it", async () => {
  const { offered, offer } = offering();
  const [dead, also, alive] = [offer(), offer(), offer()];
  [dead.silence, also.silence, alive.silence] = [9000, 8000, 100];
  assertEquals(await offered.take(10_000, FOREVER), dead as unknown);
  offered.forsake(8000);
  assertEquals((also.reason as ChannelError).code, "timeout");
  assertEquals([dead.reason, alive.reason], [undefined, undefined]);
  // The listener has not heard of it yet.
  assertEquals(await offered.take(10_000, FOREVER), alive as unknown);
});

Deno.test("Offered: one that dies just when it is taken is not given", async () => {
  const { offered, offer } = offering();
  const [first, second] = [offer(), offer()];
  const taking = offered.take(10_000, FOREVER);
  first.die();
  assert(await taking === second as unknown);
});

Deno.test("Offered: one whose caller left just when it was taken is given up", async () => {
  const { offered, offer } = offering();
  const session = offer();
  const caller = new AbortController();
  const taking = offered.take(10_000, caller.signal);
  await Promise.resolve();
  caller.abort(new RangeError("It left"));
  await assertRejects(() => taking, RangeError);
  assertEquals((session.reason as ChannelError).code, "stopping");
});

Deno.test("Offered: a caller waits as long as others get theirs, and 10 s more", async () => {
  const { clock, offered, offer } = offering();
  const [first, second] = [1, 2].map(() => offered.take(10_000, FOREVER));
  clock.pass(9999);
  const session = offer();
  assertEquals(await first, session as unknown);
  clock.pass(9999);
  let isOver = false;
  second!.catch(() => isOver = true);
  await settled();
  assertEquals(isOver, false);
  clock.pass(1);
  await assertRejects(() => second!, Unreachable, "nas@db");
  offered.close();
});

Deno.test("Offered: that the client comes, goes and comes back is said once each", async () => {
  const { clock, offered, offer, said } = offering();
  await assertRejects(
    () => {
      const taking = offered.take(10_000, FOREVER);
      clock.pass(10_000);
      return taking;
    },
    Unreachable,
    "nas@db is away",
  );
  offer();
  const last = offer();
  assertEquals(said, ["nas@db is there"]);
  // What is taken is mostly replaced soon.
  await offered.take(10_000, FOREVER);
  await offered.take(10_000, FOREVER);
  clock.pass(2999);
  const next = offer();
  clock.pass(60_000);
  assertEquals(said.length, 1);
  last.die();
  next.die();
  await settled();
  clock.pass(2999);
  assertEquals(said.length, 1);
  clock.pass(1);
  offer();
  assertEquals(said.slice(1), [
    "nas@db is away, or offers nothing: callers wait for it",
    "nas@db is there again",
  ]);
  offered.close();
  clock.pass(60_000);
  assertEquals(said.length, 3);
});
