/**
 * `deno task bench:peers`: a tunnel of `client.ts --listen` and `server.ts
 * --forward` beside others, each where it is installed, on the same work.
 *
 * ```sh
 * deno task bench:peers              # a table
 * deno task bench:peers --svg FILE   # and a chart, docs/bench.svg
 * deno task bench:peers --rounds 1   # short
 * ```
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { Backend, besideBulk, dial, oneWay, roundTrip } from "./calls.ts";
import { receive } from "./channels.ts";
import { drawChart, type Panel } from "./chart.ts";
import {
  inTurn,
  median,
  medianRatio,
  milliseconds,
  progress,
} from "./measure.ts";
import { type Name, NAMES, startTunnel, type Tunnel } from "./tunnels.ts";

const args = parseArgs(Deno.args, {
  string: ["svg", "rounds"],
  default: { rounds: "7" },
});
const rounds = Number(args["rounds"]);
const CHUNKS = 4800;
const CONNECTIONS = 50;
const ROUND_TRIPS = 1000;
const BESIDE_TRIPS = 50;

interface Measurement {
  what: string;
  unit: string;
  measure: (port: number) => Promise<number>;
  /** What the backend does meanwhile, if it does not echo. */
  job?: Backend["job"];
  /** Its title in the chart, if it is there. */
  title?: string;
  /** What is aimed at, ours divided by theirs: by WebCrypto, then by OpenSSL. */
  aims: Partial<Record<string, [webCrypto: string, openssl: string]>>;
}

/** Ours, by the two engines. */
const OURS = ["innerlock", "openssl"] as const;

/** Who is in the chart, and how it calls them. */
const CHARTED: Record<string, string> = {
  innerlock: "innerlock",
  openssl: "innerlock --openssl",
  spiped: "spiped",
  stunnel4: "stunnel",
  socat: "socat (OpenSSL)",
  ssh: "ssh -L",
};

const MEASUREMENTS: Measurement[] = [
  {
    what: "64 bytes there and back",
    unit: "µs",
    title: "A short message there and back: shorter is better",
    measure: (port) => roundTrip(port, ROUND_TRIPS),
    aims: { relay: ["<= 1.5", "<= 1.2"], spiped: ["<= 1.7", "<= 1.35"] },
  },
  {
    what: "connect to first reply, callers 50 ms apart",
    unit: "ms",
    title: "From connecting to the first reply: shorter is better",
    measure: (port) => setUp(port, 50),
    aims: { spiped: ["<= 0.6", "<= 0.6"], ssh: ["<= 1.5", "<= 1.5"] },
  },
  {
    what: "connect to first reply, one right after the other",
    unit: "ms",
    measure: (port) => setUp(port, 0),
    aims: { stunnel4: ["<= 1.7", "<= 1.7"] },
  },
  {
    what: "one way",
    unit: "MB/s",
    title: "A bulk transfer: longer is better",
    measure: (port) => oneWay(port, CHUNKS),
    job: { count: CHUNKS },
    aims: { socat: [">= 0.75", ">= 1.05"], spiped: [">= 1.5", ">= 2.1"] },
  },
  {
    what: "64 bytes there and back, beside another caller's bulk",
    unit: "µs",
    measure: (port) => besideBulk(backend, port, BESIDE_TRIPS),
    aims: { turns: ["<= 1.5", "<= 1.5"] },
  },
];

const backend = new Backend();
const tunnels = await startAll(backend.port);
// No tunnel at all: what the callers and the backend take themselves.
const ports = { ...portsOf(tunnels), direct: backend.port };
const panels: Panel[] = [];
try {
  for (const measurement of MEASUREMENTS) {
    const { what, measure, job = "echo" } = measurement;
    backend.job = job;
    const contenders = Object.entries(ports)
      .map(([name, port]) => [name, () => measure(port)]);
    const figures = await inTurn(what, rounds, Object.fromEntries(contenders));
    printTable(measurement, figures);
    if (measurement.title) panels.push(panelOf(measurement, figures));
  }
} finally {
  for (const tunnel of tunnels.values()) await tunnel.stop();
}
const machine = `medians of ${rounds}, in turn; both ends on one machine, ` +
  `${navigator.hardwareConcurrency} cores, Deno ${Deno.version.deno}, ` +
  new Date().toISOString().slice(0, 10);
console.log(`\n${machine}`);
if (typeof args["svg"] === "string") {
  const heading = "A TCP tunnel through innerlock, beside others";
  await Deno.writeTextFile(args["svg"], drawChart(heading, machine, panels));
}
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

function panelOf(
  { title, unit }: Measurement,
  figures: Record<string, number[]>,
): Panel {
  const bars = Object.entries(CHARTED)
    .filter(([name]) => figures[name])
    .map(([name, shown]) => ({
      name: shown,
      figure: median(figures[name]!),
      isOurs: (OURS as readonly string[]).includes(name),
    }));
  return { title: title!, unit, bars };
}

function printTable(
  { what, unit, aims }: Measurement,
  figures: Record<string, number[]>,
): void {
  const isSpeed = unit === "MB/s";
  console.log(`\n${what}`);
  for (const [name, theirs] of Object.entries(figures)) {
    const beside = OURS.map((own, i) => {
      if (own === name || !figures[own]) return "";
      const ratio = medianRatio(figures[own], theirs);
      const who = (ratio > 1) === isSpeed ? own : name;
      const aim = aims[name] ? ` (aim ${aims[name][i]})` : "";
      return `  ${own} is ${ratio.toFixed(2)} x${aim}: ${who} is ahead`;
    });
    const figure = `${median(theirs).toFixed(1).padStart(8)} ${unit.padEnd(4)}`;
    console.log(`  ${name.padEnd(10)} ${figure}${beside.join(";")}`);
  }
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
        await conn.write(new Uint8Array(1));
        await receive(conn, new Uint8Array(1));
      }),
    );
  }
  return median(times);
}
