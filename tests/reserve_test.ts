/** Sessions in reserve, on a clock that tests hold. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { type Channel, ChannelError } from "../lib/mod.ts";
import { Reserve, Unreachable } from "../tunnel/reserve.ts";
import { FakeClock } from "./clock.ts";
import { settled } from "./pipe.ts";

/** A session, of which only the end matters. */
class FakeSession {
  isClosed = false;
  readonly #closed = Promise.withResolvers<void>();
  readonly closed = this.#closed.promise;

  /** As this side does. */
  close(): void {
    this.isClosed = true;
    this.#closed.reject(new ChannelError("aborted", "It was closed"));
  }

  /** As the server does. */
  die(): void {
    this.#closed.reject(new ChannelError("cut", "It was cut"));
  }
}

/** Dials that a test answers, oldest first. */
class Server {
  readonly clock = new FakeClock();
  readonly sessions: FakeSession[] = [];
  readonly reports: string[] = [];
  /** How often it has been dialled. */
  dialled = 0;
  readonly #dials: PromiseWithResolvers<Channel>[] = [];

  reserve(max: number): Reserve {
    return new Reserve({
      dial: (signal) => {
        const dial = Promise.withResolvers<Channel>();
        signal.addEventListener("abort", () => dial.reject(signal.reason));
        this.#dials.push(dial);
        this.dialled++;
        return dial.promise;
      },
      report: (message) => this.reports.push(message),
      ready: () => this.reports.push("ready"),
      diedYoung: "Died young",
      max,
      clock: this.clock,
    });
  }

  /** How many dials wait for an answer. */
  get waiting(): number {
    return this.#dials.length;
  }

  /** Answers so many dials; the last of their sessions. */
  async accept(count = 1): Promise<FakeSession> {
    const session = new FakeSession();
    this.sessions.push(session);
    this.#dials.shift()!.resolve(session as unknown as Channel);
    await settled();
    return count === 1 ? session : await this.accept(count - 1);
  }

  /** Refuses a dial. */
  async refuse(error: Error = new Error("Refused")): Promise<void> {
    this.#dials.shift()!.reject(error);
    await settled();
  }
}

/** Longer than anything in the reserve takes. */
const LONG = 60_000;

/** Longer than a session takes to count as one that stays. */
const YOUTH = 300;

/** Stops nothing. */
const FOREVER = new AbortController().signal;

Deno.test("Reserve: one session is ready for the first caller, and replaced", async () => {
  const server = new Server();
  const reserve = server.reserve(8);
  assertEquals(server.waiting, 1);
  const session = await server.accept();
  server.clock.pass(LONG);
  assertEquals(server.dialled, 1);
  assert(await reserve.take(LONG, FOREVER) === session as unknown);
  // Not before the caller's first words have gone.
  assertEquals(server.dialled, 1);
  server.clock.pass(20);
  assertEquals(server.dialled, 2);
  await server.accept();
  assertEquals(reserve.missing, 0);
  reserve.close();
});

Deno.test("Reserve: grows by one with each caller that had to wait, to the maximum", async () => {
  const server = new Server();
  const reserve = server.reserve(3);
  await server.accept();
  for (const [callers, ready] of [[2, 2], [3, 3], [9, 3]] as const) {
    const taken = Array.from(
      { length: callers },
      () => reserve.take(LONG, FOREVER),
    );
    // All at a time: each misses its session.
    while (server.waiting > 0) await server.accept();
    await Promise.all(taken);
    server.clock.pass(YOUTH);
    assertEquals(reserve.missing, 0);
    const before = server.dialled;
    const next = Array.from(
      { length: ready },
      () => reserve.take(LONG, FOREVER),
    );
    await Promise.all(next);
    assertEquals(server.dialled, before);
    server.clock.pass(20);
    assertEquals(server.waiting, ready);
    await server.accept(ready);
  }
  reserve.close();
});

