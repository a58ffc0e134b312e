/**
 * Someone inside TLS: a proxy with the server's own certificate, which changes
 * one thing in each session between a real client and a real server.
 *
 * As a program, `deno task tamper [openssl]`, it does so with each bit of each
 * frame; with the word, both sides seal by OpenSSL.
 *
 * @module
 */

import { FrameReader } from "../lib/lock/frame.ts";
import { connect, type ConnectOptions, listen } from "../lib/deno.ts";
import { openssl } from "../lib/openssl.ts";
import { type Channel, ChannelError } from "../lib/mod.ts";
import { writeAll } from "../lib/lock/transport.ts";
import { makeCerts, serverFlags, TestServer } from "./programs.ts";

/** How many sessions run at a time. */
const WORKERS = 16;

/** A frame that lacks a part is waited for so long, in seconds. */
const PATIENCE = 2;

/** What a session says, each answered before the next; then it ends. */
const TEXTS = ["a".repeat(250), "b".repeat(250)];
const REPLY = TEXTS.join("").toUpperCase();

const engine = import.meta.main && Deno.args[0] === "openssl"
  ? openssl()
  : undefined;

type Direction = "up" | "down";

/** What sessions are tampered with. */
const SCENES = {
  /**
   * A whole one. Up: the hello, a Noise message, a ping, the open, two of data and
   * the end; down: a Noise message, a pong, two of data and the end.
   */
  echo: { identity: "mallory", frames: { up: 7, down: 5 } },
  /**
   * One that the server gives up, for lack of the service. Down: a Noise message
   * and the bye.
   */
  bye: { identity: "mallory@nowhere", frames: { up: 0, down: 2 } },
  /**
   * One that is offered, and begun by a caller on the server's side. Up: the
   * hello, a Noise message, a ping, the offer, two of data and the end; down: a
   * Noise message, a pong, the open, two of data and the end.
   */
  offer: { identity: "mallory", frames: { up: 7, down: 6 } },
};

type Scene = keyof typeof SCENES;

/** What a manipulation may do when its frame, header included, has come. */
interface Wire {
  /** Passes bytes on. */
  send(bytes: Uint8Array): Promise<void>;
  /** Sends bytes back to whom they came from. */
  reflect(bytes: Uint8Array): Promise<void>;
  /** Passes the frame on after the next. */
  hold(): void;
  /** Closes both connections, with close_notify or without. */
  cut(cleanly: boolean): Promise<void>;
  /** The frame before, in this direction. */
  before: Uint8Array;
  /** The frame that another session had here. */
  another: Uint8Array;
}

/** One thing that is done to one frame. */
export interface Manipulation {
  kind: string;
  scene: Scene;
  direction: Direction;
  /** The number of its frame in that direction, from 0. */
  frame: number;
  act(frame: Uint8Array, wire: Wire): Promise<void> | void;
}

type Act = Manipulation["act"];

const KINDS: Record<string, Act> = {
  drop: () => {},
  repeat: async (frame, wire) => {
    await wire.send(frame);
    await wire.send(frame);
  },
  swap: (_, wire) => wire.hold(),
  reflect: (frame, wire) => wire.reflect(frame),
  "repeat the one before": (_, wire) => wire.send(wire.before),
  splice: (_, wire) => wire.send(wire.another),
  "insert another session's": async (frame, wire) => {
    await wire.send(wire.another);
    await wire.send(frame);
  },
  "an empty frame": (_, wire) => wire.send(new Uint8Array(2)),
  "one byte less": (frame, wire) => wire.send(resized(frame, -1)),
  "one byte more": (frame, wire) => wire.send(resized(frame, 1)),
  "a length too small": (frame, wire) => wire.send(relabelled(frame, -1)),
  "a length too large": (frame, wire) => wire.send(relabelled(frame, 1)),
  "the largest length": (frame, wire) => wire.send(relabelled(frame, 65_535)),
  "cut cleanly": (_, wire) => wire.cut(true),
  "cut roughly": (_, wire) => wire.cut(false),
};

