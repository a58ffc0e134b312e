/** What a local caller gets, whatever becomes of its session. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  acceptChannel,
  type Channel,
  ChannelError,
  connectChannel,
} from "../lib/mod.ts";
import { closeQuietly } from "../lib/lock/transport.ts";
import { carry, type Sessions } from "../tunnel/entrance.ts";
import { Unreachable } from "../tunnel/reserve.ts";
import { resettable } from "../tunnel/resettable.ts";
import { PSK } from "./duplex.ts";
import { pipe } from "./pipe.ts";
import { connectedPair, hear, heardEnd } from "./plain_peers.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const test = (name: string, fn: () => Promise<void>) =>
  testUnless(lacksPermissions("net"), name, fn);

/** A session in standby, and the server's end once its stream has begun. */
interface Standby {
  session: Channel;
  opened: Promise<Channel>;
  /** The server closes the connection. */
  cut(): void;
}

async function standby(): Promise<Standby> {
  const [near, far] = pipe();
  const opened = acceptChannel(far, { psk: PSK });
  opened.catch(() => {});
  const session = await connectChannel(near, { psk: PSK, standby: true });
  return { session, opened, cut: () => far.close() };
}

/** A caller that is being carried. */
interface Carried extends AsyncDisposable {
  caller: Deno.TcpConn;
  carrying: Promise<void>;
  stop: AbortController;
  reports: string[];
  /** How each session was asked for. */
  asked: { patience: number; isFresh: boolean }[];
}

/** Carries one, for whom there are these sessions. */
async function carried(
  ...standbys: (Standby | Promise<never>)[]
): Promise<Carried> {
  const [caller, near] = await connectedPair();
  const reports: string[] = [];
  const asked: Carried["asked"] = [];
  const sessions: Sessions = {
    take: async (patience, signal, isFresh = false) => {
      asked.push({ patience, isFresh });
      const next = standbys.shift()!;
      if ("session" in next) return next.session;
      const aborted = Promise.withResolvers<never>();
      signal.addEventListener("abort", () => aborted.reject(signal.reason));
      return await Promise.race([next, aborted.promise]);
    },
  };
  const stop = new AbortController();
  const report = (message: string) => reports.push(message);
  const carrying = carry(resettable(near), sessions, report, stop.signal);
  return {
    ...{ caller, carrying, stop, reports, asked },
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

test("carry: over the session that is ready", async () => {
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

test("carry: a session that has died is replaced by a new one", async () => {
  const [one, other] = [await standby(), await standby()];
  one.session.abort();
  await using t = await carried(one, other);
  await (await other.opened).write(HELLO);
  assertEquals(await read(t.caller), "hello");
  assertEquals(t.asked.map(({ isFresh }) => isFresh), [false, true]);
  assertEquals(t.reports, []);
});

test("carry: so is one that dies before either side has spoken", async () => {
  const [one, other] = [await standby(), await standby()];
  await using t = await carried(one, other);
  await one.opened;
  one.cut();
  await (await other.opened).write(HELLO);
  assertEquals(await read(t.caller), "hello");
  assertEquals([t.reports, t.asked.length], [[], 2]);
});

test("carry: a second one that dies resets the caller", async () => {
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

test("carry: nor is one replaced to which something was said", async () => {
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

test("carry: nor one that has answered", async () => {
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

test("carry: ten seconds are a caller's patience, for both sessions", async () => {
  const [one, other] = [await standby(), await standby()];
  one.session.abort();
  await using t = await carried(one, other);
  await other.opened;
  const [first, second] = t.asked.map(({ patience }) => patience);
  assert(first! <= 10_000 && second! <= first!, `${first} ${second}`);
});

test("carry: an unreachable server resets the caller, and is not reported", async () => {
  const error = new Unreachable("No session in time");
  const refused = Promise.reject(error);
  refused.catch(() => {});
  await using t = await carried(refused);
  assertEquals((await hear(t.caller)).end, "ConnectionReset");
  await t.carrying;
  assertEquals(t.reports, []);
});

test("carry: a signal reaches a caller that waits for a session", async () => {
  await using t = await carried(NEVER);
  t.stop.abort(new Error("Stop"));
  await t.carrying;
  assertEquals((await hear(t.caller)).end, "ConnectionReset");
  assertEquals(t.reports, []);
});

test("carry: a signal reaches a caller while neither side speaks", async () => {
  const one = await standby();
  await using t = await carried(one);
  const server = await one.opened;
  t.stop.abort(new Error("Stop"));
  await t.carrying;
  assertEquals((await hear(t.caller)).end, "ConnectionReset");
  const error = await assertRejects(() => read(server), ChannelError);
  assertEquals([error.code, t.reports], ["aborted", []]);
});

test("carry: a caller that breaks while it waits needs no session", async () => {
  await using t = await carried(NEVER);
  resettable(t.caller).reset();
  await t.carrying;
  const [report] = t.reports;
  assert(report!.startsWith("The local caller broke the connection"), report);
});