Deno.test("Reserve: shrinks by what nobody has needed, to one", async () => {
  const server = new Server();
  const reserve = server.reserve(8);
  await server.accept();
  const taken = Array.from({ length: 4 }, () => reserve.take(LONG, FOREVER));
  while (server.waiting > 0) await server.accept();
  await Promise.all(taken);
  const open = () => server.sessions.filter(({ isClosed }) => !isClosed).length;
  const ready = () => open() - taken.length;
  assertEquals(ready(), 4);
  // Those that were missed within the first interval are kept.
  server.clock.pass(30_000);
  assertEquals(ready(), 4);
  // Two are needed in the second.
  await reserve.take(LONG, FOREVER);
  await reserve.take(LONG, FOREVER);
  server.clock.pass(20);
  await server.accept(2);
  server.clock.pass(30_000);
  assertEquals(ready() - 2, 2);
  server.clock.pass(LONG);
  assertEquals(ready() - 2, 1);
  assertEquals(server.waiting, 0);
  reserve.close();
});

Deno.test("Reserve: one that dies is replaced in silence", async () => {
  const server = new Server();
  const reserve = server.reserve(1);
  const session = await server.accept();
  server.clock.pass(YOUTH);
  session.die();
  await settled();
  assertEquals(server.waiting, 1);
  const next = await server.accept();
  assert(await reserve.take(LONG, FOREVER) === next as unknown);
  assertEquals(server.reports, ["ready"]);
  reserve.close();
});

Deno.test("Reserve: a server that ends each session at once is dialled ever more rarely", async () => {
  const server = new Server();
  const reserve = server.reserve(1);
  for (const pause of [100, 200, 400, 800, 1600, 2000, 2000]) {
    (await server.accept()).die();
    await settled();
    server.clock.pass(pause - 1);
    assertEquals(server.waiting, 0);
    server.clock.pass(1);
    assertEquals(server.waiting, 1);
  }
  await server.accept();
  assertEquals(server.reports, ["Died young; trying again"]);
  server.clock.pass(YOUTH);
  assertEquals(server.reports.slice(1), [
    "Connected to the server again",
    "ready",
  ]);
  reserve.close();
});

Deno.test("Reserve: a server that is away is dialled ever more rarely, one dial at a time", async () => {
  const server = new Server();
  const reserve = server.reserve(8);
  const callers = [1, 2, 3].map(() => reserve.take(LONG, FOREVER));
  await server.refuse();
  for (let left = server.waiting; left > 0; left--) await server.refuse();
  for (const pause of [100, 200, 400, 800, 1600, 2000, 2000]) {
    server.clock.pass(pause - 1);
    assertEquals(server.waiting, 0);
    server.clock.pass(1);
    assertEquals(server.waiting, 1);
    await server.refuse();
  }
  // What is wrong is said when it changes; that nothing is, once.
  server.clock.pass(2000);
  await server.refuse(new Error("Also wrong"));
  server.clock.pass(2000);
  await server.accept();
  while (server.waiting > 0) await server.accept();
  await Promise.all(callers);
  server.clock.pass(YOUTH);
  assertEquals(server.reports, [
    "Refused; trying again",
    "Also wrong; trying again",
    "Connected to the server again",
    "ready",
  ]);
  // After that the first pause is the shortest.
  server.sessions.at(-1)!.die();
  await settled();
  await server.refuse();
  server.clock.pass(100);
  assertEquals(server.waiting, 1);
  reserve.close();
});

Deno.test("Reserve: a caller that comes long after a failure is dialled for at once", async () => {
  const server = new Server();
  const reserve = server.reserve(0);
  for (let hours = 0; hours < 3; hours++) {
    const taking = reserve.take(50, FOREVER);
    assertEquals(server.waiting, 1);
    const refused = assertRejects(() => taking, Unreachable);
    await server.refuse();
    server.clock.pass(3_600_000);
    await refused;
  }
  assertEquals(server.dialled, 3);
  reserve.close();
});

Deno.test("Reserve: with 0 it keeps none, though a caller has given up", async () => {
  const server = new Server();
  const reserve = server.reserve(0);
  server.clock.pass(LONG);
  assertEquals(server.dialled, 0);
  const stop = new AbortController();
  const given = reserve.take(LONG, stop.signal);
  stop.abort(new Error("Stop"));
  await assertRejects(() => given, Error, "Stop");
  assertEquals((await server.accept()).isClosed, true);
  server.clock.pass(LONG);
  assertEquals(server.dialled, 1);
  const taking = reserve.take(LONG, FOREVER);
  const session = await server.accept();
  assert(await taking === session as unknown);
  assertEquals(session.isClosed, false);
  reserve.close();
});

