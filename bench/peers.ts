/**
 * `deno task bench:peers`: a tunnel of `client.ts --listen` and `server.ts
 * --forward` beside others, each where it is installed, on the same work.
 *
 * @module
 */

import { writeAll } from "../lib/transport.ts";
import {
  inTurn,
  median,
  medianRatio,
  milliseconds,
  progress,
} from "./measure.ts";
import { type Name, NAMES, startTunnel, type Tunnel } from "./tunnels.ts";

const MB = 1e6;
const ROUNDS = 7;
const CHUNK = crypto.getRandomValues(new Uint8Array(65_536));
const CHUNKS = 4800;
const CONNECTIONS = 50;
const ROUND_TRIPS = 1000;

interface Measurement {
  what: string;
  unit: string;
  measure: (port: number) => Promise<number>;
  /** What is aimed at, ours divided by theirs. */
  aims: Partial<Record<string, string>>;
}

const MEASUREMENTS: Measurement[] = [
  {
    what: "64 bytes there and back",
    unit: "µs",
    measure: roundTrip,
    aims: { relay: "<= 1.5", spiped: "<= 1.7" },
  },
  {
    what: "connect to first reply, callers 50 ms apart",
    unit: "ms",
    measure: (port) => setUp(port, 50),
    aims: { spiped: "<= 0.6", ssh: "<= 1.5" },
  },
  {
    what: "connect to first reply, one right after the other",
    unit: "ms",
    measure: (port) => setUp(port, 0),
    aims: { stunnel4: "<= 1.7" },
  },
  {
    what: "one way",
    unit: "MB/s",
    measure: oneWay,
    aims: { socat: ">= 1.0", spiped: ">= 1.6" },
  },
];

/** What the backend does just now. */
let job: "echo" | "count" = "echo";

const backend = Deno.listen({ hostname: "127.0.0.1", port: 0 });
(async () => {
  for await (const conn of backend) serve(conn).catch(() => {});
})();

const tunnels = await startAll(backend.addr.port);
// No tunnel at all: what the callers and the backend take themselves.
const ports = { ...portsOf(tunnels), direct: backend.addr.port };
try {
  for (const measurement of MEASUREMENTS) {
    job = measurement.measure === oneWay ? "count" : "echo";
    const { what, measure } = measurement;
    printTable(
      measurement,
      await inTurn(
        what,
        ROUNDS,
        Object.fromEntries(
          Object.entries(ports)
            .map(([name, port]) => [name, () => measure(port)]),
        ),
      ),
    );
  }
} finally {
  for (const tunnel of tunnels.values()) await tunnel.stop();
}
console.log(
  `\nmedians of ${ROUNDS}, in turn; ${navigator.hardwareConcurrency} cores, ` +
    `Deno ${Deno.version.deno}, ${new Date().toISOString().slice(0, 10)}`,
);
Deno.exit(0);

async function startAll(to: number): Promise<Map<Name, Tunnel>> {
  const started = new Map<Name, Tunnel>();
  for (const name of NAMES) {
    progress(`starting ${name}`);
    const tunnel = await startTunnel(name, to);
    if (tunnel) started.set(name, tunnel);
    else console.log(`${name} is not installed: left out`);
  }
  return started;
}

function portsOf(tunnels: Map<Name, Tunnel>): Record<string, number> {
  return Object.fromEntries(
    [...tunnels].map(([name, { port }]) => [name, port]),
  );
}

function printTable(
  { what, unit, aims }: Measurement,
  figures: Record<string, number[]>,
): void {
  console.log(`\n${what}`);
  const ours = figures["innerlock"]!;
  for (const [name, theirs] of Object.entries(figures)) {
    const ratio = medianRatio(ours, theirs).toFixed(2);
    const aim = aims[name] ? ` (aim ${aims[name]})` : "";
    const beside = theirs === ours ? "" : `  innerlock is ${ratio} x${aim}`;
    console.log(
      `  ${name.padEnd(10)} ${median(theirs).toFixed(1).padStart(8)} ` +
        `${unit.padEnd(4)}${beside}`,
    );
  }
}

async function serve(conn: Deno.TcpConn): Promise<void> {
  conn.setNoDelay(true);
  const buffer = new Uint8Array(CHUNK.length);
  let count = 0;
  for (let n; (n = await conn.read(buffer)) !== null;) {
    count += n;
    if (job === "echo") await writeAll(conn, buffer.subarray(0, n));
    // Not told by an end: not every tunnel carries that of one direction.
    else if (count === CHUNKS * CHUNK.length) await conn.write(buffer);
  }
  conn.close();
}

async function dial(port: number): Promise<Deno.TcpConn> {
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  conn.setNoDelay(true);
  return conn;
}

/** All into the tunnel, until the backend has it. MB/s. */
async function oneWay(port: number): Promise<number> {
  using conn = await dial(port);
  const ms = await milliseconds(async () => {
    for (let i = 0; i < CHUNKS; i++) await writeAll(conn, CHUNK);
    await receive(conn, 1);
  });
  return CHUNKS * CHUNK.length / MB / ms * 1000;
}

/**
 * New connections, a byte there and back, so many milliseconds apart: the median
 * of them. Milliseconds.
 */
async function setUp(port: number, gap: number): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < CONNECTIONS; i++) {
    if (gap > 0) await new Promise((resolve) => setTimeout(resolve, gap));
    times.push(
      await milliseconds(async () => {
        using conn = await dial(port);
        await conn.write(CHUNK.subarray(0, 1));
        await receive(conn, 1);
      }),
    );
  }
  return median(times);
}

/** 64 bytes there and back, one after another. Microseconds. */
async function roundTrip(port: number): Promise<number> {
  using conn = await dial(port);
  const small = CHUNK.subarray(0, 64);
  const turn = async () => {
    await conn.write(small);
    await receive(conn, small.length);
  };
  await turn();
  const ms = await milliseconds(async () => {
    for (let i = 0; i < ROUND_TRIPS; i++) await turn();
  });
  return ms / ROUND_TRIPS * 1000;
}

/** Reads at least so many bytes. */
async function receive(conn: Deno.TcpConn, length: number): Promise<void> {
  const buffer = new Uint8Array(CHUNK.length);
  for (let got = 0; got < length;) {
    const n = await conn.read(buffer);
    if (n === null) throw new Error("The tunnel was cut");
    got += n;
  }
}
