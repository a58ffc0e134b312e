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
import { parseTask } from "./task.mjs";

const ROOT = `${import.meta.dirname}/../`;

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

/** The path of a task's program, in the sources. */
const sourceOf = (task: typeof TASKS[number]) =>
  parseTask(config.tasks[task]).file;

/** The tasks of the package, with the variables and the rights of ours. */
function tasks(): Record<string, string> {
  return Object.fromEntries(TASKS.map((task) => {
    const { unset, env, args, file } = parseTask(config.tasks[task]);
    const before = unset.length > 0 ? `unset ${unset.join(" ")} && ` : "";
    const settings = Object.entries(env).map((pair) => pair.join("=") + " ");
    const program = file.replace(/\.ts$/, ".js");
    const start = ["deno", ...args, program].join(" ");
    return [task, before + settings.join("") + start];
  }));
}

/** A comment that names a module of an npm package, in Deno's cache. */
const MODULE = /^\/\/ (.*\/npm\/[^/]+\/((?:@[^/]+\/)?[^/]+\/[^/]+))(\/.*)$/gm;

/** The text of each program by its path, and the folders of its packages. */
async function bundle() {
  const { success, errors, outputFiles = [] } = await Deno.bundle({
    entrypoints: TASKS.map((task) => ROOT + sourceOf(task)),
    outputDir: ROOT,
    platform: "deno",
    write: false,
  });
  if (!success) throw new Error(errors.map(({ text }) => text).join("; "));
  const texts: Record<string, string> = {};
  const packages = new Set<string>();
  for (const file of outputFiles) {
    texts[relative(ROOT, file.path)] = file.text()
      // Nobody needs to know where this machine has its cache.
      .replaceAll(MODULE, (_, folder, name, path) => {
        packages.add(ROOT + folder);
        return `// npm:${name}${path}`;
      })
      // The package has the command, but no tasks.
      .replaceAll("deno task ", "innerlock ");
  }
  return { texts, packages };
}

/** What the programs contain of others' work, and on what terms. */
async function notices(packages: Iterable<string>): Promise<string> {
  const notices = await Promise.all(Array.from(packages, async (folder) => {
    const { name, version, license, author } = JSON.parse(
      await Deno.readTextFile(`${folder}/package.json`),
    );
    const file = Array.from(Deno.readDirSync(folder), ({ name }) => name)
      .find((name) => /^licen[cs]e/i.test(name));
    const text = file
      ? await Deno.readTextFile(`${folder}/${file}`)
      : `${license}, ${author}\n`;
    return `${name} ${version}\n\n${text}`;
  }));
  return notices.sort().join(`\n${"-".repeat(80)}\n\n`);
}

async function main(folder: string): Promise<void> {
  const json = (object: unknown) => JSON.stringify(object, undefined, 2) + "\n";
  const { texts, packages } = await bundle();
  const files: Record<string, string> = {
    ...texts,
    "NOTICES.txt": await notices(packages),
    "package.json": json(PACKAGE),
    "deno.json": json({ tasks: tasks() }),
  };
  for (
    const path of [
      "LICENSE",
      "README.md",
      "npm/innerlock.mjs",
      "npm/task.mjs",
    ]
  ) {
    files[basename(path)] = await Deno.readTextFile(ROOT + path);
  }
  for (const { name } of Deno.readDirSync(`${ROOT}deploy`)) {
    files[`deploy/${name}`] = await Deno.readTextFile(`${ROOT}deploy/${name}`);
  }
  const dir = await Deno.makeTempDir({ prefix: "innerlock-pack-" });
  try {
    await Deno.mkdir(`${dir}/demo`);
    await Deno.mkdir(`${dir}/deploy`);
    for (const [path, text] of Object.entries(files)) {
      await Deno.writeTextFile(`${dir}/${path}`, text);
    }
    await npmPack(dir, folder);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

async function npmPack(dir: string, folder: string): Promise<void> {
  const args = ["pack", "--loglevel=error", dir];
  let success: boolean;
  try {
    const npm = new Deno.Command("npm", { args, cwd: folder });
    ({ success } = await npm.spawn().status);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new Error("Cannot find npm: install Node");
  }
  if (!success) throw new Error("npm pack has failed");
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
