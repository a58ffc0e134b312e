/** What a local caller gets, whatever becomes of its session. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  acceptChannel,
  type Channel,
  ChannelError,
  connectChannel,
} from "../lib/mod.ts";
import { closeQuietly } from "../lib/lock/transport.ts";
import { Caller, type Sessions } from "../tunnel/caller.ts";
import { Unreachable } from "../tunnel/reserve.ts";
import { resettable } from "../tunnel/resettable.ts";
import { PSK } from "./duplex.ts";
import { FakeClock } from "./clock.ts";
import { pipe, settled } from "./pipe.ts";
import { connectedPair, hear, heardEnd, speak, whole } from "./plain_peers.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const test = (name: string, fn: () => Promise<void>) =>
  testUnless(lacksPermissions("net"), name, fn);

/** A session in standby, and the server's end once its stream has begun. */
interface Standby {
  session: Channel;
  opened: Promise<Channel>;
  /** The server says why it closes it, if it has not taken the open. */
  stop(): void;
  /** The connection breaks. */
  cut(): void;
  /** What the server says does not come through, until it does again. */
  hold(): void;
  release(): void;
}

/** @param silence How long the server has said nothing, in milliseconds. */
async function standby(silence = 0): Promise<Standby> {
  const [near, far] = pipe();
  const stopping = new AbortController();
  const opened = acceptChannel(far, { psk: PSK, signal: stopping.signal });
  opened.catch(() => {});
  const session = await connectChannel(near, { psk: PSK, standby: true });
  await session.confirmed;
  Object.defineProperty(session, "silence", { value: silence });
  return {
    session,
    opened,
    stop: () => stopping.abort(new ChannelError("stopping", "It stops")),
    cut: () => far.close(),
    hold: () => far.hold(),
    release: () => far.release(),
  };
}

/** A caller that is being carried. */
interface Carried extends AsyncDisposable {
  caller: Deno.TcpConn;
  carrying: Promise<void>;
  stop: AbortController;
  clock: FakeClock;
  reports: Error[];
  /** How each session was asked for. */
  asked: { patience: number; isFresh: boolean }[];
  /** For how long those were silent that were dropped from the reserve. */
  forsaken: number[];
}

/** Carries one, for whom there are these sessions. */
async function carried(
  ...standbys: (Standby | Promise<never>)[]
): Promise<Carried> {
  const [caller, near] = await connectedPair();
  const clock = new FakeClock();
  const reports: Error[] = [];
  const asked: Carried["asked"] = [];
  const forsaken: number[] = [];
  const sessions: Sessions = {
    take: async (patience, signal, isFresh = false) => {
      asked.push({ patience, isFresh });
      signal.throwIfAborted();
      const next = standbys.shift()!;
      if ("session" in next) return next.session;
      const aborted = Promise.withResolvers<never>();
      signal.addEventListener("abort", () => aborted.reject(signal.reason));
      return await Promise.race([next, aborted.promise]);
    },
    forsake: (silence) => forsaken.push(silence),
  };
  const stop = new AbortController();
  const carrying = new Caller(resettable(near), {
    ...{ sessions, clock, signal: stop.signal },
    report: (error) => reports.push(error),
  }).carry();
  return {
    ...{ caller, carrying, stop, clock, reports, asked, forsaken },
    async [Symbol.asyncDispose]() {
      stop.abort(new Error("The test is over"));
      await carrying;
      closeQuietly(caller);
    },
  };
}

const NEVER = new Promise<never>(() => {});
const HELLO = new TextEncoder().encode("hello");

/** What an end is told, as text. */
async function read(from: Pick<Deno.Conn, "read">): Promise<string> {
  const buffer = new Uint8Array(100);
  const count = await from.read(buffer);
  return new TextDecoder().decode(buffer.subarray(0, count ?? 0));
}

test("Caller: over the session that is ready", async () => {
  const one = await standby();
  await using t = await carried(one);
  const server = await one.opened;
  await server.write(HELLO);
  assertEquals(await read(t.caller), "hello");
  await t.caller.write(HELLO);
  assertEquals(await read(server), "hello");
  await Promise.all([server.closeWrite(), t.caller.closeWrite()]);
  await Promise.all([heardEnd(server), heardEnd(t.caller), t.carrying]);
  assertEquals([t.reports, t.asked.length], [[], 1]);
});

test("Caller: a session that has died is replaced by a new one", async () => {
  const [one, other] = [await standby(), await standby()];
  one.cut();
  await assertRejects(() => one.session.closed, ChannelError);
  await using t = await carried(one, other);
  await (await other.opened).write(HELLO);
  assertEquals(await read(t.caller), "hello");
  assertEquals(t.asked.map(({ isFresh }) => isFresh), [false, true]);
  assertEquals(t.reports, []);
});

