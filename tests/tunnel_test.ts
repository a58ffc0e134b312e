/** Tunnels of the real programs, from end to end. */

import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { type Address, parseAddress } from "../tunnel/address.ts";
import { type Resettable, resettable } from "../tunnel/resettable.ts";
import {
  ask,
  connectTo,
  flood,
  greeter,
  hear,
  heardEnd,
  listenAt,
  Pace,
  speak,
  whole,
} from "./plain_peers.ts";
import {
  clientFlags,
  freePort,
  MAY_RUN,
  run,
  serverFlags,
  start,
  TestEntrance,
  TestServer,
  withCerts,
} from "./programs.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const test = (name: string, fn: (dir: string) => Promise<void>) =>
  testUnless(lacksPermissions(...MAY_RUN), name, withCerts(fn));

/** Where the two ends of a tunnel are, in a test's folder. */
type Kind = "TCP" | "Unix";
const place = (kind: Kind, dir: string, name: string) =>
  kind === "TCP" ? "127.0.0.1:0" : `unix:${dir}/${name}`;

type End = "caller" | "backend";
const ENDS: End[] = ["caller", "backend"];
const other = (end: End): End => end === "caller" ? "backend" : "caller";

/** A client, a server, and a backend that takes what comes. */
class Tunnel implements AsyncDisposable {
  private constructor(
    readonly client: TestEntrance,
    readonly server: TestServer,
    readonly backend: Deno.Listener,
    readonly front: Address,
  ) {}

  /**
   * @param flags Of both programs.
   * @param via Gives the port at which the client reaches the server's.
   */
  static async start(
    dir: string,
    kind: Kind,
    flags: string[] = [],
    via = (port: number) => port,
  ): Promise<Tunnel> {
    const backend = listenAt(place(kind, dir, "back"));
    const { addr } = backend;
    const to = "port" in addr ? `127.0.0.1:${addr.port}` : `unix:${dir}/back`;
    const server = await TestServer.start([
      ...serverFlags(dir),
      ...["--forward", to, ...flags],
    ]);
    const near = place(kind, dir, "front");
    const client = await TestEntrance.start(
      dir,
      via(server.port),
      near,
      flags,
    );
    const front = kind === "TCP" ? client.address : parseAddress(near)!;
    return new Tunnel(client, server, backend, front);
  }

  /** A new caller, and the backend's end of it. */
  async open(): Promise<Record<End, Deno.Conn>> {
    const [caller, backend] = await Promise.all([
      connectTo(this.front),
      this.backend.accept(),
    ]);
    return { caller, backend };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client[Symbol.asyncDispose]();
    await this.server[Symbol.asyncDispose]();
    this.backend.close();
  }
}

/** One direction says much, and either end is the first to say that it ends. */
interface Exchange {
  size: number;
  speed: "fast" | "slow";
  says: End;
  endsFirst: End;
}

const EXCHANGES: Exchange[] = [];
for (const size of [0, 1, 5_000_000, 100_000_000]) {
  for (const speed of ["fast", "slow"] as const) {
    for (const says of ENDS) {
      for (const endsFirst of ENDS) {
        EXCHANGES.push({ size, speed, says, endsFirst });
      }
    }
  }
}

async function exchange(
  ends: Record<End, Deno.Conn>,
  { size, speed, says, endsFirst }: Exchange,
): Promise<void> {
  const [speaker, hearer] = [ends[says], ends[other(says)]];
  const listen = async () => {
    await hearer.closeWrite();
    await heardEnd(speaker);
  };
  if (endsFirst !== says) await listen();
  const pace = new Pace(speed);
  const [heard] = await Promise.all([
    hear(hearer, pace),
    speak(speaker, size, pace),
  ]);
  assertEquals(heard, whole(size));
  if (endsFirst === says) await listen();
}

for (const kind of ["TCP", "Unix"] as const) {
  test(`${kind}: every byte and a clean end, whoever ends first`, async (dir) => {
    await using tunnel = await Tunnel.start(dir, kind);
    for (const one of EXCHANGES) {
      const ends = await tunnel.open();
      await exchange(ends, one).catch((cause) => {
        throw new Error(JSON.stringify(one), { cause });
      });
      for (const end of ENDS) ends[end].close();
    }
    assertEquals((await tunnel.client.stop()).code, 0);
    const closed = (await tunnel.server.stop()).match(/closed: .*/g) ?? [];
    assertEquals(closed.filter((line) => !line.endsWith("end")), []);
  });
}

