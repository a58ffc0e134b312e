/** Real services through a real tunnel, each beside the same run without it. */

import { assertEquals, assertMatch } from "@std/assert";
import {
  programTests,
  serverFlags,
  TestEntrance,
  TestServer,
} from "./programs.ts";
import { lacksProgram } from "./requirements.ts";
import {
  freePlace,
  HAS_POSTGRES,
  HAS_SSHD,
  type Place,
  postgresArgs,
  run,
  Service,
  sshArgs,
  startPostgres,
  startSshd,
} from "./services.ts";

const define = programTests("services: ");

/** A test that needs a program. */
const test = (
  name: string,
  program: string[],
  fn: (dir: string) => Promise<void>,
) => define(name, fn, lacksProgram(program, program.at(-1)!));

/** Does the same directly and through a tunnel; the results must be equal. */
async function compare<T>(
  dir: string,
  backend: string,
  direct: Place,
  work: (place: Place) => Promise<T>,
): Promise<void> {
  await using exit = await TestServer.start([
    ...serverFlags(dir),
    ...["--forward", backend],
  ]);
  await using entrance = await TestEntrance.start(dir, exit.port);
  assertEquals(await work(entrance.address), await work(direct));
}

/** The SHA-256 of what a command prints. */
async function hashOf(command: string): Promise<string> {
  return await run(["bash", "-o", "pipefail", "-c", `${command} | sha256sum`]);
}

test(
  "PostgreSQL: pgbench, and a dump of 100 MB",
  HAS_POSTGRES,
  async (dir) => {
    const place = freePlace();
    await using _ = await startPostgres(dir, place);
    await run(["pgbench", ...postgresArgs(place), "-i", "-q", "-s", "11"]);
    const backend = `127.0.0.1:${place.port}`;
    await compare(dir, backend, place, async (place) => {
      const bench = ["-S", "-c", "4", "-j", "2", "-t", "100"];
      const report = await run(["pgbench", ...postgresArgs(place), ...bench]);
      assertMatch(report, /actually processed: 400\/400/);
      const dump = ["pg_dump", ...postgresArgs(place)].join(" ");
      // A line of it is random.
      return await hashOf(`${dump} | sed '/restrict/d'`);
    });
  },
);

test(
  "Redis: redis-benchmark, and a value",
  ["which", "redis-server"],
  async (dir) => {
    const place = freePlace();
    const socket = `${dir}/redis.sock`;
    await using _ = await Service.start([
      ...["redis-server", "--port", String(place.port), "--save", ""],
      ...["--bind", place.host, "--unixsocket", socket],
    ], place);
    await compare(dir, `unix:${socket}`, place, async ({ port }) => {
      const at = ["-p", String(port)];
      const bench = ["-n", "2000", "-q", "-t", "set,get,lrange_100"];
      const report = await run(["redis-benchmark", ...at, ...bench]);
      assertMatch(report, /GET: [\d.]+ requests per second/);
      await run(["redis-cli", ...at, "set", "key", "straße"]);
      return await run(["redis-cli", ...at, "get", "key"]);
    });
  },
);

test("OpenSSH: scp", HAS_SSHD, async (dir) => {
  const place = freePlace();
  await using _ = await startSshd(dir, place);
  const file = crypto.getRandomValues(new Uint8Array(65_536));
  await Deno.writeFile(`${dir}/file`, new Blob(Array(160).fill(file)).stream());
  const user = (await run(["id", "-un"])).trim();
  const backend = `127.0.0.1:${place.port}`;
  await compare(dir, backend, place, async ({ host, port }) => {
    await run([
      ...["scp", "-q", "-P", String(port), ...sshArgs(dir)],
      ...[`${dir}/file`, `${user}@${host}:${dir}/copy`],
    ]);
    const copy = await hashOf(`cat ${dir}/copy`);
    assertEquals(copy, await hashOf(`cat ${dir}/file`));
    await Deno.remove(`${dir}/copy`);
    return copy;
  });
});

test(
  "HTTP: curl, keep-alive and an upload",
  ["which", "curl"],
  async (dir) => {
    await using server = Deno.serve(
      { port: 0, hostname: "127.0.0.1", onListen: () => {} },
      async (request) => {
        const hash = await crypto.subtle.digest(
          "SHA-256",
          await request.bytes(),
        );
        return new Response(`${new Uint8Array(hash).toHex()}\n`);
      },
    );
    const { hostname, port } = server.addr;
    const place = { host: hostname, port };
    await Deno.writeFile(`${dir}/file`, new Uint8Array(20_000_000).fill(7));
    await compare(dir, `${hostname}:${port}`, place, async ({ host, port }) => {
      const url = `http://${host}:${port}/`;
      const connects = ["-w", "%{num_connects} connects\n"];
      const replies = await run(["curl", "-sS", ...connects, url, url]);
      assertMatch(replies, /1 connects[^]*0 connects/);
      const upload = await run(["curl", "-sS", "-T", `${dir}/file`, url]);
      assertEquals(
        upload.split("\n")[0],
        (await hashOf(`cat ${dir}/file`)).slice(0, 64),
      );
      return replies + upload;
    });
  },
);