/** All of one kind at each frame, then each bit and each length of each. */
export function* manipulations(
  recordings: Record<Scene, Recording>,
): Generator<Manipulation> {
  for (const scene of ["echo", "bye", "offer"] as const) {
    for (const direction of ["up", "down"] as const) {
      yield* manipulationsOf(scene, direction, recordings[scene]);
    }
  }
}

function* manipulationsOf(
  scene: Scene,
  direction: Direction,
  recording: Recording,
): Generator<Manipulation> {
  const count = SCENES[scene].frames[direction];
  for (let frame = 0; frame < count; frame++) {
    const { length } = recording[direction][frame]!;
    const at = { scene, direction, frame };
    for (const kind in KINDS) {
      // Nothing is before the first, and all hellos are the same.
      const isFirst = direction === "up" && frame === 0;
      if (kind === "repeat the one before" && frame === 0) continue;
      if (kind === "splice" && isFirst) continue;
      yield { kind, ...at, act: KINDS[kind]! };
    }
    if (scene !== "bye" && frame === count - 1) {
      yield { kind: "data after the end", ...at, act: dataAfterEnd };
    }
    for (let bit = 0; bit < 8 * length; bit++) {
      yield { kind: "flip a bit", ...at, act: flip(bit) };
    }
    for (let kept = 1; kept < length; kept++) {
      yield { kind: "truncate", ...at, act: truncate(kept) };
    }
  }
}

const dataAfterEnd: Act = async (frame, wire) => {
  await wire.send(frame);
  await wire.send(wire.before);
};

/** A slow session has another frame here, a pong perhaps: then a bit of that. */
function flip(bit: number): Act {
  return async (frame, wire) => {
    frame[(bit >> 3) % frame.length]! ^= 1 << (bit & 7);
    await wire.send(frame);
  };
}

function truncate(length: number): Act {
  return async (frame, wire) => {
    await wire.send(frame.subarray(0, length));
    await wire.cut(true);
  };
}

/** The frame with a body of another length, and that said. */
function resized(frame: Uint8Array, by: number): Uint8Array {
  const other = new Uint8Array(frame.length + by);
  other.set(frame.subarray(0, other.length));
  return relabelled(other, by);
}

/** The frame with another length said. */
function relabelled(frame: Uint8Array, by: number): Uint8Array {
  const other = frame.slice();
  const view = new DataView(other.buffer);
  view.setUint16(0, Math.min(view.getUint16(0) + by, 65_535));
  return other;
}

/** The frames of a session. */
export type Recording = Record<Direction, Uint8Array[]>;

/** The proxy, before a server. */
export class Proxy {
  readonly #listener: Deno.TlsListener;
  readonly #server: { port: number; cert: string };
  /** What passed before the last session that was left alone. */
  recording: Recording = { up: [], down: [] };

