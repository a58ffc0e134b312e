/**
 * `deno run -A bench/boxes.ts [BOX...]`: a tunnel by way of each box of
 * docs/BOXES.md beside one that goes straight to its server, in turn.
 *
 * @module
 */

import {
  Box,
  type BoxName,
  headings,
  lacksBox,
  serverArgs,
} from "../tests/boxes.ts";
import {
  clientFlags,
  makeCerts,
  serverFlags,
  start,
  TestEntrance,
  TestServer,
} from "../tests/programs.ts";
import { Backend, oneWay, roundTrip } from "./calls.ts";
import { inTurn, median, medianRatio, progress } from "./measure.ts";

const ROUNDS = 9;
const ROUND_TRIPS = 500;
/** 33 MB. */
const CHUNKS = 512;

/** Without a box: frames as they are, and in a WebSocket. */
const STRAIGHT = { "no box": [], "no box, --websocket": ["--websocket"] };

const backend = new Backend();
const certs = await makeCerts();
await using stack = new AsyncDisposableStack();
const exit = stack.use(
  await TestServer.start([
    ...serverFlags(certs),
    ...["--forward", `127.0.0.1:${backend.port}`],
  ]),
);
const straight = await enter(clientFlags(certs, exit.port));
const names =
  (Deno.args.length > 0 ? Deno.args : await headings()) as BoxName[];

console.log("| way | round trip, µs | × | one way, MB/s | × |");
console.log("| --- | --- | --- | --- | --- |");
for (const [name, args] of Object.entries(STRAIGHT)) {
  const flags = [...clientFlags(certs, exit.port), ...args];
  await compare(name, await enter(flags));
}
for (const name of names) {
  const reason = lacksBox(name);
  if (reason) console.log(`| ${name}: ${reason} |`);
  else await throughBox(name);
}
await stack.disposeAsync();
await Deno.remove(certs, { recursive: true });
Deno.exit(0);

async function enter(flags: string[]): Promise<number> {
  const args = flags.includes("--listen") ? flags : [...flags, "--listen", "0"];
  const entrance = stack.use(await TestEntrance.of(start("client", args)));
  return entrance.address.port;
}

async function throughBox(name: BoxName): Promise<void> {
  const args = await serverArgs(name, certs, backend.port);
  await using server = await TestServer.of(start("server", args));
  await using box = await Box.start(name, certs, server.port);
  await using entrance = await TestEntrance.of(
    start("client", [...box.clientArgs, "--psk", `${certs}/psk.txt`]),
  );
  await compare(name, entrance.address.port);
}

/** A way beside the straight one. */
async function compare(name: string, port: number): Promise<void> {
  const row = async (work: (port: number) => Promise<number>) => {
    const figures = await inTurn(name, ROUNDS, {
      straight: () => work(straight),
      box: () => work(port),
    });
    const ratio = medianRatio(figures.box, figures.straight).toFixed(2);
    return `${median(figures.box).toFixed(0)} | ${ratio}`;
  };
  backend.job = "echo";
  const trip = await row((port) => roundTrip(port, ROUND_TRIPS));
  backend.job = { count: CHUNKS };
  const bulk = await row((port) => oneWay(port, CHUNKS));
  progress("");
  console.log(`| ${name} | ${trip} | ${bulk} |`);
}
