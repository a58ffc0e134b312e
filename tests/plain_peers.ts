/** The two peers of a tunnel, on plain sockets: what they say and hear. */

import { assertEquals } from "@std/assert";
import { createHash } from "node:crypto";
import type { Transport } from "../lib/mod.ts";
import { type Address, parseAddress } from "../tunnel/address.ts";
import { outputOfSync } from "./limit.ts";

/** Of a length that nothing else has: what is lost changes all that follows. */
const BLOCK = crypto.getRandomValues(new Uint8Array(65_521));

/** How much a reader asks for at a time, in bytes. */
const READ_LENGTH = 131_072;

/** How a reader reads: at once, or a little whenever the writer has to wait. */
export class Pace {
  #permit = Promise.withResolvers<void>();
  #isFree: boolean;

  constructor(speed: "fast" | "slow") {
    this.#isFree = speed === "fast";
    if (this.#isFree) this.#permit.resolve();
  }

  /** Waits until the reader may read once. */
  async mayRead(): Promise<void> {
    await this.#permit.promise;
    if (!this.#isFree) this.#permit = Promise.withResolvers();
  }

  /** The writer waits. */
  isWaiting(): void {
    this.#permit.resolve();
  }

  /** The writer has said all. */
  isDone(): void {
    this.#isFree = true;
    this.#permit.resolve();
  }
}

/** Whether something is over before everything else that is ready has happened. */
async function isOver(work: Promise<unknown>): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const turn = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false));
  });
  try {
    return await Promise.race([work.then(() => true), turn]);
  } finally {
    clearTimeout(timer);
  }
}

/** Writes so many bytes. `onWait` is called while it has to wait. */
async function write(
  to: Pick<Transport, "write">,
  size: number,
  onWait: () => void,
): Promise<void> {
  for (let at = 0; at < size;) {
    const start = at % BLOCK.length;
    const writing = to.write(BLOCK.subarray(start, start + size - at));
    while (!await isOver(writing)) onWait();
    at += await writing;
  }
}

/** Says so many bytes, and ends its direction. */
export async function speak(
  to: Pick<Transport, "write" | "closeWrite">,
  size: number,
  pace = new Pace("fast"),
): Promise<void> {
  await write(to, size, () => pace.isWaiting());
  await to.closeWrite();
  pace.isDone();
}

/** For so many turns in a row a writer has to wait before it counts as blocked. */
const BLOCKED_TURNS = 50;

/** Writes without an end, and resolves once nobody takes any more. */
export async function flood(to: Pick<Transport, "write">): Promise<void> {
  await new Promise<void>((resolve) => {
    let turns = 0;
    const counted = {
      write: (p: Uint8Array) => (turns = 0, to.write(p)),
    };
    // How it ends is for the reader to say.
    write(counted, Infinity, () => {
      if (++turns === BLOCKED_TURNS) resolve();
    }).catch(() => {});
  });
}

/** What a peer has heard: how much, its hash, and how it ended. */
export interface Heard {
  size: number;
  hash: string;
  end: string;
}

/** How a stream ends that its writer has ended. */
const CLEAN_END = "end";

/** Reads to the end, or until the connection breaks. */
export async function hear(
  from: Pick<Transport, "read">,
  pace = new Pace("fast"),
): Promise<Heard> {
  const buffer = new Uint8Array(READ_LENGTH);
  const hash = createHash("sha256");
  let size = 0;
  const heard = (end: string) => ({ size, hash: hash.digest("hex"), end });
  try {
    while (true) {
      await pace.mayRead();
      const count = await from.read(buffer);
      if (count === null) return heard(CLEAN_END);
      hash.update(buffer.subarray(0, count));
      size += count;
    }
  } catch (error) {
    return heard((error as Error).name);
  }
}

const expected = new Map<number, Heard>();

/** What a peer hears of one that has said so much. */
export function whole(size: number): Heard {
  let heard = expected.get(size);
  if (!heard) {
    const hash = createHash("sha256");
    for (let left = size; left > 0; left -= BLOCK.length) {
      hash.update(BLOCK.subarray(0, left));
    }
    heard = { size, hash: hash.digest("hex"), end: CLEAN_END };
    expected.set(size, heard);
  }
  return heard;
}

/** Waits for the peer's end, before which it must say nothing. */
export async function heardEnd(from: Pick<Transport, "read">): Promise<void> {
  if (await from.read(new Uint8Array(1)) === null) return;
  throw new Error("The peer has not ended its direction");
}

