/** Where the programs look for their files, from whatever folder. */

import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { UsageError } from "../cli/advice/errors.ts";
import { clientFolders, joinFolder, serverFolder } from "../cli/folders.ts";
import { printed } from "./limit.ts";
import { MAY_RUN, type Result, run, succeeds, TestServer } from "./programs.ts";
import { lacksPermissions, testInFolder } from "./requirements.ts";

Deno.test("clientFolders: certs here, then the user's own, unless one is named", () => {
  const here = `${Deno.cwd()}/certs`;
  const HOME = "/home/al";
  const own = "/home/al/.config/innerlock";
  for (
    const [named, variables, folders] of [
      [undefined, {}, [here]],
      [undefined, { HOME }, [here, own]],
      [undefined, { HOME, XDG_CONFIG_HOME: "/x" }, [here, "/x/innerlock"]],
      // The specification says so of paths that are not absolute.
      [undefined, { HOME, XDG_CONFIG_HOME: "x" }, [here, own]],
      [undefined, { HOME: "al" }, [here]],
      [undefined, { HOME, INNERLOCK_DIR: "/keys" }, ["/keys"]],
      ["/mine", { HOME, INNERLOCK_DIR: "/keys" }, ["/mine"]],
    ] as const
  ) assertEquals(clientFolders(named, variables), [...folders]);
});

Deno.test("serverFolder, joinFolder: what is named, or else their own", () => {
  const variables = { HOME: "/home/al", INNERLOCK_DIR: "/keys" };
  assertEquals(serverFolder("mine", variables), "mine");
  assertEquals(serverFolder(undefined, variables), "/keys");
  assertEquals(serverFolder(undefined, { HOME: "/home/al" }), "certs");
  assertEquals(joinFolder("mine", variables), "mine");
  assertEquals(joinFolder(undefined, variables), "/keys");
  const own = joinFolder(undefined, { HOME: "/home/al" });
  assertEquals(own, "/home/al/.config/innerlock");
  assertThrows(() => joinFolder(undefined, {}), UsageError, "--out DIR");
});

/** A machine's user: folders to work in, and variables. */
interface User {
  dir: string;
  env: Record<string, string>;
}

function test(name: string, fn: (user: User) => Promise<void>): void {
  const reason = lacksPermissions(...MAY_RUN);
  testInFolder(reason, `folders: ${name}`, async (folder) => {
    const dir = `${folder}/with a space`;
    for (const name of ["server", "here", "home"]) {
      await Deno.mkdir(`${dir}/${name}`, { recursive: true });
    }
    await fn({ dir, env: { HOME: `${dir}/home`, XDG_CONFIG_HOME: "" } });
  });
}

async function fails(result: Promise<Result>): Promise<string> {
  const { code, text, stderr } = await result;
  assertEquals([code, text, stderr.split("\n").length], [2, "", 2], stderr);
  return stderr;
}

/** Deno's own folder is in the home of who runs the tests. */
const DENO_DIR = await denoDir();
async function denoDir(): Promise<string> {
  if (lacksPermissions(...MAY_RUN)) return "";
  return JSON.parse(await printed([Deno.execPath(), "info", "--json"])).denoDir;
}