/** What a connection between client and server goes through, to be cut. */
class Cable implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #conns: Deno.Conn[] = [];
  readonly #carrying: Promise<void>[] = [];

  constructor(port: number) {
    this.#carrying.push(this.#accept(port));
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  cut(): void {
    for (const conn of this.#conns.splice(0)) conn.close();
  }

  async #accept(port: number): Promise<void> {
    for await (const near of this.#listener) {
      const far = await Deno.connect({ port });
      this.#conns.push(near, far);
      for (const [from, to] of [[near, far], [far, near]] as const) {
        this.#carrying.push(carryBytes(from, to).catch(() => {}));
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.cut();
    await Promise.all(this.#carrying);
  }
}

async function carryBytes(from: Deno.Conn, to: Deno.Conn): Promise<void> {
  const buffer = new Uint8Array(65_536);
  for (let count; (count = await from.read(buffer)) !== null;) {
    let rest = buffer.subarray(0, count);
    while (rest.length > 0) rest = rest.subarray(await to.write(rest));
  }
  await to.closeWrite();
}

/** What an end is doing when the tunnel breaks. */
interface State {
  reader: End;
  isHalfClosed: boolean;
  /** What the other end says to it. */
  traffic: "nothing" | "what is not read" | "what is read";
}

const STATES: State[] = [];
for (const reader of ENDS) {
  for (const isHalfClosed of [false, true]) {
    for (
      const traffic of ["nothing", "what is not read", "what is read"] as const
    ) STATES.push({ reader, isHalfClosed, traffic });
  }
}

interface Break {
  /** At which ends it is a reset, whatever they are doing. */
  readers: End[];
  flags?: string[];
  by(tunnel: Tunnel, peers: Peer[]): void | Promise<void>;
}

/** The end that speaks to one that reads. */
interface Peer {
  end: End;
  conn: Resettable;
}

const resetAll = (end: End) => (_: Tunnel, peers: Peer[]) => {
  for (const peer of peers) if (peer.end === end) peer.conn.reset();
};

/** A second signal counts only some time after the first: sends it until then. */
async function stopTwice(program: TestEntrance | TestServer): Promise<void> {
  let hasEnded = false;
  const ended = program.exitCode().then(() => hasEnded = true);
  while (!hasEnded) {
    program.signal("SIGTERM");
    await Promise.race([
      ended,
      new Promise((resolve) => setTimeout(resolve, 20)),
    ]);
  }
}

// Whoever is killed cannot say anything: its own plain ends see an end.
const BREAKS: Record<string, Break> = {
  "the server is killed": {
    readers: ["caller"],
    by: ({ server }) => server.signal("SIGKILL"),
  },
  "the client is killed": {
    readers: ["backend"],
    by: ({ client }) => client.signal("SIGKILL"),
  },
  "the server's grace is over": {
    readers: ENDS,
    flags: ["--grace", "0"],
    by: ({ server }) => server.signal("SIGTERM"),
  },
  "the client's grace is over": {
    readers: ENDS,
    flags: ["--grace", "0"],
    by: ({ client }) => client.signal("SIGTERM"),
  },
  "the server is told to stop twice": {
    readers: ENDS,
    by: ({ server }) => stopTwice(server),
  },
  "the client is told to stop twice": {
    readers: ENDS,
    by: ({ client }) => stopTwice(client),
  },
  "the backend resets": { readers: ["caller"], by: resetAll("backend") },
  "the caller resets": { readers: ["backend"], by: resetAll("caller") },
};

/** Brings an end of a new tunnel into a state; what it has heard in the end. */
async function enter(tunnel: Tunnel, state: State) {
  const ends = await tunnel.open();
  const reader = ends[state.reader];
  const end = other(state.reader);
  const conn = resettable(ends[end]);
  if (state.isHalfClosed) {
    await reader.closeWrite();
    await heardEnd(conn);
  }
  const isReading = state.traffic === "what is read";
  const hearing = isReading ? hear(reader) : undefined;
  if (isReading) flood(conn);
  else if (state.traffic === "nothing") {
    await conn.write(new Uint8Array(1));
    await reader.read(new Uint8Array(1));
  } else await flood(conn);
  return {
    peer: { end, conn },
    async heard() {
      const { end } = await (hearing ?? hear(reader));
      reader.close();
      conn.close();
      return { ...state, end };
    },
  };
}

async function breaks(tunnel: Tunnel, { readers, by }: Break): Promise<void> {
  const states = STATES.filter(({ reader }) => readers.includes(reader));
  // Those that read keep the others waiting.
  states.sort((a, b) => a.traffic.localeCompare(b.traffic));
  const entered = [];
  for (const state of states) entered.push(await enter(tunnel, state));
  await by(tunnel, entered.map(({ peer }) => peer));
  const heard = await Promise.all(entered.map((one) => one.heard()));
  assertEquals(
    heard,
    states.map((one) => ({ ...one, end: "ConnectionReset" })),
  );
}

for (const [name, one] of Object.entries(BREAKS)) {
  test(`TCP: when ${name}, who reads sees a reset`, async (dir) => {
    await using tunnel = await Tunnel.start(dir, "TCP", one.flags);
    await breaks(tunnel, one);
  });
}

test("TCP: when the connection is cut, who reads sees a reset", async (dir) => {
  await using cables = new AsyncDisposableStack();
  let cable: Cable;
  await using tunnel = await Tunnel.start(dir, "TCP", [], (port) => {
    cable = cables.use(new Cable(port));
    return cable.port;
  });
  await breaks(tunnel, { readers: ENDS, by: () => cable.cut() });
});
