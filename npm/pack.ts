/**
 * Packs the programs and the library, into the caller's folder or the one named:
 *
 * - `innerlock-VERSION.tgz` for npm. It depends on npm's packages of the Deno that
 *   has packed it, of which npm installs the one for its system. None of them runs
 *   a script when it is installed.
 * - `innerlock-VERSION-SYSTEM.tar.gz` for machines of this system without Node and
 *   npm: the programs, and this Deno.
 * - `SHA256SUMS` of both.
 *
 * Each program is one file of JavaScript with all that it imports: it needs no
 * cache and no network to run.
 *
 * ```sh
 * deno task pack [FOLDER]
 * npm install -g ./innerlock-0.1.0.tgz
 * innerlock --help
 * ```
 *
 * @module
 */

import { dirname, join, relative, resolve } from "node:path";
import config from "../deno.json" with { type: "json" };
import { COMMANDS, parseTask, USAGE } from "./commands.mjs";
import { translate } from "./library.ts";
import { tarball, type TarFile } from "./tar.ts";

const ROOT = join(import.meta.dirname!, "..");

/** The tasks that the package has. */
const TASKS = ["certs", "server", "client", "demo"] as const;

/** The modules of the library that run anywhere, by what one imports. */
const MODULES = {
  ".": "lib/mod.ts",
  "./websocket": "lib/platform_websocket.ts",
};

/** What people read; of a folder, all but the code that makes it. */
const DOCUMENTS = [
  ...["README.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"],
  ...["docs", "deploy"],
];

/** The examples that need nothing but the library. */
const EXAMPLES = ["examples/node_client.mjs", "examples/node_server.mjs"];

/** The systems for which npm has a Deno. */
const SYSTEMS = [
  "darwin-arm64",
  "darwin-x64",
  "linux-arm64-glibc",
  "linux-x64-glibc",
  "win32-arm64",
  "win32-x64",
];

/** This system, as those of the archives are called. */
const SYSTEM = `${Deno.build.os}-${
  Deno.build.arch === "aarch64" ? "arm64" : "x64"
}`;

const PACKAGE = {
  name: "innerlock",
  version: config.version,
  description: "TCP sockets with two locks: TLS outside, AES-256-GCM inside",
  keywords: [
    ...["tunnel", "encryption", "aes-gcm", "noise", "psk", "tls", "tcp"],
    ...["proxy", "websocket", "end-to-end"],
  ],
  license: config.license,
  type: "module",
  exports: {
    ...Object.fromEntries(
      Object.entries(MODULES).map(([name, path]) => {
        const base = `./${path.replace(/\.ts$/, "")}`;
        return [name, { types: `${base}.d.ts`, default: `${base}.js` }];
      }),
    ),
    "./package.json": "./package.json",
  },
  bin: { innerlock: "innerlock.mjs" },
  sideEffects: false,
  engines: { node: ">=18" },
  optionalDependencies: Object.fromEntries(
    SYSTEMS.map((system) => [`@deno/${system}`, Deno.version.deno]),
  ),
};

type Texts = Record<string, string>;

/** The path of a task's program, in the sources. */
const sourceOf = (task: typeof TASKS[number]) =>
  parseTask(config.tasks[task]).file;

/** The same among what is packed. */
const programOf = (task: typeof TASKS[number]) =>
  sourceOf(task).replace(/\.ts$/, ".js");

/** The tasks of the package, with the variables and the rights of ours. */
function tasks(): Record<string, string> {
  return Object.fromEntries(TASKS.map((task) => {
    const { unset, env, args } = parseTask(config.tasks[task]);
    const before = unset.length > 0 ? `unset ${unset.join(" ")} && ` : "";
    const settings = Object.entries(env).map((pair) => pair.join("=") + " ");
    const start = ["deno", ...args, programOf(task)].join(" ");
    return [task, before + settings.join("") + start];
  }));
}

/** The shell's launcher, which says the same. */
async function launcher(): Promise<string> {
  const commands = Object.entries(COMMANDS).map(([name, [task, ...flags]]) => {
    const { unset, env, args } = parseTask(
      config.tasks[task as typeof TASKS[number]],
    );
    const program = `"$here/${programOf(task as typeof TASKS[number])}"`;
    const words = [...args, program, ...flags, '"$@"'].join(" ");
    return [
      `${name})`,
      "  shift",
      ...unset.map((name) => `  unset ${name}`),
      ...Object.entries(env).map((pair) => `  export ${pair.join("=")}`),
      `  set -- ${words}`,
      "  ;;",
    ].join("\n");
  });
  const parts: Record<string, string> = {
    USAGE,
    VERSION: config.version,
    COMMANDS: commands.join("\n"),
  };
  return (await readText("npm/innerlock.sh"))
    .replaceAll(/@([A-Z]+)@/g, (_, name) => parts[name]!);
}

