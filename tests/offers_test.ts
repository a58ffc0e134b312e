import { assert, assertEquals, assertRejects } from "@std/assert";
import { listen, type ListenOptions } from "../lib/deno.ts";
import {
  acceptChannel,
  type Channel,
  ChannelError,
  type ClientOptions,
  connectChannel,
} from "../lib/mod.ts";
import { shakeHands } from "../lib/lock/channel.ts";
import { Offers } from "../lib/offers.ts";
import { assertFails, bytesOf } from "./channels.ts";
import { FakeClock } from "./clock.ts";
import { KEY } from "./duplex.ts";
import { pipe, settled } from "./pipe.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const psk = ["alice", "bob", "carol@db"].map((name) => `${name}:${KEY}`)
  .join("\n");

const test = (name: string, fn: () => Promise<void>) =>
  testUnless(lacksPermissions("net"), `offers: ${name}`, fn);

/** A listener that takes what alice offers as `db`, and its clients. */
function offering(options: Partial<ListenOptions> = {}) {
  const listener = listen({
    port: 0,
    tls: false,
    psk,
    hasService: (service) => service === undefined,
    takesOffer: (identity) => identity === "alice@db",
    ...options,
  });
  const dial = async (identity: string, options: Partial<ClientOptions> = {}) =>
    await connectChannel(
      await Deno.connect({ ...listener.addr, transport: "tcp" }),
      { psk, identity, ...options },
    );
  const offer = (identity = "alice@db") => dial(identity, { offer: true });
  return { listener, dial, offer };
}

/** Says hello from the listener's side, and serves it from the client's. */
async function assertTalks(caller: Channel, server: Channel): Promise<void> {
  const serving = server.readable.pipeTo(server.writable);
  const answer = bytesOf(caller.readable);
  await caller.write(new TextEncoder().encode("hello"));
  await caller.closeWrite();
  assertEquals(new TextDecoder().decode(await answer), "hello");
  await Promise.all([serving, caller.closed, server.closed]);
}

test("a channel that is offered is opened by whoever calls", async () => {
  const { listener, offer } = offering();
  const offered = await offer();
  const caller = await listener.open("alice@db");
  assertEquals(caller.identity, "alice@db");
  await offered.opened;
  await assertTalks(caller, offered);
  await listener.shutdown();
});

test("who calls before there is an offer waits for it", async () => {
  const { listener, offer } = offering();
  const opening = listener.open("alice@db");
  const offered = await offer();
  await assertTalks(await opening, offered);
  await listener.shutdown();
});

test("of several the one that has been idle for longest is taken", async () => {
  const { listener, offer } = offering();
  const offered = [await offer(), await offer(), await offer()];
  for (const channel of offered) await channel.confirmed;
  for (const channel of offered) {
    const caller = await listener.open("alice@db", { standby: true });
    await caller.open();
    await channel.opened;
    await assertTalks(caller, channel);
  }
  await listener.shutdown();
});

test("only the identity that may offer can, and only that is called", async () => {
  const { listener, dial, offer } = offering();
  for (const identity of ["alice", "bob", "bob@db", "alice@web", "carol@db"]) {
    const channel = await offer(identity);
    const error = await assertRejects(() => channel.opened, ChannelError);
    assertEquals([error.code, error.isFromPeer], ["service", true], identity);
  }
  // Nor does it make the service one that can be called.
  const calling = await dial("alice@db");
  await assertFails(calling.closed, "service");
  const wait = new AbortController();
  const opening = listener.open("bob@db", { signal: wait.signal });
  wait.abort(new RangeError("enough"));
  await assertRejects(() => opening, RangeError);
  await listener.shutdown();
});

test("one that dies while it is idle is not taken", async () => {
  const { listener, offer } = offering();
  const [dead, alive] = [await offer(), await offer()];
  await Promise.all([dead.confirmed, alive.confirmed]);
  dead.abort();
  await assertFails(dead.closed, "aborted");
  // The listener has heard of it before it answers this.
  await alive.probe();
  await assertTalks(await listener.open("alice@db"), alive);
  await listener.shutdown();
});

test("one whose key is revoked goes, one that waits at a shutdown is told so", async () => {
  const { listener, offer } = offering();
  const first = await offer();
  await first.confirmed;
  await listener.reload({ psk: `alice:${"11".repeat(32)}` });
  await assertFails(first.closed, "revoked");
  await listener.reload({ psk });
  const second = await offer();
  await second.confirmed;
  const opening = listener.open("alice@db", { standby: true });
  assertEquals((await opening).identity, "alice@db");
  const waiting = listener.open("alice@db");
  const down = listener.shutdown();
  await assertRejects(() => waiting, Deno.errors.BadResource);
  await assertFails(second.closed, "stopping");
  await down;
  await assertRejects(() => listener.open("alice@db"), Deno.errors.BadResource);
});