  constructor(server: { port: number; cert: string; key: string }) {
    this.#server = server;
    const { cert, key } = server;
    this.#listener = Deno.listenTls({
      hostname: "127.0.0.1",
      port: 0,
      cert,
      key,
    });
  }

  get port(): number {
    return (this.#listener.addr as Deno.NetAddr).port;
  }

  /** Carries the next connection, and does that to it. */
  async carry(manipulation?: Manipulation): Promise<void> {
    const client = await this.#listener.accept().catch(() => undefined);
    // It ran out of time before it connected.
    if (!client) return;
    const { port, cert } = this.#server;
    const server = await Deno.connectTls({ port, caCerts: [cert] });
    const seen: Recording = { up: [], down: [] };
    await Promise.all([
      this.#pump(client, server, "up", seen, manipulation),
      this.#pump(server, client, "down", seen, manipulation),
    ]);
    for (const conn of [client, server]) close(conn);
    if (!manipulation) this.recording = seen;
  }

  async #pump(
    from: Deno.TlsConn,
    to: Deno.TlsConn,
    direction: Direction,
    seen: Recording,
    manipulation: Manipulation | undefined,
  ): Promise<void> {
    const frames = new FrameReader(from);
    const passed = seen[direction];
    let held: Uint8Array | undefined;
    const send = (bytes: Uint8Array) => writeAll(to, bytes);
    const another = this.recording[direction];
    try {
      for (let body; (body = await frames.next(0)) !== null;) {
        const frame = framed(body);
        const number = passed.push(frame.slice()) - 1;
        const isIt = manipulation?.direction === direction &&
          manipulation.frame === number;
        if (isIt) {
          await manipulation.act(frame, {
            send,
            reflect: (bytes) => writeAll(from, bytes),
            hold: () => held = frame,
            cut: async (cleanly) => {
              if (cleanly) {
                await Promise.all([from.closeWrite(), to.closeWrite()]);
              }
              close(from);
              close(to);
            },
            before: passed[number - 1] ?? new Uint8Array(0),
            another: another[number] ?? new Uint8Array(0),
          });
          continue;
        }
        await send(frame);
        if (held) await send(held);
        held = undefined;
      }
      await to.closeWrite();
    } catch {
      // Either side has closed: so does the other.
      close(from);
      close(to);
    }
  }

  /** Waits for nobody any more. Who has come is carried on. */
  close(): void {
    this.#listener.close();
  }
}

function framed(body: Uint8Array): Uint8Array {
  const frame = new Uint8Array(2 + body.length);
  new DataView(frame.buffer).setUint16(0, body.length);
  frame.set(body, 2);
  return frame;
}

function close(conn: Deno.TlsConn): void {
  try {
    conn.close();
  } catch {
    // It was.
  }
}

/** What a number of sessions came to. */
export interface Result {
  /** How many there were of each kind. */
  counts: Map<string, number>;
  /** What was wrong: nothing should be. */
  wrongs: string[];
  /** How many sessions were left alone meanwhile. */
  honest: number;
}

/** Runs a session for each manipulation, and honest ones beside them. */
export async function tamper(
  choose: (all: Iterable<Manipulation>) => Iterable<Manipulation>,
  progress: (count: number) => void = () => {},
): Promise<Result> {
  const dir = await makeCerts([
    "--identity",
    "mallory",
    "--identity",
    "honest",
  ]);
  const read = (file: string) => Deno.readTextFile(`${dir}/${file}`);
  const [cert, key, psk] = [
    await read("cert.pem"),
    await read("key.pem"),
    await read("psk.txt"),
  ];
  await using server = await TestServer.start([
    ...serverFlags(dir),
    ...(engine ? ["--openssl"] : []),
    ...["--handshake-timeout", String(PATIENCE)],
    ...["--idle-timeout", String(PATIENCE), "--log-format", "json"],
  ]);
  const target = { port: server.port, cert, key };
  const talk = (identity: string, port: number) =>
    session({ ...ofClients, caCerts: [cert], psk, identity, port });
  await using offers = new OfferServer(cert, key);
  const result: Result = { counts: new Map(), wrongs: [], honest: 0 };

  const recordings = {
    echo: await record("echo", target, talk),
    bye: await record("bye", target, talk),
    offer: await record("offer", offers.target, (_, port) => offers.talk(port)),
  };
  const queue = choose(manipulations(recordings))[Symbol.iterator]();
  let serverMayEnd = 1;
  let count = 0;
  const attack = async () => {
    for (let next; !(next = queue.next()).done;) {
      const { kind, scene, direction, frame } = next.value;
      const proxy = new Proxy(scene === "offer" ? offers.target : target);
      proxy.recording = recordings[scene];
      const carried = proxy.carry(next.value);
      const { reply, error } = scene === "offer"
        ? await offers.talk(proxy.port)
        : await talk(SCENES[scene].identity, proxy.port);
      proxy.close();
      await carried;
      const what = `${kind}, ${scene}, ${direction} ${frame}`;
      if (error === undefined) {
        if (!isAfterEnd(next.value)) result.wrongs.push(`${what}: accepted`);
      } else if (isServersBye(error)) {
        if (!isAfterBye(next.value)) result.wrongs.push(`${what}: believed`);
      } else if (!(error instanceof ChannelError)) {
        result.wrongs.push(`${what}: ${error}`);
      }
      if (!REPLY.startsWith(reply)) result.wrongs.push(`${what}: forged`);
      result.counts.set(kind, (result.counts.get(kind) ?? 0) + 1);
      if (scene === "echo" && mayBeWhole(next.value)) serverMayEnd++;
      progress(++count);
    }
  };
  let isOver = false;
  const honest = async () => {
    while (!isOver) {
      const { reply, error } = await talk("honest", server.port);
      if (reply !== REPLY || error !== undefined) {
        result.wrongs.push(`an honest session: ${error}`);
      }
      result.honest++;
    }
  };
  const talking = honest();
  await Promise.all(Array.from({ length: WORKERS }, attack));
  isOver = true;
  await talking;

  const ends = { mallory: 0, honest: 0 };
  for (const line of (await server.stop()).trim().split("\n")) {
    const { event, reason, identity } = JSON.parse(line);
    if (event !== "closed") continue;
    if (reason === "end") ends[identity as keyof typeof ends]++;
    else if (identity === "honest") result.wrongs.push(line);
  }
  if (ends.mallory > serverMayEnd) {
    const message = `the server took ${ends.mallory} sessions for whole`;
    result.wrongs.push(`${message}, of ${serverMayEnd} that could be`);
  }
  await Deno.remove(dir, { recursive: true });
  return result;
}

