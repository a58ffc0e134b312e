/**
 * `deno task bench`: each layer alone, then together, then beside plain TLS.
 *
 * ```sh
 * deno task bench              # a table
 * deno task bench --check      # short; exits 1 if a ratio is out of bounds
 * ```
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import {
  handshakes,
  inner,
  oneWay,
  plain,
  roundTrip,
  setUp,
  smallWrites,
} from "./channels.ts";
import { aesGcm, frames, noise } from "./layers.ts";
import { cpuTime, inTurn, median, medianRatio, progress } from "./measure.ts";
import { measure } from "./memory.ts";
import { startHere, startThere } from "./servers.ts";

/** A line of the table: ours beside another, and their ratio. */
interface Row {
  what: string;
  unit: string;
  ours: number;
  other: number;
  ratio: number;
  /** What is aimed at: `>= 0.45` or `<= 2.5`. */
  aim: string;
  /** What CI holds: far enough from the aim for a noisy machine. */
  bound?: string;
}

const MB = 1e6;
const FULL_MESSAGE = 65_518;

const args = parseArgs(Deno.args, { boolean: ["check"] });
const isCheck = args["check"] === true;
const rounds = isCheck ? 3 : 7;
const bytes = isCheck ? 100 * MB : 500 * MB;

const rows: Row[] = [];
const here = await startHere();
const there = await startThere();

if (!isCheck) await printLayers();

const bulk = await inTurn("one way", rounds, {
  inner: () => oneWay(inner, here, bytes),
  plain: () => oneWay(plain, here, bytes),
  ceiling: () => aesGcm(FULL_MESSAGE, 8, bytes),
});
addRow("one way, beside plain TLS", "MB/s", bulk.inner, bulk.plain, {
  aim: ">= 0.45",
  bound: ">= 0.15",
});
addRow("one way, beside WebCrypto alone", "MB/s", bulk.inner, bulk.ceiling, {
  aim: ">= 0.9",
  bound: ">= 0.3",
});

const cpu = await inTurn("CPU time", rounds, {
  inner: () => cpuTime(() => oneWay(inner, here, bytes)),
  plain: () => cpuTime(() => oneWay(plain, here, bytes)),
  ceiling: () => cpuTime(() => aesGcm(FULL_MESSAGE, 8, bytes)),
});
// What is neither TLS nor WebCrypto: framing, queues, copies.
const own = cpu.inner.map((us, round) =>
  (us - cpu.plain[round]! - cpu.ceiling[round]!) / (bytes / FULL_MESSAGE)
);
addRow("our own CPU time for 64 KiB", "µs", own, own.map(() => 50), {
  aim: "<= 1",
});

// Enough for the compiler to have done its work.
const turns = isCheck ? 1000 : 4000;
const latency = await inTurn("latency", rounds, {
  inner: () => roundTrip(inner, there, turns),
  plain: () => roundTrip(plain, there, turns),
  innerSetUp: () => setUp(inner, there, 30),
  plainSetUp: () => setUp(plain, there, 30),
});
addRow("64 bytes there and back", "µs", latency.inner, latency.plain, {
  aim: "<= 2.4",
  bound: "<= 15",
});
addRow(
  "connect to first reply",
  "ms",
  latency.innerSetUp,
  latency.plainSetUp,
  { aim: "<= 2.5", bound: "<= 10" },
);

const small = await inTurn("small writes", rounds, {
  together: () => smallWrites(here, isCheck ? 200_000 : 1_000_000),
  oneByOne: async () => 1e6 / await roundTrip(inner, here, 500),
});
addRow(
  "64-byte writes, beside a round trip each",
  "/s",
  small.together,
  small.oneByOne,
  { aim: ">= 50", bound: ">= 20" },
);

const shaken = await inTurn("handshakes", rounds, {
  inner: () => handshakes(inner, there, 200, 8),
  plain: () => handshakes(plain, there, 200, 8),
});
addRow("handshakes", "/s", shaken.inner, shaken.plain, {
  aim: ">= 0.75",
  bound: ">= 0.25",
});

if (!isCheck) {
  const count = 5000;
  const idle = await inTurn("idle connections", 1, {
    inner: () => measure("idleChannels", count),
    plain: () => measure("idleTls", count),
  });
  addRow(`${count} idle, both ends`, "MiB", idle.inner, idle.plain, {
    aim: "<= 1.05",
  });
  progress("10 GB to a slow reader");
  const slow = {
    tcp: [await measure("slowTcpIterator", 10_000)],
    iterator: [await measure("slowIterator", 10_000)],
    reader: [await measure("slowReader", 10_000)],
  };
  const title = "10 GB to a slow reader";
  addRow(`${title}, \`for await\``, "MiB", slow.iterator, slow.tcp, {
    aim: "<= 1.2",
  });
  addRow(`${title}, own buffer`, "MiB", slow.reader, slow.tcp, {
    aim: "<= 1",
  });
  progress("");
}

const machine = `${navigator.hardwareConcurrency} cores, ` +
  `Deno ${Deno.version.deno}, ${new Date().toISOString().slice(0, 10)}`;
console.log(`\nmedians of ${rounds}, in turn; ${machine}\n`);
for (const row of rows) {
  console.log(
    `${row.what.padEnd(42)} ${figure(row.ours)} beside ${figure(row.other)} ` +
      `${row.unit.padEnd(5)} ratio ${row.ratio.toFixed(2)} (aim ${row.aim})`,
  );
}
const broken = isCheck ? rows.filter((row) => !holds(row)) : [];
for (const { what, ratio, bound } of broken) {
  console.error(
    `bench: ${what}: the ratio ${ratio.toFixed(2)} is not ${bound}`,
  );
}
Deno.exit(broken.length > 0 ? 1 : 0);

function addRow(
  what: string,
  unit: string,
  ours: number[],
  other: number[],
  rest: Pick<Row, "aim" | "bound">,
): void {
  rows.push({
    what,
    unit,
    ours: median(ours),
    other: median(other),
    ratio: medianRatio(ours, other),
    ...rest,
  });
}

function holds({ ratio, bound }: Row): boolean {
  if (bound === undefined) return true;
  const [comparison, limit] = bound.split(" ");
  return comparison === ">=" ? ratio >= Number(limit) : ratio <= Number(limit);
}

async function printLayers(): Promise<void> {
  for (const length of [64, 1024, 16_384, FULL_MESSAGE]) {
    const work = Math.min(length * 10_000, bytes);
    const results = await inTurn(`AES-GCM, ${length} bytes`, 3, {
      alone: () => aesGcm(length, 1, work),
      eight: () => aesGcm(length, 8, work),
    });
    console.log(
      `AES-GCM both ways, ${length} bytes`.padEnd(42) +
        ` ${figure(median(results.alone))} MB/s one at a time, ` +
        `${figure(median(results.eight))} eight at once`,
    );
  }
  const results = await inTurn("Noise, frames", 3, {
    noise: () => noise(200),
    small: () => frames(81, bytes / 20),
    full: () => frames(65_534, bytes),
  });
  console.log(
    `${"Noise handshakes, both sides".padEnd(42)} ${
      figure(median(results.noise))
    } /s`,
  );
  console.log(
    `${"frames of 81 and 65 534 bytes".padEnd(42)} ${
      figure(median(results.small))
    } and ${figure(median(results.full))} MB/s`,
  );
}

function figure(value: number): string {
  return value.toFixed(value < 100 ? 1 : 0).padStart(8);
}
