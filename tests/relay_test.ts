/** What is carried between a channel and a plain connection. */

import { assertEquals, assertRejects } from "@std/assert";
import { forward } from "../handlers/forward.ts";
import { type Channel, ChannelError } from "../lib/mod.ts";
import { type PlainFailure, relay } from "../tunnel/relay.ts";
import { type Resettable, resettable } from "../tunnel/resettable.ts";
import { channels } from "./channels.ts";
import { duplex } from "./duplex.ts";
import { ENGINES } from "./engines.ts";
import { pipe, settled } from "./pipe.ts";
import {
  connectedPair,
  exchange,
  exchanges,
  flood,
  hear,
  heardEnd,
} from "./plain_peers.ts";
import { freePort } from "./programs.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const test = (name: string, fn: () => Promise<void>) =>
  testUnless(lacksPermissions("net"), name, fn);

/** Stops nothing. */
const FOREVER = new AbortController().signal;

const CALLER = { name: "The caller", failure: "aborted" } as const;

/** A plain end that does what a test tells it. */
class FakePlain implements Resettable {
  /** What has become of it. */
  readonly log: string[] = [];
  readonly #reading = Promise.withResolvers<null>();
  readonly writing = Promise.withResolvers<void>();

  /** Its peer says no more. */
  end(): void {
    this.#reading.resolve(null);
  }

  /** Its peer breaks. */
  fail(): void {
    this.#reading.reject(new Error("It broke"));
  }

  read(): Promise<number | null> {
    return this.#reading.promise;
  }

  /** Never takes anything. */
  write(): Promise<number> {
    this.writing.resolve();
    return new Promise(() => {});
  }

  closeWrite(): Promise<void> {
    this.log.push("closeWrite");
    return Promise.resolve();
  }

  close(): void {
    this.log.push("close");
  }

  reset(): void {
    this.log.push("reset");
  }
}

interface Ends extends AsyncDisposable {
  channel: Channel;
  peer: Channel;
  plain: FakePlain;
  relayed: Promise<void>;
  stop: AbortController;
}

/** A relay at work. */
async function relaying(
  failure: PlainFailure = "aborted",
  pair = channels(pipe()),
): Promise<Ends> {
  const [channel, peer] = await pair;
  const plain = new FakePlain();
  const stop = new AbortController();
  const relayed = relay(
    { channel, plain, name: "The caller", failure },
    stop.signal,
  );
  relayed.catch(() => {});
  return {
    ...{ channel, peer, plain, relayed, stop },
    async [Symbol.asyncDispose]() {
      channel.abort();
      peer.abort();
      const { closed } = channel;
      await Promise.allSettled([relayed, closed, peer.closed]);
    },
  };
}

Deno.test("relay: ends when both sides have, and the channel is closed", async () => {
  await using t = await relaying();
  let isOver = false;
  t.relayed.then(() => isOver = true);
  t.plain.end();
  await heardEnd(t.peer);
  assertEquals(t.plain.log, []);
  await settled();
  assertEquals(isOver, false);
  await t.peer.closeWrite();
  await t.relayed;
  await t.channel.closed;
  assertEquals(t.plain.log, ["closeWrite", "close"]);
});

for (const failure of ["aborted", "backend"] as const) {
  Deno.test(`relay: a plain end that breaks is told to the peer, as ${failure}`, async () => {
    await using t = await relaying(failure);
    t.plain.fail();
    const error = await assertRejects(() => t.relayed, ChannelError);
    assertEquals([error.code, error.isFromPeer], [failure, false]);
    assertEquals(error.message, "The caller broke the connection: It broke");
    assertEquals(t.plain.log, ["reset"]);
    const told = await assertRejects(
      () => t.peer.read(new Uint8Array(1)),
      ChannelError,
    );
    assertEquals([told.code, told.isFromPeer], [failure, true]);
  });
}

Deno.test("relay: a channel that is given up resets the plain end", async () => {
  await using t = await relaying();
  t.peer.abort();
  const error = await assertRejects(() => t.relayed, ChannelError);
  assertEquals([error.code, t.plain.log], ["aborted", ["reset"]]);
});

Deno.test("relay: a channel that is given up resets the plain end that has ended", async () => {
  await using t = await relaying();
  t.plain.end();
  await heardEnd(t.peer);
  t.peer.abort();
  await assertRejects(() => t.relayed, ChannelError);
  assertEquals(t.plain.log, ["reset"]);
});

Deno.test("relay: a signal breaks both", async () => {
  await using t = await relaying();
  t.stop.abort(new Error("Stop"));
  await assertRejects(() => t.relayed, Error, "Stop");
  assertEquals(t.plain.log, ["reset"]);
  await assertRejects(() => t.channel.closed, Error, "Stop");
});

