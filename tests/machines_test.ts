/**
 * README's ways from nothing to a tunnel, typed at the terminals of machines that
 * have Node and openssl: four commands and one pasted line, and some more for a
 * machine that only dials out.
 */

import { assertEquals, assertMatch } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { HAS_NFT, linksNetworks, Machines, type Name } from "./machines.ts";
import { MAY_RUN } from "./programs.ts";
import { lacksPermissions, lacksProgram, testUnless } from "./requirements.ts";
import { HAS_POSTGRES, POSTGRES, run, startPostgres } from "./services.ts";

const ROOT = `${import.meta.dirname}/../`;

/** Nobody waits longer for a tunnel, in milliseconds. */
const TIME_LIMIT = 120_000;

const reason = lacksPermissions(...MAY_RUN, "sys") ??
  lacksProgram(linksNetworks(), "what makes network namespaces") ??
  lacksProgram(HAS_POSTGRES, "PostgreSQL") ??
  lacksProgram(["npm", "--version"], "npm") ??
  lacksProgram(["script", "--version"], "script");

/** The commands that README has, without what it says of them. */
async function commandsOfReadme(): Promise<Set<string>> {
  const text = await Deno.readTextFile(`${ROOT}README.md`);
  const blocks = text.matchAll(/^```sh\n([^]*?)^```$/gm);
  return new Set(
    Array.from(blocks, ([, block]) => block!.split("\n")).flat()
      .map((line) => line.replace(/ +#.*/, "")),
  );
}

/** Where each program that the machines have is on this one. */
async function programs(): Promise<Record<string, string>> {
  const names = ["node", "npm", "npx", "openssl", "sh"];
  const found = await Promise.all(names.map(async (name) => {
    const path = await run(["sh", "-c", `command -v ${name}`]);
    return [name, path.trim()];
  }));
  return { ...Object.fromEntries(found), psql: `${POSTGRES}/psql` };
}

/** How the code comes to a machine. */
interface Way {
  bring: (home: string) => Promise<void>;
  /** In which folder of the home it is worked. */
  folder?: string;
  /** What is typed before all else, as README says it. */
  first?: string;
  /** What is typed for `innerlock`, as README says elsewhere. */
  command: string;
}

/**
 * The machines, a folder with one for each, and a database on one of them.
 *
 * @param clients All but the server.
 * @param behindNat Those of them that nobody can reach.
 */
async function worldWithDatabase(
  at: Name,
  clients: Name[],
  behindNat: Name[] = [],
) {
  const dir = await Deno.makeTempDir({ prefix: "innerlock-test-" });
  await using stack = new AsyncDisposableStack();
  stack.defer(() => Deno.remove(dir, { recursive: true }));
  const machines = stack.use(
    await Machines.start(
      dir,
      await programs(),
      TIME_LIMIT,
      clients,
      behindNat,
    ),
  );
  const place = { host: "localhost", port: 5432 };
  stack.use(await startPostgres(dir, place, machines.network(at)));
  const all = stack.move();
  return { dir, machines, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/** Types what README says, up to the database's answer. */
async function travel({ bring, folder, first, command }: Way): Promise<void> {
  const readme = await commandsOfReadme();
  const typed: string[] = [];
  const isSaid = [...readme].some((line) => line.includes(first ?? command));
  assertEquals(isSaid, true, `README has no ${first ?? command}`);
  const asReadme = (line: string) => {
    assertEquals(readme.has(line), true, `README has no ${line}`);
    typed.push(line);
    return line.replace(/^innerlock/, command);
  };
  await using world = await worldWithDatabase("server", ["client"]);
  const { dir, machines } = world;
  const arrive = async (name: Name) => {
    await bring(`${dir}/${name}`);
    const shell = await machines.sitDown(name, folder);
    if (first) await shell.run(first);
    return shell;
  };
  const [server, client] = await Promise.all([
    arrive("server"),
    arrive("client"),
  ]);

  const invitation = await server.run(
    asReadme("innerlock certs --host server.example --invite alice"),
  );
  const [line] = /^innerlock-1\.\S+/m.exec(invitation)!;
  await server.start(
    asReadme("innerlock server --host 0.0.0.0 --forward localhost:5432"),
    "listening on 0.0.0.0:5001",
  );

  await client.start(asReadme("innerlock certs --join"), "Paste");
  const joined = await client.run(line);
  assertMatch(joined, /^joined server\.example:5001 as alice/m);
  await client.start(
    asReadme("innerlock client --listen 5432"),
    "ready: 127.0.0.1:5432 → server.example:5001 as alice",
  );

  const another = await machines.sitDown("client");
  const psql = asReadme("psql -h localhost -U postgres");
  await another.start(psql, "postgres=# ");
  await another.start("select 6 * 7;", "42");
  assertEquals(typed.filter((line) => line.startsWith("innerlock")).length, 4);
}

testUnless(
  reason,
  "two machines: from npm install to psql, four commands and a pasted line",
  async () => {
    const tarball = `innerlock-${config.version}.tgz`;
    const packed = await Deno.makeTempDir({ prefix: "innerlock-test-" });
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => Deno.remove(packed, { recursive: true }));
    const pack = ["task", "--quiet", "--config", `${ROOT}deno.json`, "pack"];
    await run(["env", `INIT_CWD=${packed}`, Deno.execPath(), ...pack]);
    await travel({
      bring: (home) =>
        Deno.copyFile(`${packed}/${tarball}`, `${home}/${tarball}`),
      first: `npm install -g ./${tarball}`,
      command: "innerlock",
    });
  },
);

/** A copy of this folder. */
const CLONE: Way = {
  bring: async (home) => {
    // Not what somebody has made here, as README says.
    const others = "--exclude-vcs --exclude-vcs-ignores --exclude=./certs";
    const ours = `tar ${others} -C $0 -c .`;
    const copy = `${ours} | tar -x -C $1 --one-top-level=innerlock`;
    await run(["sh", "-c", copy, ROOT, home]);
  },
  folder: "innerlock",
  command: "npx -y deno@2.9.6 task",
};

testUnless(
  reason,
  "two machines: from a clone to psql, four commands and a pasted line",
  async () => {
    await travel(CLONE);
  },
);

testUnless(
  reason ?? lacksProgram(HAS_NFT, "nft"),
  "three machines: callers reach the database of one behind NAT",
  async () => {
    const readme = await commandsOfReadme();
    const asReadme = (line: string) => {
      assertEquals(readme.has(line), true, `README has no ${line}`);
      return line.replace(/^innerlock/, CLONE.command);
    };
    await using world = await worldWithDatabase("nas", ["client", "nas"], [
      "nas",
    ]);
    const { dir, machines } = world;
    const arrive = async (name: Name) => {
      await CLONE.bring(`${dir}/${name}`);
      return await machines.sitDown(name, CLONE.folder);
    };
    const [server, nas, client] = await Promise.all([
      arrive("server"),
      arrive("nas"),
      arrive("client"),
    ]);
    const invite = asReadme(
      "innerlock certs --host server.example --invite alice",
    );
    for (const [name, shell] of [["nas", nas], ["alice", client]] as const) {
      const said = await server.run(invite.replace("alice", name));
      const [line] = /^innerlock-1\.\S+/m.exec(said)!;
      await shell.start(asReadme("innerlock certs --join"), "Paste");
      const joined = await shell.run(line);
      assertMatch(joined, new RegExp(`^joined .* as ${name}`, "m"));
    }
    const listen = asReadme(
      "innerlock server --host 0.0.0.0 --listen 5432=nas",
    );
    await server.start(
      `${listen} --forward localhost:5432`,
      "listening on 0.0.0.0:5001",
    );
    await nas.start(
      asReadme("innerlock client --expose localhost:5432"),
      "ready: server.example:5001 as nas → localhost:5432",
    );
    await client.start(asReadme("innerlock client --listen 5432"), "ready: ");
    const psql = asReadme("psql -h localhost -U postgres");
    for (const name of ["server", "client"] as const) {
      const another = await machines.sitDown(name);
      await another.start(psql, "postgres=# ");
      await another.start("select 6 * 7;", "42");
    }
    // As the server sees it, the router has dialled.
    await server.terminal.expect("10.0.1.2:");
  },
);
