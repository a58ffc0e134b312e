/** Sessions in reserve, on a clock that tests hold. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  type Channel,
  ChannelError,
  type ChannelErrorCode,
} from "../lib/mod.ts";
import { Dials } from "../tunnel/dials.ts";
import { type Places, Reserve, Unreachable } from "../tunnel/reserve.ts";
import { FakeClock } from "./clock.ts";
import { settled } from "./pipe.ts";

/** A session, of which only its life matters. */
class FakeSession {
  isClosed = false;
  silence = 0;
  #hasEnded = false;
  readonly #closed = Promise.withResolvers<void>();
  readonly closed = this.#closed.promise;
  readonly #confirmed = Promise.withResolvers<void>();
  readonly confirmed = this.#confirmed.promise;
  readonly #opened = Promise.withResolvers<void>();
  readonly opened = this.#opened.promise;

  constructor(isConfirmed: boolean) {
    this.closed.catch(() => {});
    this.confirmed.catch(() => {});
    this.opened.catch(() => {});
    if (isConfirmed) this.confirm();
  }

  /** The server has answered its first ping. */
  confirm(): void {
    this.#confirmed.resolve();
  }

  /** The server begins it, which was offered. */
  begin(): void {
    this.#confirmed.resolve();
    this.#opened.resolve();
  }

  /** The server has answered what it was offered. */
  async probe(): Promise<void> {
    await (this.#hasEnded ? this.closed : this.confirmed);
  }

  /** As this side does. */
  close(): void {
    this.abort(new ChannelError("aborted", "It was closed"));
  }

  abort(error: unknown): void {
    this.isClosed = true;
    this.#end(error);
  }

  /** As the server does, with or without a word. */
  die(code: ChannelErrorCode = "cut"): void {
    this.#end(
      new ChannelError(code, `Says ${code}`, { isFromPeer: code !== "cut" }),
    );
  }

  #end(error: unknown): void {
    this.#hasEnded = true;
    this.#closed.reject(error);
    this.#confirmed.reject(error);
    this.#opened.reject(error);
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

  reserve(
    max: number,
    dials?: Dials,
    serve?: (channel: Channel) => void,
    places?: Places,
  ): Reserve {
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
      max,
      clock: this.clock,
      ...(dials && { dials }),
      ...(serve && { serve }),
      ...(places && { places }),
    });
  }

  /** How many dials wait for an answer. */
  get waiting(): number {
    return this.#dials.length;
  }

  /** Answers so many dials; the last of their sessions. */
  async accept(count = 1, isConfirmed = true): Promise<FakeSession> {
    const session = new FakeSession(isConfirmed);
    this.sessions.push(session);
    this.#dials.shift()!.resolve(session as unknown as Channel);
    await settled();
    return count === 1 ? session : await this.accept(count - 1);
  }

  /** Takes one, and ends it before it is confirmed. */
  async end(code: ChannelErrorCode): Promise<void> {
    (await this.accept(1, false)).die(code);
    await settled();
  }

  /** Refuses a dial. */
  async refuse(error: Error = new Error("Refused")): Promise<void> {
    this.#dials.shift()!.reject(error);
    await settled();
  }
}

/** Longer than anything in the reserve takes. */
const LONG = 60_000;

/** Longer than the first pause after a failure. */
const PAUSE = 100;

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

for (const code of ["cut", "stopping", "timeout", "aborted"] as const) {
  Deno.test(`Reserve: one that ends with ${code} is replaced in silence`, async () => {
    const server = new Server();
    const reserve = server.reserve(1);
    const session = await server.accept();
    server.clock.pass(LONG);
    session.die(code);
    await settled();
    server.clock.pass(PAUSE);
    assertEquals(server.waiting, 1);
    const next = await server.accept();
    assert(await reserve.take(LONG, FOREVER) === next as unknown);
    assertEquals(server.reports, ["ready"]);
    reserve.close();
  });
}

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
  // Long after that, the first pause is the shortest again.
  const session = await server.accept();
  server.clock.pass(LONG);
  session.die();
  await settled();
  server.clock.pass(PAUSE);
  assertEquals(server.waiting, 1);
  reserve.close();
});

Deno.test("Reserve: nobody gets a session that the server has not taken", async () => {
  const server = new Server();
  const reserve = server.reserve(1);
  const taking = reserve.take(LONG, FOREVER);
  const first = await server.accept(1, false);
  const second = await server.accept(1, false);
  assertEquals([reserve.missing, server.reports], [2, []]);
  second.confirm();
  assert(await taking === second as unknown);
  // One that dies before costs nobody anything.
  const other = reserve.take(LONG, FOREVER);
  first.die("stopping");
  await settled();
  server.clock.pass(PAUSE);
  const third = await server.accept();
  assert(await other === third as unknown);
  assertEquals(server.reports, ["ready"]);
  reserve.close();
});