test("Caller: a session that dies before either side has spoken is replaced by a new one", async () => {
  const [one, other] = [await standby(), await standby()];
  await using t = await carried(one, other);
  await one.opened;
  one.cut();
  await (await other.opened).write(HELLO);
  assertEquals(await read(t.caller), "hello");
  assertEquals([t.reports, t.asked.length], [[], 2]);
});

test("Caller: a second one that dies resets the caller", async () => {
  const [one, other] = [await standby(), await standby()];
  await using t = await carried(one, other);
  for (const { opened, cut } of [one, other]) {
    await opened;
    cut();
  }
  assertEquals((await hear(t.caller)).end, "ConnectionReset");
  await t.carrying;
  assertEquals([t.reports.length, t.asked.length], [1, 2]);
});

test("Caller: one to which something was said is not replaced", async () => {
  const one = await standby();
  await using t = await carried(one);
  const server = await one.opened;
  await t.caller.write(HELLO);
  assertEquals(await read(server), "hello");
  one.cut();
  assertEquals((await hear(t.caller)).end, "ConnectionReset");
  await t.carrying;
  assertEquals([t.reports.length, t.asked.length], [1, 1]);
});

test("Caller: one that has answered is not replaced", async () => {
  const one = await standby();
  await using t = await carried(one);
  const server = await one.opened;
  await server.write(HELLO);
  assertEquals(await read(t.caller), "hello");
  one.cut();
  assertEquals((await hear(t.caller)).end, "ConnectionReset");
  await t.carrying;
  assertEquals(t.asked.length, 1);
});

test("Caller: one whose backend cannot be reached is not replaced", async () => {
  const one = await standby();
  await using t = await carried(one);
  const server = await one.opened;
  server.abort(new ChannelError("backend", "Nobody is there"));
  assertEquals((await hear(t.caller)).end, "ConnectionReset");
  await t.carrying;
  const [report] = t.reports as [ChannelError];
  assertEquals([report.code, report.isFromPeer], ["backend", true]);
});

for (const silence of [0, 60_000]) {
  test(`Caller: a server that stops before it has taken the open, ${silence} ms silent`, async () => {
    const [one, other] = [await standby(silence), await standby()];
    // Its last word is on its way.
    one.hold();
    one.stop();
    await using t = await carried(one, other);
    // More than one piece, the last of them an end.
    await t.caller.write(new Uint8Array(5000));
    await t.caller.closeWrite();
    do await settled(); while (silence === 0 && one.session.bytesSent < 5000);
    one.release();
    const server = await other.opened;
    assertEquals((await hear(server)).size, 5000);
    await server.write(HELLO);
    await server.closeWrite();
    assertEquals(await read(t.caller), "hello");
    await t.carrying;
    assertEquals([t.reports, t.asked.length], [[], 2]);
  });
}

test("Caller: a server that has taken the open, and stops then", async () => {
  const one = await standby();
  await using t = await carried(one);
  const server = await one.opened;
  await t.caller.write(HELLO);
  assertEquals(await read(server), "hello");
  server.abort(new ChannelError("stopping", "It stops"));
  assertEquals((await hear(t.caller)).end, "ConnectionReset");
  await t.carrying;
  assertEquals(t.asked.length, 1);
});

test("Caller: much may be said before the server answers, and comes whole", async () => {
  const one = await standby();
  one.hold();
  await using t = await carried(one);
  const saying = speak(t.caller, 1_000_000);
  const server = await one.opened;
  const hearing = hear(server);
  await settled();
  one.release();
  assertEquals(await hearing, whole(1_000_000));
  await Promise.all([saying, server.closeWrite(), heardEnd(t.caller)]);
  await t.carrying;
});

test("Caller: where the server has been silent, bytes wait for a sign", async () => {
  const one = await standby(1000);
  one.hold();
  await using t = await carried(one);
  await t.caller.write(HELLO);
  const server = await one.opened;
  const reading = read(server);
  await settled();
  assertEquals(one.session.bytesSent, 0);
  one.release();
  assertEquals(await reading, "hello");
  assertEquals([t.asked.length, t.forsaken], [1, []]);
});

test("Caller: without one for 1.5 s, a fresh session carries them", async () => {
  const [one, other] = [await standby(60_000), await standby()];
  one.hold();
  await using t = await carried(one, other);
  await t.caller.write(HELLO);
  await one.opened;
  t.clock.pass(1499);
  await settled();
  assertEquals([t.asked.length, t.forsaken], [1, []]);
  t.clock.pass(1);
  assertEquals(await read(await other.opened), "hello");
  // All in reserve that have been as silent are dropped.
  assertEquals(t.forsaken, [60_000]);
  assertEquals(t.asked, [
    { patience: 10_000, isFresh: false },
    { patience: 8500, isFresh: true },
  ]);
  await assertRejects(() => one.session.closed, ChannelError);
  assertEquals([one.session.bytesSent, t.reports], [0, []]);
});