test("who offers is told to whoever listens, before anybody calls", async () => {
  const told: Channel[] = [];
  const { listener, offer } = offering({
    onOffer: (channel) => told.push(channel),
  });
  const opening = listener.open("alice@db");
  const offered = await offer();
  const caller = await opening;
  assertEquals(told, [caller]);
  const refused = await offer("bob");
  await assertFails(refused.closed, "service");
  assertEquals(told.length, 1);
  await assertTalks(caller, offered);
  await listener.shutdown();
});

test("one that was given up just now is not given to who calls", async () => {
  let isFirst = true;
  const { listener, offer } = offering({
    onOffer: (channel) => {
      if (isFirst) channel.abort(new ChannelError("limit", "No room"));
      isFirst = false;
    },
  });
  const opening = listener.open("alice@db");
  const first = await offer();
  await assertFails(first.closed, "limit");
  const second = await offer();
  await assertTalks(await opening, second);
  await listener.shutdown();
});

test("acceptChannel wants none", async () => {
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const refusing = assertFails(
    listener.accept().then((conn) => acceptChannel(conn, { psk })),
    "service",
  );
  const client = await connectChannel(
    await Deno.connect({ ...listener.addr, transport: "tcp" }),
    { psk, identity: "alice", offer: true },
  );
  await assertFails(client.opened, "service");
  await refusing;
  listener.close();
});

test("thousands of them are bounded like all channels", async () => {
  const { listener, offer } = offering({ maxConnections: 5 });
  const offered: Channel[] = [];
  for (let i = 0; i < 20; i++) {
    offered.push(await offer());
    await offered.at(-1)!.confirmed.catch(() => {});
  }
  for (const channel of offered.slice(0, 10)) {
    await assertFails(channel.closed, "limit");
  }
  await assertTalks(
    await listener.open("alice@db"),
    await Promise.any(
      offered.slice(10).map((channel) => channel.opened.then(() => channel)),
    ),
  );
  const over = Promise.allSettled(offered.map(({ closed }) => closed));
  await listener.shutdown();
  await over;
});

Deno.test("Offers: who gives up waiting takes nothing", async () => {
  const offers = new Offers();
  const stop = new AbortController();
  const taking = offers.take("alice@db", stop.signal);
  stop.abort(new RangeError("enough"));
  await assertRejects(() => taking, RangeError);
  await assertRejects(() => offers.take("alice@db", stop.signal), RangeError);
  const channel = idle();
  const next = offers.take("alice@db");
  offers.add(channel);
  assertEquals(await next, channel);
});

Deno.test("Offers: who has given up takes nothing, though it has not been told yet", async () => {
  const offers = new Offers();
  const channel = idle();
  const wait = new AbortController();
  const given = assertRejects(
    () => offers.take("alice@db", wait.signal),
    RangeError,
  );
  const next = offers.take("alice@db");
  wait.abort(new RangeError("enough"));
  offers.add(channel);
  await given;
  assertEquals(await next, channel);
});

/** A channel that waits, as far as offers know one. */
function idle(): Channel {
  const opened = new Promise<void>(() => {});
  return { identity: "alice@db", opened } as Channel;
}

/** One in memory that is offered. Its peer never closes. */
async function offered(): Promise<Channel> {
  const [near, far] = pipe();
  far.close = () => {};
  const [channel] = await Promise.all([
    shakeHands(near, "server", { psk, clock: new FakeClock() }),
    connectChannel(far, {
      ...{ psk, identity: "alice@db", offer: true },
      // Its clock is the runtime's.
      idleTimeout: 0,
    }),
  ]);
  await channel.offered;
  return channel;
}

Deno.test("Offers: one that is given up is not given, though its peer has not closed", async () => {
  const offers = new Offers();
  const [first, second] = [await offered(), await offered()];
  for (const channel of [first, second]) offers.add(channel);
  first.abort();
  await settled();
  assert(await offers.take("alice@db") === second);
});

Deno.test("Offers: what comes in one turn is given once each, in order", async () => {
  const offers = new Offers();
  const channels = [idle(), idle(), idle()];
  const waiting = [offers.take("alice@db"), offers.take("alice@db")];
  for (const channel of channels) offers.add(channel);
  waiting.push(offers.take("alice@db"));
  assertEquals(await Promise.all(waiting), channels);
});

Deno.test("Offers: a signal that lives on keeps nothing of who has waited", async () => {
  const offers = new Offers();
  const { signal } = new AbortController();
  const listeners = new Set<unknown>();
  signal.addEventListener = (_: string, listener: unknown) => {
    listeners.add(listener);
  };
  signal.removeEventListener = (_: string, listener: unknown) => {
    listeners.delete(listener);
  };
  const taking = offers.take("alice@db", signal);
  assertEquals(listeners.size, 1);
  offers.add(idle());
  await taking;
  assertEquals(listeners.size, 0);
});