/**
 * Whether something is added behind the last word of a side. The other may have
 * said its own by then, and what comes behind both is no matter to either.
 */
function isAfterEnd({ kind, scene, direction, frame }: Manipulation): boolean {
  return scene !== "bye" && frame === SCENES[scene].frames[direction] - 1 &&
    (kind === "repeat" || kind === "data after the end");
}

/**
 * Whether the server may have said and heard all by then, so that only the client
 * can tell: at the server's end, behind either side's, or where the client has its
 * whole answer, and may have said its end, before something is added.
 */
function mayBeWhole(manipulation: Manipulation): boolean {
  const { kind, direction, frame } = manipulation;
  const end = SCENES.echo.frames.down - 1;
  return isAfterEnd(manipulation) || direction === "down" &&
      (frame === end || (kind === "repeat" && frame === end - 1));
}

/** Whether a session came to what the server has to say for want of a service. */
function isServersBye(error: unknown): boolean {
  return error instanceof ChannelError && error.isFromPeer &&
    error.code === "service";
}

/** Whether the whole bye has passed, and nothing before it was touched. */
function isAfterBye({ kind, scene, frame }: Manipulation): boolean {
  return scene === "bye" && frame === SCENES.bye.frames.down - 1 &&
    kind === "repeat";
}

/** The frames of a session that is left alone. */
async function record(
  scene: Scene,
  target: { port: number; cert: string; key: string },
  talk: (identity: string, port: number) => Promise<Outcome>,
): Promise<Recording> {
  const proxy = new Proxy(target);
  const { identity, frames } = SCENES[scene];
  const carried = proxy.carry();
  const { error } = await talk(identity, proxy.port);
  proxy.close();
  if (scene === "bye" ? !isServersBye(error) : error !== undefined) throw error;
  await carried;
  const { up, down } = proxy.recording;
  const isWhole = scene === "bye" || up.length === frames.up;
  if (isWhole && down.length === frames.down) return proxy.recording;
  throw new Error(`${up.length} frames up, ${down.length} down`);
}

/** How clients connect, and how long they wait. */
const ofClients = {
  ...(engine && { engine }),
  handshakeTimeout: 1000 * PATIENCE,
  idleTimeout: 1000 * PATIENCE / 2,
};

/** How a session went for whoever speaks first: what came back, and any failure. */
interface Outcome {
  reply: string;
  error?: unknown;
}

/** A session that a client begins. */
const session = (options: ConnectOptions) => speak(() => connect(options));

