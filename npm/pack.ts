/**
 * Packs the programs for npm, as `innerlock-VERSION.tgz` in the caller's folder:
 *
 * ```sh
 * deno task pack
 * npm install -g ./innerlock-0.1.0.tgz
 * innerlock --help
 * ```
 *
 * Each program becomes one file of JavaScript with all that it imports: it needs
 * no cache and no network to run. The package depends on npm's packages of the
 * Deno that has packed it, of which npm installs the one for its system. None of
 * them runs a script when it is installed.
 *
 * @module
 */

import { basename, relative } from "node:path";
import config from "../deno.json" with { type: "json" };

const ROOT = new URL("..", import.meta.url).pathname;

/** The tasks that the package has. */
const TASKS = ["certs", "server", "client", "demo"] as const;

/** The systems for which npm has a Deno. */
const SYSTEMS = [
  "darwin-arm64",
  "darwin-x64",
  "linux-arm64-glibc",
  "linux-x64-glibc",
  "win32-arm64",
  "win32-x64",
];

const PACKAGE = {
  name: "innerlock",
  version: config.version,
  description: "TCP sockets with two locks: TLS outside, AES-256-GCM inside",
  license: config.license,
  type: "module",
  bin: { innerlock: "innerlock.mjs" },
  engines: { node: ">=18" },
  optionalDependencies: Object.fromEntries(
    SYSTEMS.map((system) => [`@deno/${system}`, Deno.version.deno]),
  ),
};

/** What a task runs at last, `deno run … "$ROOT/server.ts"`, in two. */
function split(task: typeof TASKS[number]): { start: string; name: string } {
  const command = config.tasks[task].split(" && ").at(-1)!;
  const [, start, name] = /^(.* )"?(?:\$ROOT\/)?(\S+)\.ts"?$/.exec(command)!;
  return { start: start!, name: name! };
}

/** The tasks of the package, with the variables and the rights of ours. */
function tasks(): Record<string, string> {
  return Object.fromEntries(TASKS.map((task) => {
    const { start, name } = split(task);
    return [task, `${start}${name}.js`];
  }));
}

/** The text of each program, by its path in the package. */
async function bundle(): Promise<Record<string, string>> {
  const { success, errors, outputFiles = [] } = await Deno.bundle({
    entrypoints: TASKS.map((task) => `${ROOT}${split(task).name}.ts`),
    outputDir: ROOT,
    platform: "deno",
    write: false,
  });
  if (!success) throw new Error(errors.map(({ text }) => text).join("; "));
  return Object.fromEntries(outputFiles.map((file) => [
    relative(ROOT, file.path),
    // Who has the package has no tasks, but the command.
    file.text().replaceAll("deno task ", "innerlock "),
  ]));
}

async function main(folder: string): Promise<void> {
  const json = (object: unknown) => JSON.stringify(object, undefined, 2) + "\n";
  const files: Record<string, string> = {
    ...await bundle(),
    "package.json": json(PACKAGE),
    "deno.json": json({ tasks: tasks() }),
  };
  for (const path of ["LICENSE", "README.md", "npm/innerlock.mjs"]) {
    files[basename(path)] = await Deno.readTextFile(ROOT + path);
  }
  const dir = await Deno.makeTempDir({ prefix: "innerlock-pack-" });
  try {
    await Deno.mkdir(`${dir}/demo`);
    for (const [path, text] of Object.entries(files)) {
      await Deno.writeTextFile(`${dir}/${path}`, text);
    }
    const args = ["pack", "--loglevel=error", dir];
    const npm = new Deno.Command("npm", { args, cwd: folder }).spawn();
    const { success } = await npm.status;
    if (!success) throw new Error("npm pack has failed");
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

if (import.meta.main) {
  try {
    // The task gives the caller's folder: Deno.bundle needs the project's.
    await main(Deno.args[0] ?? ".");
  } catch (error) {
    console.error(`pack: ${error instanceof Error ? error.message : error}`);
    Deno.exit(1);
  }
}