/** The two ends of a tunnel. */
export type End = "caller" | "backend";
export const ENDS: End[] = ["caller", "backend"];
export const other = (end: End): End => end === "caller" ? "backend" : "caller";

/** One direction says much, and either end is the first to say that it ends. */
export interface Exchange {
  size: number;
  speed: "fast" | "slow";
  says: End;
  endsFirst: End;
}

/** All there are with these sizes. */
export function* exchanges(sizes: number[]): Generator<Exchange> {
  for (const size of sizes) {
    for (const speed of ["fast", "slow"] as const) {
      for (const says of ENDS) {
        for (const endsFirst of ENDS) yield { size, speed, says, endsFirst };
      }
    }
  }
}

/** Every byte must come, and a clean end on both sides. */
export async function exchange(
  ends: Record<End, Transport>,
  one: Exchange,
): Promise<void> {
  const { size, speed, says, endsFirst } = one;
  const [speaker, hearer] = [ends[says], ends[other(says)]];
  const fallSilent = async () => {
    await hearer.closeWrite();
    await heardEnd(speaker);
  };
  if (endsFirst !== says) await fallSilent();
  const pace = new Pace(speed);
  const [heard] = await Promise.all([
    hear(hearer, pace),
    speak(speaker, size, pace),
  ]);
  assertEquals({ ...one, ...heard }, { ...one, ...whole(size) });
  if (endsFirst === says) await fallSilent();
}

/** The two ends of a TCP connection. */
export async function connectedPair(): Promise<[Deno.TcpConn, Deno.TcpConn]> {
  const hostname = "127.0.0.1";
  using listener = Deno.listen({ port: 0, hostname });
  const { port } = listener.addr;
  return await Promise.all([
    Deno.connect({ hostname, port }),
    listener.accept(),
  ]);
}

/** Connects to an address. */
export async function connectTo(address: Address): Promise<Deno.Conn> {
  if ("path" in address) {
    return await Deno.connect({ transport: "unix", path: address.path });
  }
  const { host: hostname, port } = address;
  return await Deno.connect({ hostname, port });
}

/** Listens at an address as a tunnel's flags have it. */
export function listenAt(place: string): Deno.Listener {
  const address = parseAddress(place, "127.0.0.1")!;
  return "path" in address
    ? Deno.listen({ transport: "unix", path: address.path })
    : Deno.listen({ hostname: address.host, port: address.port });
}

/** Says a text and its end; the whole answer. */
export async function ask(address: Address, text: string): Promise<string> {
  const conn = await connectTo(address);
  try {
    await conn.write(new TextEncoder().encode(text));
    await conn.closeWrite();
    const decoder = new TextDecoder();
    const buffer = new Uint8Array(READ_LENGTH);
    let answer = "";
    for (let count; (count = await conn.read(buffer)) !== null;) {
      answer += decoder.decode(buffer.subarray(0, count), { stream: true });
    }
    return answer;
  } finally {
    conn.close();
  }
}

/** A service that greets and repeats, until it is disposed of. */
export function greeter(place: string) {
  const listener = listenAt(place);
  const serving = (async () => {
    const conns: Promise<void>[] = [];
    for await (const conn of listener) {
      conns.push(greet(conn).catch(() => {}).finally(() => conn.close()));
    }
    await Promise.all(conns);
  })();
  return {
    addr: listener.addr,
    async [Symbol.asyncDispose]() {
      listener.close();
      await serving;
    },
  };
}

async function greet(conn: Deno.Conn): Promise<void> {
  const buffer = new Uint8Array(READ_LENGTH);
  await conn.write(new TextEncoder().encode("hello "));
  for (let count; (count = await conn.read(buffer)) !== null;) {
    let rest = buffer.subarray(0, count);
    while (rest.length > 0) rest = rest.subarray(await conn.write(rest));
  }
  await conn.closeWrite();
}

/**
 * Connects so many times from another process, and resets each connection at
 * once. Nothing here runs meanwhile, so nobody has accepted any of them by then.
 */
export function callAndReset(port: number, count: number): void {
  const program = `
    import { connect } from "node:net";
    for (let i = 0; i < ${count}; i++) {
      const socket = connect(${port}, "127.0.0.1");
      await new Promise((resolve) => socket.once("connect", resolve));
      socket.resetAndDestroy();
    }
  `;
  const deno = [Deno.execPath(), "eval", "--no-config"];
  if (!outputOfSync(...deno, program).success) {
    throw new Error("The callers failed");
  }
}
