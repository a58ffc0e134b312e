/**
 * `deno run -A bench/flood.ts [RATE] [SECONDS] [FLAGS...]`: what honest clients
 * from 127.0.0.1 wait while one at 127.0.0.2 opens silent connections, niced. The
 * flags are the server's.
 */

import { connect } from "../lib/deno.ts";
import { makeCerts, serverFlags, TestServer } from "../tests/programs.ts";
import { median } from "./measure.ts";

let failures = 0;

/** The time between two honest clients, in milliseconds. */
const PAUSE = 50;

const [rate = "400", seconds = "10", ...flags] = Deno.args;
const dir = await makeCerts();
const cert = await Deno.readTextFile(`${dir}/cert.pem`);
const psk = await Deno.readTextFile(`${dir}/psk.txt`);
for (const kind of ["none", "tcp", "tls"]) {
  await using server = await TestServer.start([...serverFlags(dir), ...flags]);
  const attack = kind === "none" ? undefined : flood(server.port, kind);
  const times = await visit(server.port);
  const { descriptors, memory } = await server.usage();
  const opened = await attack;
  const figure = (q: number) =>
    times.toSorted((a, b) => a - b)[Math.floor(q * times.length)]?.toFixed(0);
  console.log(
    `${kind}: ${opened ?? 0} opened, ${times.length} served, median ` +
      `${median(times).toFixed(0)} ms, 95 % ${figure(0.95)} ms, longest ` +
      `${Math.max(...times).toFixed(0)} ms, ${failures} failed; the server ` +
      `has ${descriptors} descriptors, ${memory} MiB`,
  );
}
await Deno.remove(dir, { recursive: true });

/** Goes on for a second longer than the visits; how many it has opened. */
async function flood(port: number, kind: string): Promise<number> {
  const script = new URL("flood.py", import.meta.url).pathname;
  const args = ["-n", "19", "python3", script, "127.0.0.2", `${port}`, kind];
  const { stdout } = await new Deno.Command("nice", {
    args: [...args, rate, String(Number(seconds) + 1)],
  }).output();
  return Number(new TextDecoder().decode(stdout));
}

/** From connect to the first reply, client after client. */
async function visit(port: number): Promise<number[]> {
  failures = 0;
  const times: number[] = [];
  const end = performance.now() + 1000 * Number(seconds);
  for (let start; (start = performance.now()) < end;) {
    try {
      await using channel = await connect({ port, caCerts: [cert], psk });
      const sent = new Blob(["x"]).stream().pipeTo(channel.writable);
      await new Response(channel.readable).text();
      await sent;
      times.push(performance.now() - start);
    } catch {
      failures++;
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
  return times;
}