/** A comment that names a module of an npm package, in Deno's cache. */
const MODULE = /^\/\/ (.*\/npm\/[^/]+\/((?:@[^/]+\/)?[^/]+\/[^/]+))(\/.*)$/gm;

/** The text of each program by its path, and the folders of its packages. */
async function bundle() {
  const { success, errors, outputFiles = [] } = await Deno.bundle({
    entrypoints: TASKS.map((task) => join(ROOT, sourceOf(task))),
    outputDir: ROOT,
    platform: "deno",
    write: false,
  });
  if (!success) throw new Error(errors.map(({ text }) => text).join("; "));
  const texts: Texts = {};
  const packages = new Set<string>();
  for (const file of outputFiles) {
    texts[relative(ROOT, file.path)] = file.text()
      // Nobody needs to know where this machine has its cache.
      .replaceAll(MODULE, (_, folder, name, path) => {
        packages.add(join(ROOT, folder));
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

const readText = (path: string) => Deno.readTextFile(join(ROOT, path));

/** The documents and the examples. */
async function documents(): Promise<TarFile[]> {
  const paths = DOCUMENTS.flatMap((path) =>
    Deno.statSync(join(ROOT, path)).isFile ? [path] : Array.from(
      Deno.readDirSync(join(ROOT, path)),
      ({ name }) => `${path}/${name}`,
    ).filter((path) => !path.endsWith(".ts")).sort()
  );
  const files = paths.map(async (path) => ({
    path,
    data: await Deno.readFile(join(ROOT, path)),
    isProgram: false,
  }));
  const examples = EXAMPLES.map(async (path) => {
    const text = await readText(path);
    return toFile(path, text.replace('"../lib/mod.ts"', '"innerlock"'));
  });
  return await Promise.all([...files, ...examples]);
}

const toFile = (path: string, text: string, isProgram = false): TarFile => ({
  path,
  data: new TextEncoder().encode(text),
  isProgram,
});

const toFiles = (texts: Texts) =>
  Object.entries(texts).map(([path, text]) => toFile(path, text));

const json = (object: unknown) => JSON.stringify(object, undefined, 2) + "\n";

async function main(folder: string): Promise<void> {
  const { texts, packages } = await bundle();
  const others = await notices(packages);
  const shared = [
    ...await documents(),
    ...toFiles({ ...texts, "deno.json": json({ tasks: tasks() }) }),
  ];
  const made = {
    [`innerlock-${config.version}.tgz`]: await tarball("package", [
      ...shared,
      ...toFiles({
        "NOTICES.txt": others,
        "package.json": json(PACKAGE),
        "commands.mjs": await readText("npm/commands.mjs"),
        ...await translate(ROOT, Object.values(MODULES)),
      }),
      toFile("innerlock.mjs", await readText("npm/innerlock.mjs"), true),
    ]),
    [`innerlock-${config.version}-${SYSTEM}.tar.gz`]: await tarball(
      `innerlock-${config.version}-${SYSTEM}`,
      [
        ...shared,
        toFile("NOTICES.txt", `${others}\n${await denoNotice()}`),
        toFile("innerlock", await launcher(), true),
        {
          path: "deno",
          data: await Deno.readFile(Deno.execPath()),
          isProgram: true,
        },
      ],
    ),
  };
  const sums: string[] = [];
  for (const [name, data] of Object.entries(made)) {
    await Deno.writeFile(join(folder, name), data);
    const hash = await crypto.subtle.digest("SHA-256", data);
    sums.push(`${new Uint8Array(hash).toHex()}  ${name}\n`);
    console.log(name);
  }
  await Deno.writeTextFile(join(folder, "SHA256SUMS"), sums.join(""));
}

/** On what terms the archive has Deno, which npm's package of it has beside it. */
async function denoNotice(): Promise<string> {
  const modules = dirname(dirname(dirname(Deno.realPathSync(Deno.execPath()))));
  const name = `deno ${Deno.version.deno}`;
  try {
    return `${name}\n\n${await Deno.readTextFile(`${modules}/deno/LICENSE`)}`;
  } catch {
    return `${name}: MIT, the Deno authors; https://deno.com\n`;
  }
}

if (import.meta.main) {
  try {
    // The task gives the caller's folder: Deno.bundle needs the project's.
    await main(resolve(...Deno.args));
  } catch (error) {
    console.error(`pack: ${error instanceof Error ? error.message : error}`);
    Deno.exit(1);
  }
}
