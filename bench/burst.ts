/**
 * `deno run -A bench/burst.ts [ROUNDS]`: how many callers are lost when many come
 * at once to a healthy server, all from one address.
 *
 * One client with 20 services has 20 callers for each; 24 clients have 30 each.
 * Each caller says a word, and must get the answer whole.
 */

import { ask, greeter } from "../tests/plain_peers.ts";
import {
  freePort,
  makeCerts,
  serverFlags,
  TestEntrance,
  TestServer,
} from "../tests/programs.ts";

const SERVICES = 20;
const CALLERS_OF_SERVICE = 20;
const CLIENTS = 24;
const CALLERS_OF_CLIENT = 30;

const rounds = Number(Deno.args[0] ?? 3);
const dir = await makeCerts();
await using backend = greeter("127.0.0.1:0");
const to = `127.0.0.1:${(backend.addr as Deno.NetAddr).port}`;
const services = Array.from({ length: SERVICES }, (_, i) => `s${i}`);
await using server = await TestServer.start([
  ...serverFlags(dir),
  ...["", ...services.map((name) => `${name}=`)]
    .flatMap((name) => ["--forward", `${name}${to}`]),
]);

for (let round = 0; round < rounds; round++) {
  const ports = services.map(() => freePort());
  const [first, ...others] = services.map((name, i) => `${ports[i]}=${name}`);
  await using client = await TestEntrance.start(
    dir,
    server.port,
    first,
    others.flatMap((place) => ["--listen", place]),
  );
  for (const _ of services) await client.logged("ready");
  if (await burst(`${SERVICES} services`, ports, CALLERS_OF_SERVICE) > 0) {
    console.log((await client.stop()).log);
  }
}
for (let round = 0; round < rounds; round++) {
  await using stack = new AsyncDisposableStack();
  const clients: TestEntrance[] = [];
  for (let i = 0; i < CLIENTS; i++) {
    const client = stack.use(await TestEntrance.start(dir, server.port));
    clients.push(client);
    await client.logged("ready");
  }
  const ports = clients.map(({ address }) => address.port);
  if (await burst(`${CLIENTS} clients`, ports, CALLERS_OF_CLIENT) > 0) {
    for (const client of clients) console.log((await client.stop()).log);
  }
}
await Deno.remove(dir, { recursive: true });

/** All at once, `each` at each port; how many were lost. */
async function burst(
  name: string,
  ports: number[],
  each: number,
): Promise<number> {
  const start = performance.now();
  const calls = ports.flatMap((port) =>
    Array.from({ length: each }, async () => {
      const answer = await ask({ host: "127.0.0.1", port }, "you");
      if (answer !== "hello you") throw new Error(`"${answer}"`);
      return performance.now() - start;
    })
  );
  const results = await Promise.allSettled(calls);
  const times = results.flatMap((one) => "value" in one ? [one.value] : []);
  const lost = results.length - times.length;
  console.log(
    `${name}: ${lost} of ${results.length} lost, ` +
      `the last was served after ${(Math.max(...times) / 1000).toFixed(1)} s`,
  );
  return lost;
}