test("a server that was joined is found from everywhere", async ({ dir, env }) => {
  const at = (
    folder: string,
    task: "certs" | "client",
    args: string[],
    input = "",
    more: Record<string, string> = {},
  ) =>
    run(task, args, input, { DENO_DIR, ...env, ...more }, `${dir}/${folder}`);
  const out = ["--out", `${dir}/server/certs`];
  await succeeds(at("server", "certs", []));
  const server = await TestServer.start(
    ["--dir", `${dir}/server/certs`],
    0,
  );
  await using _ = server;
  const invite = async (name: string) => {
    const port = ["--port", `${server.port}`];
    const args = [...out, "--invite", name, ...port];
    const line = await succeeds(at("server", "certs", args));
    await server.logged("read again");
    return line;
  };
  assertMatch(
    await succeeds(at("here", "client", ["--list"])),
    /^no server was joined: there is none in .*\/here\/certs or .*\/home\/\.config\/innerlock; /,
  );
  const alice = await invite("alice");
  const own = `${dir}/home/.config/innerlock`;
  assertEquals(
    await succeeds(at("here", "certs", ["--join"], alice)),
    `joined localhost:${server.port} as alice, in ${own}\n` +
      "try it: deno task client --check\n",
  );
  await succeeds(at("here", "certs", ["--join", "--as", "office"], alice));
  assertEquals((await Deno.stat(own)).mode! & 0o777, 0o700);
  for (const folder of ["here", "home", "server/.."]) {
    assertEquals(await succeeds(at(folder, "client", ["x"])), "X\n");
  }
  assertMatch(
    await succeeds(at("here", "client", ["--server", "office", "--check"])),
    /✓ round trip/,
  );
  // What is here comes first, and the advice after --join knows.
  const bob = await invite("bob@db");
  const here = `${dir}/here/certs`;
  await succeeds(at("here", "certs", ["--join", "--out", "certs"], bob));
  assertEquals((await at("here", "client", ["x"])).code, 1);
  const again = await succeeds(at("here", "certs", ["--join"], alice));
  const [, words] = /^try it: deno task client (.*)$/m.exec(again)!;
  assertEquals(words, `--dir ${own} --check`);
  const inHere = ["--dir", own, "x"];
  assertEquals(await succeeds(at("here", "client", inHere)), "X\n");
  const variable = { INNERLOCK_DIR: own };
  assertEquals(
    await succeeds(at("here", "client", ["x"], "", variable)),
    "X\n",
  );
  const until = String.raw`until \d{4}-\d\d-\d\d unless the server renews`;
  assertMatch(
    await succeeds(at("here", "client", ["--list"])),
    new RegExp(
      String
        .raw`^\(no name\): localhost:${server.port} as bob@db, ${until}, in ${here}
\(no name\): localhost:${server.port} as alice, ${until}, in ${own}
--server office: localhost:${server.port} as alice, ${until}, in ${own}/office
$`,
    ),
  );
  assertEquals(
    await succeeds(at("server", "certs", ["--list"])),
    "default: every service\nalice: every service\n" +
      "bob@db: the service db\n",
  );
});

test("whoever is in the wrong folder is told where it looked", async ({ dir, env }) => {
  const at = (task: "certs" | "client" | "server", ...args: string[]) =>
    run(task, args, "", { DENO_DIR, ...env }, `${dir}/here`);
  const certs = `${dir}/here/certs`;
  assertEquals(
    await fails(at("server")),
    `server: Cannot read ${certs}/psk.txt: there is no such file; start the ` +
      "server where its folder certs is, or name that folder with --dir; for " +
      "a new server, 'deno task certs' makes one\n",
  );
  assertEquals(
    await fails(at("client", "x")),
    `client: Cannot read ${certs}/psk.txt: there is no such file; nothing is ` +
      `in ${dir}/home/.config/innerlock either; join the server with 'deno ` +
      "task certs --join', or name the folder that has its files with --dir\n",
  );
  const elsewhere = { DENO_DIR, ...env, INNERLOCK_DIR: `${dir}/else` };
  assertMatch(
    await fails(run("server", [], "", elsewhere, `${dir}/here`)),
    new RegExp(`^server: Cannot read ${dir}/else/psk.txt: there is no such`),
  );
  assertMatch(
    await fails(run("certs", ["--list"], "", elsewhere, `${dir}/here`)),
    new RegExp(`^certs: There is no ${dir}/else/psk.txt; run this where`),
  );
  for (
    const flags of [
      ["--renew"],
      ["--renew", "--new-key"],
      ["--revoke", "alice"],
      ["--rekey", "alice"],
      ["--list"],
    ]
  ) {
    const said = await fails(at("certs", ...flags));
    assertMatch(said, /^certs: There is no \/.*\/here\/certs[;/]/);
    assertMatch(said, /run this where the server's folder certs is, or name/);
  }
  assertEquals(Array.from(Deno.readDirSync(`${dir}/here`)), []);
  await Deno.mkdir(certs);
  for (const flags of [["--renew"], ["--revoke", "alice"]]) {
    assertMatch(
      await fails(at("certs", ...flags)),
      /^certs: There is no \/.*\/certs\/(cert\.pem|psk\.txt); run this where/,
    );
  }
  // Nothing was made by the way.
  assertEquals(Array.from(Deno.readDirSync(certs)), []);
});
