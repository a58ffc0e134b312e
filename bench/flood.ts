/**
 * `deno run -A bench/flood.ts [KIND] [SECONDS] [FLAGS...]`: what honest clients
 * wait for their reply while somebody attacks the server, niced, on the same
 * cores. KIND is the beginning of one, or `all`; the flags are the server's.
 *
 * `tcp` and `tls` open 400 silent connections a second, from 127.0.0.2; the others
 * are those of `flood_peer.ts`.
 */

import { join } from "node:path";
import { connect } from "../lib/deno.ts";
import { PSK } from "../tests/duplex.ts";
import { makeCerts, serverFlags, TestServer } from "../tests/programs.ts";
import { median } from "./measure.ts";

const KINDS = [
  "none",
  "tcp",
  "tls",
  "websocket empty messages",
  "websocket empty fragments",
  "websocket Pings",
  "sealed pongs",
  "sealed pings",
  "sealed bytes",
];

/** How many silent connections there are in a second. */
const RATE = 400;

/** The time between two honest clients, in milliseconds. */
const PAUSE = 50;

/** After which an honest client gives up, in milliseconds. */
const PATIENCE = 60_000;

const [chosen = "all", seconds = "10", ...flags] = Deno.args;
const dir = await makeCerts();
await Deno.writeTextFile(`${dir}/psk.txt`, PSK);
const cert = await Deno.readTextFile(`${dir}/cert.pem`);
for (const kind of KINDS) {
  if (chosen !== "all" && !kind.startsWith(chosen)) continue;
  await using server = await TestServer.start([
    ...serverFlags(dir),
    ...["--echo", ...flags],
  ]);
  const attack = kind === "none" ? undefined : flood(server.port, kind);
  const { times, failures } = await visit(server.port);
  const { descriptors, memory } = await server.usage();
  const ms = (time: number) => `${time.toFixed(0)} ms`;
  const sorted = times.toSorted((a, b) => a - b);
  console.log(
    `${kind}: ${times.length} served, median ${ms(median(times))}, 95 % ${
      ms(sorted[Math.floor(0.95 * times.length)]!)
    }, longest ${ms(sorted.at(-1)!)}, ${failures} failed; the server has ` +
      `${descriptors} descriptors, ${memory} MiB; the attacker: ${
        await attack ?? "none"
      }`,
  );
}
await Deno.remove(dir, { recursive: true });

/** Goes on for a second longer than the visits; what it says it has done. */
async function flood(port: number, kind: string): Promise<string> {
  const script = (name: string) => join(import.meta.dirname!, name);
  const time = String(Number(seconds) + 1);
  const args = kind === "tcp" || kind === "tls"
    ? ["python3", script("flood.py"), "127.0.0.2", `${port}`, kind, `${RATE}`]
    : [
      ...[Deno.execPath(), "run", "-A", script("flood_peer.ts"), `${port}`],
      ...[`${dir}/cert.pem`, kind],
    ];
  const { stdout } = await new Deno.Command("nice", {
    args: ["-n", "19", ...args, time],
    stderr: "inherit",
  }).output();
  return new TextDecoder().decode(stdout).trim();
}

/** From connect to the first reply, client after client. */
async function visit(
  port: number,
): Promise<{ times: number[]; failures: number }> {
  const times: number[] = [];
  let failures = 0;
  const end = performance.now() + 1000 * Number(seconds);
  for (let start; (start = performance.now()) < end;) {
    try {
      await using channel = await connect({
        ...{ port, caCerts: [cert], psk: PSK, handshakeTimeout: PATIENCE },
      });
      const sent = new Blob(["x"]).stream().pipeTo(channel.writable);
      await new Response(channel.readable).text();
      await sent;
      times.push(performance.now() - start);
    } catch {
      failures++;
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
  return { times, failures };
}