/** Says all texts, and hears the answers. */
async function speak(begin: () => Promise<Channel>): Promise<Outcome> {
  let reply = "";
  try {
    await using channel = await begin();
    for await (const text of answers(channel)) reply += text;
    await channel.closed;
    return { reply };
  } catch (error) {
    return { reply, error };
  }
}

/** How many may have been offered, and not be gone yet. */
const OFFERERS = 1000;

/** All of them are of the same length. */
const identityOf = (number: number) =>
  `${SCENES.offer.identity}@${String(number).padStart(3, "0")}`;

/** A server whose own callers speak first, over what clients offer. */
class OfferServer implements AsyncDisposable {
  readonly target: { port: number; cert: string; key: string };
  readonly #listener;
  readonly #psk = new Map<string, Uint8Array>();
  #count = 0;

  constructor(cert: string, key: string) {
    // Nobody is to get what another has offered.
    for (let i = 0; i < OFFERERS; i++) {
      const psk = crypto.getRandomValues(new Uint8Array(32));
      this.#psk.set(identityOf(i), psk);
    }
    this.#listener = listen({
      ...{ port: 0, cert, key, psk: this.#psk },
      ...(engine && { engine }),
      handshakeTimeout: 1000 * PATIENCE,
      idleTimeout: 1000 * PATIENCE,
      takesOffer: () => true,
      hasService: () => false,
    });
    this.target = { port: this.#listener.addr.port, cert, key };
  }

  /** A session that a client offers at a port: how it went for its caller. */
  async talk(port: number): Promise<Outcome> {
    const identity = identityOf(this.#count++ % OFFERERS);
    const stop = new AbortController();
    const { cert } = this.target;
    const answering = (async () => {
      let asked = "";
      try {
        await using channel = await connect({
          ...{ ...ofClients, port, caCerts: [cert], psk: this.#psk, identity },
          offer: true,
        });
        await channel.opened;
        const writer = channel.writable.getWriter();
        for await (const bytes of channel.readable) {
          const text = new TextDecoder().decode(bytes);
          asked += text;
          await writer.write(new TextEncoder().encode(text.toUpperCase()));
        }
        await writer.close();
        await channel.closed;
      } catch (error) {
        stop.abort(new ChannelError("cut", "The client has failed"));
        if (!(error instanceof ChannelError)) throw error;
      }
      if (TEXTS.join("").startsWith(asked)) return;
      throw new Error(`The client was asked for ${asked}`);
    })();
    const outcome = await speak(() =>
      this.#listener.open(identity, { signal: stop.signal })
    );
    await answering;
    return outcome;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#listener.shutdown();
  }
}

/** Says each text when the one before has been answered, and gives what comes. */
async function* answers(channel: Channel): AsyncGenerator<string> {
  const writer = channel.writable.getWriter();
  const reader = channel.readable.getReader();
  const decoder = new TextDecoder();
  for (const text of TEXTS) {
    await writer.write(new TextEncoder().encode(text));
    for (let missing = text.length; missing > 0;) {
      const { done, value } = await reader.read();
      if (done) throw new Error("It ended early");
      missing -= value.length;
      yield decoder.decode(value);
    }
  }
  // Of a stream that has failed already, the channel knows why.
  await writer.close().catch(() => channel.closed);
  for (let r; !(r = await reader.read()).done;) yield decoder.decode(r.value);
}

if (import.meta.main) {
  const encoder = new TextEncoder();
  const { counts, wrongs, honest } = await tamper((all) => all, (count) => {
    if (count % 500 === 0) {
      Deno.stderr.writeSync(encoder.encode(`${count} sessions\n`));
    }
  });
  let total = 0;
  for (const [kind, count] of counts) {
    console.log(`${String(count).padStart(6)}  ${kind}`);
    total += count;
  }
  console.log(
    `${total} manipulated sessions, ${wrongs.length} wrongs, ` +
      `beside ${honest} honest ones`,
  );
  for (const wrong of wrongs) console.error(`tamper: ${wrong}`);
  Deno.exit(wrongs.length === 0 ? 0 : 1);
}
