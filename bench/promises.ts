/**
 * How many promises the work takes: the same number on every machine. A hook of
 * V8's, which the runtime passes on, counts them.
 */

import { forward } from "../handlers/forward.ts";
import { connect, listen } from "../lib/deno.ts";
import { acceptChannel, connectChannel, type Engine } from "../lib/mod.ts";
import { MAX_BODY_LENGTH } from "../lib/lock/sender.ts";
import { Caller } from "../tunnel/caller.ts";
import { listenPlain } from "../tunnel/plain.ts";
import { Reserve } from "../tunnel/reserve.ts";
import { Backend, dial } from "./calls.ts";
import { receive } from "./channels.ts";
import { median } from "./measure.ts";

interface Core {
  setPromiseHooks(...hooks: (() => void)[]): void;
}

/** How often something is counted; the first times warm up. */
const TIMES = 30;

const HOST = "127.0.0.1";
const KEY = `default:${"0f".repeat(32)}`;
const nothing = () => {};
let count = 0;

/** Counts from here on; false if this runtime has no such hook. */
export function canCount(): boolean {
  const { internal } = Deno as unknown as { internal?: symbol };
  const { core } = (Deno as unknown as Record<symbol, { core?: Core }>)[
    internal!
  ] ?? {};
  core?.setPromiseHooks?.(() => count++, nothing, nothing, nothing);
  return core?.setPromiseHooks !== undefined;
}

/** The median of how many promises a piece of work takes. */
async function promisesOf(work: () => Promise<unknown>): Promise<number> {
  const counts: number[] = [];
  for (let i = 0; i < TIMES; i++) {
    count = 0;
    await work();
    counts.push(count);
    // What is done behind the work is not the next one's.
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  if (Deno.args.includes("-v")) console.log(counts.join(" "));
  return median(counts.slice(TIMES / 2));
}

/**
 * 64 bytes there and back through a tunnel, all four sides of it: what the caller
 * and the backend take themselves is not counted.
 */
export async function ofRoundTrip(
  pair: { cert: string; key: string },
  engine?: Engine,
): Promise<number> {
  const backend = new Backend();
  const sealing = engine && { engine };
  const stop = new AbortController();
  const { signal } = stop;
  const server = listen({ port: 0, ...pair, psk: KEY, ...sealing });
  const work: Promise<unknown>[] = [];
  const serving = (async () => {
    const handle = forward({ host: HOST, port: backend.port });
    for await (const channel of server) {
      work.push(handle(channel, signal), channel.closed);
    }
  })();
  const { port } = server.addr;
  const common = { port, caCerts: [pair.cert], psk: KEY, ...sealing };
  const sessions = new Reserve({
    dial: async (signal) => {
      const channel = await connect({ ...common, standby: true, signal });
      work.push(channel.closed);
      return channel;
    },
    report: nothing,
    max: 1,
  });
  const entrance = await listenPlain({ host: HOST, port: 0 });
  const accepting = (async () => {
    for (let plain; (plain = await entrance.accept());) {
      work.push(
        new Caller(plain, { sessions, report: nothing, signal }).carry(),
      );
    }
  })();
  const { address } = entrance;
  const through = await roundTrips("port" in address ? address.port : 0);
  const direct = await roundTrips(backend.port);
  sessions.close();
  backend.close();
  await entrance.close();
  await Promise.all([accepting, server.shutdown(), serving]);
  await Promise.allSettled(work);
  stop.abort();
  return through - direct;
}

async function roundTrips(port: number): Promise<number> {
  using conn = await dial(port);
  const [sent, received] = [new Uint8Array(64), new Uint8Array(64)];
  return await promisesOf(async () => {
    await conn.write(sent);
    await receive(conn, received);
  });
}

/** A frame of full length over TCP, from `write` to the last `read`. */
export async function ofFullFrame(engine?: Engine): Promise<number> {
  const [near, far] = await tcp();
  const options = { psk: KEY, ...(engine && { engine }) };
  const [client, server] = await Promise.all([
    connectChannel(near, options),
    acceptChannel(far, options),
  ]);
  const figure = await promisesOf(frames(client, server));
  client.abort();
  server.abort();
  await Promise.allSettled([client.closed, server.closed]);
  return figure;
}

/** The same over bare TCP. */
export async function ofBareFrame(): Promise<number> {
  const [near, far] = await tcp();
  const figure = await promisesOf(frames(near, far));
  near.close();
  far.close();
  return figure;
}

function frames(
  from: { write(p: Uint8Array): Promise<number> },
  to: Parameters<typeof receive>[0],
): () => Promise<unknown> {
  const sent = new Uint8Array(MAX_BODY_LENGTH);
  const received = new Uint8Array(MAX_BODY_LENGTH);
  return () => Promise.all([from.write(sent), receive(to, received)]);
}

async function tcp(): Promise<[Deno.TcpConn, Deno.TcpConn]> {
  const listener = Deno.listen({ hostname: HOST, port: 0 });
  const accepting = listener.accept();
  const near = await Deno.connect({ hostname: HOST, port: listener.addr.port });
  const far = await accepting;
  listener.close();
  near.setNoDelay(true);
  far.setNoDelay(true);
  return [near, far];
}

if (import.meta.main) {
  const { makePair } = await import("../tests/pair.ts");
  const { openssl } = await import("../lib/openssl.ts");
  const { cert, key } = await makePair();
  if (!canCount()) throw new Error("This runtime does not count promises");
  console.log("bare", await ofBareFrame());
  for (const engine of [undefined, openssl()]) {
    const name = engine?.name ?? "WebCrypto";
    console.log(name, await ofRoundTrip({ cert, key }, engine));
    console.log(name, await ofFullFrame(engine));
  }
  Deno.exit(0);
}
