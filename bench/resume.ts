/**
 * `deno run -A bench/resume.ts [ROUNDS]`: how long a caller waits for its answer
 * whose session has died in reserve without a word, as after a sleep or where a
 * box has forgotten its connections; beside one whose session lives.
 */

import { Cable } from "../tests/cable.ts";
import { ask, greeter } from "../tests/plain_peers.ts";
import {
  makeCerts,
  serverFlags,
  TestEntrance,
  TestServer,
} from "../tests/programs.ts";
import { median, milliseconds } from "./measure.ts";

/** How many come at a time: as many as there are in reserve. */
const CALLERS = 8;

/** How long the server is silent before they come, in milliseconds. */
const SILENCE = 3000;

const rounds = Number(Deno.args[0] ?? 3);
const dir = await makeCerts();
await using backend = greeter("127.0.0.1:0");
await using server = await TestServer.start([
  ...serverFlags(dir),
  ...["--forward", `127.0.0.1:${(backend.addr as Deno.NetAddr).port}`],
]);
await using cable = new Cable(server.port);
await using client = await TestEntrance.start(dir, cable.port);
await client.logged("ready");
// So many are in reserve from then on.
await callAll();
for (const isDead of [false, true]) {
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    await cable.quiet(SILENCE);
    if (isDead) cable.freeze();
    const calls = await callAll();
    times.push(...calls.filter((time) => time !== undefined));
  }
  const longest = Math.max(...times);
  const lost = rounds * CALLERS - times.length;
  console.log(
    `${isDead ? "dead" : "alive"} in reserve: ${lost} of ${
      rounds * CALLERS
    } lost, median ${median(times).toFixed(0)} ms, longest ${
      longest.toFixed(0)
    } ms`,
  );
}
await Deno.remove(dir, { recursive: true });

/** How long each waits, in milliseconds; undefined for one that is lost. */
async function callAll(): Promise<(number | undefined)[]> {
  const calls = Array.from({ length: CALLERS }, () =>
    milliseconds(async () => {
      const answer = await ask(client.address, "you");
      if (answer !== "hello you") throw new Error(`"${answer}"`);
    }).catch(() => undefined));
  return await Promise.all(calls);
}