test("Caller: a sign that comes late, but before there is another, will do", async () => {
  const one = await standby(60_000);
  one.hold();
  await using t = await carried(one, NEVER);
  await t.caller.write(HELLO);
  const server = await one.opened;
  t.clock.pass(1500);
  await settled();
  assertEquals(t.asked.length, 2);
  one.release();
  assertEquals(await read(server), "hello");
});

/** A dial that is refused. */
function refusal(error: Error): Promise<never> {
  const refused = Promise.reject(error);
  refused.catch(() => {});
  return refused;
}

/** A caller whose session has given no sign in time, so that it asks for another. */
async function askedAgain(answer: Promise<never>) {
  const one = await standby(60_000);
  one.hold();
  const t = await carried(one, answer);
  await one.opened;
  t.clock.pass(1500);
  await settled();
  return t;
}

test("Caller: two waits of ten seconds do not stand behind each other", async () => {
  const error = new Unreachable("No session in time");
  await using t = await askedAgain(refusal(error));
  // Its patience is over: what may still come from the first counts no more.
  t.clock.pass(8500);
  assertEquals((await hear(t.caller)).end, "ConnectionReset");
  await t.carrying;
  assertEquals(t.reports, [error]);
});

test("Caller: a signal reaches a caller that waits for two sessions", async () => {
  await using t = await askedAgain(NEVER);
  assertEquals(t.asked.length, 2);
  t.stop.abort(new Error("Stop"));
  await t.carrying;
  assertEquals((await hear(t.caller)).end, "ConnectionReset");
  assertEquals([t.reports, t.clock.left], [[], []]);
});

test("Caller: a caller that leaves while the second is refused waits for no sign", async () => {
  const error = new Unreachable("No session in time");
  await using t = await askedAgain(refusal(error));
  resettable(t.caller).reset();
  await t.carrying;
  const { message } = t.reports[0]!;
  assert(message.startsWith("The local caller broke the connection"), message);
});

test("Caller: a second session gets only what the first has left of ten seconds", async () => {
  const [one, other] = [await standby(), await standby()];
  for (const { hold } of [one, other]) hold();
  await using t = await carried(one, other);
  await one.opened;
  t.clock.pass(4000);
  one.cut();
  await other.opened;
  assertEquals(t.asked, [
    { patience: 10_000, isFresh: false },
    { patience: 6000, isFresh: true },
  ]);
  await settled();
  assertEquals(t.clock.left, [6000]);
  t.clock.pass(6000);
  assertEquals((await hear(t.caller)).end, "ConnectionReset");
  await t.carrying;
  assertEquals((t.reports as [ChannelError])[0].code, "timeout");
});

test("Caller: one that comes late has 1.5 s for a sign all the same", async () => {
  const late = Promise.withResolvers<never>();
  const one = await standby();
  one.hold();
  await using t = await carried(late.promise, NEVER);
  t.clock.pass(9000);
  late.resolve(one.session as never);
  await one.opened;
  await settled();
  assertEquals(t.clock.left, [1500]);
  t.clock.pass(1500);
  await assertRejects(() => one.session.closed, ChannelError);
});

test("Caller: one that was heard just before it died is given up after 10 s", async () => {
  const one = await standby();
  one.hold();
  await using t = await carried(one);
  await t.caller.write(HELLO);
  assertEquals(await read(await one.opened), "hello");
  t.clock.pass(10_000);
  assertEquals((await hear(t.caller)).end, "ConnectionReset");
  await t.carrying;
  assertEquals((t.reports as [ChannelError])[0].code, "timeout");
});

test("Caller: an unreachable server resets the caller", async () => {
  const error = new Unreachable("No session in time");
  const refused = refusal(error);
  await using t = await carried(refused);
  assertEquals((await hear(t.caller)).end, "ConnectionReset");
  await t.carrying;
  assertEquals(t.reports, [error]);
});

test("Caller: a signal reaches a caller that waits for a session", async () => {
  await using t = await carried(NEVER);
  t.stop.abort(new Error("Stop"));
  await t.carrying;
  assertEquals((await hear(t.caller)).end, "ConnectionReset");
  assertEquals(t.reports, []);
});

test("Caller: a signal reaches a caller while neither side speaks", async () => {
  const one = await standby();
  await using t = await carried(one);
  const server = await one.opened;
  t.stop.abort(new Error("Stop"));
  await t.carrying;
  assertEquals((await hear(t.caller)).end, "ConnectionReset");
  const error = await assertRejects(() => read(server), ChannelError);
  assertEquals([error.code, t.reports], ["aborted", []]);
});

test("Caller: a caller that breaks while it waits needs no session", async () => {
  await using t = await carried(NEVER);
  resettable(t.caller).reset();
  await t.carrying;
  const [report] = t.reports;
  const { message } = report!;
  assert(message.startsWith("The local caller broke the connection"), message);
});