Deno.test("relay: a signal ends it though the channel has closed", async () => {
  await using t = await relaying();
  await t.peer.write(new Uint8Array(1));
  await t.peer.closeWrite();
  t.plain.end();
  await heardEnd(t.peer);
  await Promise.all([t.channel.closed, t.peer.closed, t.plain.writing.promise]);
  t.stop.abort(new Error("Stop"));
  await assertRejects(() => t.relayed, Error, "Stop");
  assertEquals(t.plain.log, ["reset"]);
});

Deno.test("relay: a plain end that takes nothing holds the peer back", async () => {
  await using t = await relaying("aborted", channels());
  await flood(t.peer);
  await settled();
  // What is held: frames received, and frames sent.
  assertEquals(t.peer.bytesSent < 2_000_000, true);
  assertEquals(t.channel.bytesReceived <= 65_536, true);
});

Deno.test("relay: a peer that takes nothing holds the plain end back", async () => {
  // Its calls are over at once: none goes on when nobody waits for it.
  const engine = ENGINES["node:crypto"]!;
  const [channel, peer] = await channels(duplex(), { engine });
  let read = 0;
  const plain = new FakePlain();
  plain.read = (p: Uint8Array = new Uint8Array(0)) =>
    Promise.resolve((read += p.length, p.length));
  const stop = new AbortController();
  const relayed = relay({ channel, plain, ...CALLER }, stop.signal);
  let before: number;
  do {
    before = read;
    await settled();
  } while (before < read);
  assertEquals(read < 2_000_000, true);
  stop.abort(new Error("Stop"));
  await assertRejects(() => relayed, Error, "Stop");
  peer.abort();
  await Promise.allSettled([channel.closed, peer.closed]);
});

// With the runtime's internals, and without.
for (const internals of [undefined, null]) {
  const name = internals === null ? "Deno.Conn alone" : "internals";
  test(`relay: every byte and a clean end, by ${name}`, async () => {
    for (const one of exchanges([0, 1, 5_000_000])) {
      const [channel, peer] = await channels(pipe());
      const [caller, near] = await connectedPair();
      const [backend, far] = await connectedPair();
      const relayed = Promise.all([
        relay(
          { channel, plain: resettable(near, internals), ...CALLER },
          FOREVER,
        ),
        relay(
          { channel: peer, plain: resettable(far, internals), ...CALLER },
          FOREVER,
        ),
      ]);
      await Promise.all([exchange({ caller, backend }, one), relayed]);
      caller.close();
      backend.close();
    }
  });
}

test("forward: a channel that ends while the backend is dialled", async () => {
  const [channel, peer] = await channels(pipe());
  const hostname = "127.0.0.1";
  using full = Deno.listen({ port: 0, hostname, tcpBacklog: 1 });
  const { port } = full.addr;
  // With two in its queue, a third gets no answer.
  using _one = await Deno.connect({ port });
  using _two = await Deno.connect({ port });
  const handled = forward({ host: hostname, port })(channel, FOREVER);
  channel.abort(new Error("Gone"));
  await assertRejects(() => handled, Error, "Gone");
  peer.abort();
});

test("forward: a backend that cannot be reached is told to the client", async () => {
  const [channel, peer] = await channels(pipe());
  const backend = { host: "127.0.0.1", port: freePort() };
  const error = await assertRejects(
    () => forward(backend)(channel, FOREVER),
    ChannelError,
    `Cannot reach 127.0.0.1:${backend.port}: connection refused`,
  );
  assertEquals([error.code, error.isFromPeer], ["backend", false]);
  const told = await assertRejects(() => heardEnd(peer), ChannelError);
  assertEquals([told.code, told.isFromPeer], ["backend", true]);
});

test("forward: a backend that breaks its connection is told to the client", async () => {
  const hostname = "127.0.0.1";
  using listener = Deno.listen({ port: 0, hostname });
  const [channel, peer] = await channels(pipe());
  const { port } = listener.addr;
  const handled = forward({ host: hostname, port })(channel, FOREVER);
  const failed = assertRejects(() => handled, ChannelError);
  resettable(await listener.accept()).reset();
  const error = await failed;
  assertEquals([error.code, error.isFromPeer], ["backend", false]);
  const told = await assertRejects(() => heardEnd(peer), ChannelError);
  assertEquals([told.code, told.isFromPeer], ["backend", true]);
});

test("forward: a server that stops resets the backend", async () => {
  const hostname = "127.0.0.1";
  using listener = Deno.listen({ port: 0, hostname });
  const [channel, peer] = await channels(pipe());
  const stop = new AbortController();
  const { port } = listener.addr;
  const handled = forward({ host: hostname, port })(channel, stop.signal);
  const backend = await listener.accept();
  await backend.closeWrite();
  await heardEnd(peer);
  // The signal alone: the channel may have closed before.
  stop.abort(new Error("Stop"));
  await assertRejects(() => handled, Error, "Stop");
  assertEquals((await hear(backend)).end, "ConnectionReset");
  backend.close();
});