Deno.test("Reserve: who has waited for so long gives up, the others do not", async () => {
  const server = new Server();
  const reserve = server.reserve(1);
  const first = reserve.take(1000, FOREVER);
  const second = reserve.take(2000, FOREVER);
  const refused = assertRejects(() => first, Unreachable);
  server.clock.pass(1000);
  await refused;
  const session = await server.accept();
  assert(await second === session as unknown);
  reserve.close();
});

Deno.test("Reserve: a caller may want a new session", async () => {
  const server = new Server();
  const reserve = server.reserve(1);
  await server.accept();
  const taking = reserve.take(LONG, FOREVER, true);
  const session = await server.accept();
  assert(await taking === session as unknown);
  reserve.close();
});

Deno.test("Reserve: a certificate that stays wrong fails the callers at once", async () => {
  const server = new Server();
  const reserve = server.reserve(1);
  const wrong = () => new ChannelError("untrusted", "Wrong name");
  await server.refuse(wrong());
  const taking = reserve.take(LONG, FOREVER);
  let isRefused = false;
  const refused = assertRejects(() => taking, Unreachable, "Wrong name")
    .then(() => isRefused = true);
  // But it may be just being replaced.
  for (let time = 0; time < 2000; time = server.clock.now()) {
    assertEquals(isRefused, false);
    server.clock.pass(100);
    if (server.waiting > 0) await server.refuse(wrong());
  }
  while (server.waiting === 0) server.clock.pass(100);
  await server.refuse(wrong());
  await refused;
  assertEquals(server.reports, ["Wrong name; trying again"]);
  reserve.close();
});

Deno.test("Reserve: what has failed is tried at once when all is renewed", async () => {
  const server = new Server();
  const reserve = server.reserve(1);
  await server.refuse();
  assertEquals(server.waiting, 0);
  reserve.renew();
  const old = await server.accept();
  reserve.renew();
  assertEquals([old.isClosed, server.waiting], [true, 1]);
  await server.accept();
  reserve.close();
});

Deno.test("Reserve: many callers are dialled for at a time, but not all", async () => {
  const server = new Server();
  const reserve = server.reserve(1);
  const callers = Array.from(
    { length: 40 },
    () => reserve.take(LONG, FOREVER),
  );
  assertEquals([server.waiting, reserve.missing], [16, 41]);
  while (server.waiting > 0) await server.accept();
  await Promise.all(callers);
  assertEquals(server.dialled, 41);
  reserve.close();
});

Deno.test("Reserve: closed, it leaves nothing behind but what was taken", async () => {
  const server = new Server();
  const reserve = server.reserve(2);
  const taken = await server.accept();
  await reserve.take(LONG, FOREVER);
  server.clock.pass(20);
  const idle = await server.accept();
  // One more than there are.
  const ready = reserve.take(LONG, FOREVER);
  const waiting = reserve.take(LONG, FOREVER);
  const next = await server.accept();
  assert(await waiting === next as unknown);
  const unlucky = reserve.take(LONG, FOREVER);
  server.clock.pass(20);
  reserve.close();
  await assertRejects(() => unlucky, Unreachable);
  await ready;
  await settled();
  assertEquals([taken, idle, next].map(({ isClosed }) => isClosed), [
    false,
    false,
    false,
  ]);
  assertEquals([server.clock.left, server.reports], [[], []]);
});

Deno.test("Reserve: closed, it closes those that are ready or come late", async () => {
  const server = new Server();
  const reserve = server.reserve(2);
  const ready = await server.accept();
  const late = Promise.withResolvers<Channel>();
  const deaf = new Reserve({
    dial: () => late.promise,
    report: (message) => server.reports.push(message),
    diedYoung: "",
    max: 1,
    clock: server.clock,
  });
  reserve.close();
  deaf.close();
  const session = new FakeSession();
  late.resolve(session as unknown as Channel);
  await settled();
  assertEquals([ready.isClosed, session.isClosed], [true, true]);
  assertEquals([server.clock.left, server.reports], [[], []]);
});