Deno.test("Reserve: a server that proves its key and is mute then is given up", async () => {
  const server = new Server();
  const reserve = server.reserve(1);
  server.clock.pass(4000);
  const session = await server.accept(1, false);
  server.clock.pass(5999);
  assertEquals(session.isClosed, false);
  server.clock.pass(1);
  await settled();
  assertEquals([session.isClosed, server.reports], [true, [
    "The server proved its key, and then said nothing; trying again",
  ]]);
  reserve.close();
});

for (const code of ["service", "revoked"] as const) {
  Deno.test(`Reserve: ${code} is said once, and refuses callers at once`, async () => {
    const server = new Server();
    const reserve = server.reserve(1);
    const callers = [1, 2].map(() => reserve.take(LONG, FOREVER));
    const refused = callers.map((taking) =>
      assertRejects(() => taking, Unreachable, `Says ${code}`)
    );
    await server.end(code);
    await Promise.all(refused);
    // Nor does another one wait for the next dial.
    await assertRejects(() => reserve.take(LONG, FOREVER), Unreachable);
    while (server.waiting > 0) await server.end(code);
    server.clock.pass(LONG);
    await server.end(code);
    assertEquals(server.reports, [`Says ${code}; trying again`]);
    server.clock.pass(LONG);
    await server.accept();
    assertEquals(server.reports.slice(1), [
      "Connected to the server again",
      "ready",
    ]);
    reserve.close();
  });

  Deno.test(`Reserve: ${code} of one in reserve is said as well`, async () => {
    const server = new Server();
    const reserve = server.reserve(1);
    (await server.accept()).die(code);
    await settled();
    assertEquals(server.reports, ["ready", `Says ${code}; trying again`]);
    reserve.close();
  });
}

Deno.test("Reserve: where there is no room, only callers are dialled for", async () => {
  const server = new Server();
  const reserve = server.reserve(8);
  (await server.accept(1)).die("limit");
  await settled();
  server.clock.pass(PAUSE);
  assertEquals(server.waiting, 0);
  const taking = reserve.take(LONG, FOREVER);
  const refused = assertRejects(() => taking, Unreachable, "Says limit");
  await server.end("limit");
  await refused;
  while (server.waiting > 0) await server.end("limit");
  server.clock.pass(PAUSE);
  assertEquals(server.waiting, 0);
  // Somebody has left.
  const next = reserve.take(LONG, FOREVER);
  const session = await server.accept();
  assert(await next === session as unknown);
  assertEquals(server.reports, ["ready"]);
  reserve.close();
});

Deno.test("Reserve: gives the one that was heard last", async () => {
  const server = new Server();
  const reserve = server.reserve(3);
  const callers = [1, 2].map(() => reserve.take(LONG, FOREVER));
  while (server.waiting > 0) await server.accept();
  await Promise.all(callers);
  const ready = server.sessions.slice(2);
  assertEquals(ready.length, 3);
  for (const [i, silence] of [3000, 1000, 2000].entries()) {
    ready[i]!.silence = silence;
  }
  assert(await reserve.take(LONG, FOREVER) === ready[1] as unknown);
  // What was heard later than one that is dead may live.
  reserve.forsake(2500);
  assertEquals(ready.map(({ isClosed }) => isClosed), [true, false, false]);
  assertEquals(reserve.missing, 2);
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
  assertEquals(server.reports, [
    "Refused; trying again",
    "Also wrong; trying again",
    "Connected to the server again",
    "ready",
  ]);
  // After that the first pause is the shortest.
  server.sessions.at(-1)!.die();
  await settled();
  server.clock.pass(PAUSE);
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
  // Some say for how long it has been wrong.
  let seconds = 0;
  const wrong = () =>
    new ChannelError("untrusted", `Wrong name for ${seconds++} s`);
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
  assertEquals(server.reports, ["Wrong name for 0 s; trying again"]);
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

Deno.test("Reserve: one that is unlucky among others is no trouble", async () => {
  const server = new Server();
  const reserve = server.reserve(1);
  const callers = [1, 2, 3].map(() => reserve.take(LONG, FOREVER));
  assertEquals(server.waiting, 2);
  server.clock.pass(1);
  await server.accept();
  await server.refuse();
  server.clock.pass(PAUSE);
  while (server.waiting > 0) await server.accept();
  await Promise.all(callers);
  assertEquals(server.reports, ["ready"]);
  reserve.close();
});

Deno.test("Reserve: a dial that was under way before a failure does not undo it", async () => {
  const server = new Server();
  const reserve = server.reserve(1);
  const taking = reserve.take(LONG, FOREVER);
  server.clock.pass(1);
  const late = await server.accept(1, false);
  await server.refuse();
  late.confirm();
  assert(await taking === late as unknown);
  assertEquals(server.reports, ["Refused; trying again", "ready"]);
  server.clock.pass(PAUSE);
  await server.accept();
  assertEquals(server.reports.slice(2), ["Connected to the server again"]);
  reserve.close();
});

Deno.test("Reserve: the places for dials are shared, and go round", async () => {
  const server = new Server();
  const dials = new Dials(server.clock);
  const reserves = [1, 2, 3].map(() => server.reserve(0, dials));
  const callers = reserves.map((reserve) =>
    Array.from({ length: 10 }, () => reserve.take(LONG, FOREVER))
  );
  assertEquals(server.waiting, dials.limit);
  const served = new Set<number>();
  callers.forEach((some, i) =>
    some.forEach((taking) => taking.then(() => served.add(i)))
  );
  await server.accept(8);
  assertEquals(served.size, 3);
  while (server.waiting > 0) await server.accept();
  await Promise.all(callers.flat());
  assertEquals(server.dialled, 30);
  for (const reserve of reserves) reserve.close();
});

Deno.test("Reserve: a caller's patience begins anew while others get theirs", async () => {
  const server = new Server();
  const reserve = server.reserve(0);
  const callers = Array.from({ length: 12 }, () => reserve.take(10, FOREVER));
  // Each dial takes nearly as long as all the patience.
  while (server.waiting > 0) {
    server.clock.pass(9);
    await server.accept();
  }
  await Promise.all(callers);
  const last = assertRejects(() => reserve.take(10, FOREVER), Unreachable);
  server.clock.pass(10);
  await last;
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
  assertEquals([server.clock.left, server.reports], [[], ["ready"]]);
});

Deno.test("Reserve: closed, it closes those that are ready or come late", async () => {
  const server = new Server();
  const reserve = server.reserve(2);
  const ready = await server.accept();
  const late = Promise.withResolvers<Channel>();
  const deaf = new Reserve({
    dial: () => late.promise,
    report: (message) => server.reports.push(message),
    max: 1,
    clock: server.clock,
  });
  reserve.close();
  deaf.close();
  const session = new FakeSession(true);
  late.resolve(session as unknown as Channel);
  await settled();
  assertEquals([ready.isClosed, session.isClosed], [true, true]);
  assertEquals([server.clock.left, server.reports], [[], ["ready"]]);
});

/** A reserve of offers, and those that were begun. */
function offering(max: number, places?: Places) {
  const server = new Server();
  const begun: unknown[] = [];
  const serve = (one: Channel) => begun.push(one);
  const reserve = server.reserve(max, undefined, serve, places);
  return { server, begun, reserve };
}

Deno.test("Reserve of offers: one that is begun is served, and replaced at once", async () => {
  const { server, begun, reserve } = offering(3);
  const first = await server.accept();
  first.begin();
  await settled();
  assertEquals(begun, [first]);
  // There was none left: two take its place.
  assertEquals(server.waiting, 2);
  const [second] = [await server.accept(), await server.accept()];
  second.begin();
  await settled();
  assertEquals([begun.length, server.waiting], [2, 1]);
  await server.accept();
  // What is begun lives on; the others are not needed any more.
  reserve.close();
  assertEquals(server.sessions.map(({ isClosed }) => isClosed), [
    false,
    false,
    true,
    true,
  ]);
});

Deno.test("Reserve of offers: one that is begun before it was answered counts", async () => {
  const { server, begun, reserve } = offering(1);
  const session = await server.accept(1, false);
  session.begin();
  session.die();
  await settled();
  assertEquals(begun, [session]);
  assertEquals([server.reports, server.waiting], [["ready"], 1]);
  reserve.close();
});

Deno.test("Reserve of offers: a refused one is told once, and tried again", async () => {
  const { server, reserve } = offering(1);
  await server.end("service");
  for (const pause of [100, 200, 400]) {
    assertEquals(server.waiting, 0);
    server.clock.pass(pause);
    await server.end("service");
  }
  assertEquals(server.reports, ["Says service; trying again"]);
  server.clock.pass(LONG);
  await server.accept();
  assertEquals(server.reports.slice(1), [
    "Connected to the server again",
    "ready",
  ]);
  reserve.close();
});

Deno.test("Reserve of offers: at its limit it goes on to offer one", async () => {
  const { server, reserve } = offering(8);
  (await server.accept()).die("limit");
  await settled();
  server.clock.pass(PAUSE);
  await server.end("limit");
  assertEquals(server.reports, ["ready", "Says limit; trying again"]);
  server.clock.pass(LONG);
  assertEquals(server.waiting, 1);
  await server.accept();
  reserve.close();
});

Deno.test("Reserve of offers: no more are offered than there are places", async () => {
  const left = Promise.withResolvers<void>();
  const places = { free: 2, left: left.promise };
  const { server, reserve } = offering(8, places);
  for (const free of [1, 0]) {
    places.free = free;
    (await server.accept()).begin();
    await settled();
    assertEquals(server.waiting, free);
  }
  // One has left; the next has not.
  Object.assign(places, { free: 1, left: new Promise(() => {}) });
  left.resolve();
  await settled();
  assertEquals(server.waiting, 1);
  reserve.close();
});
