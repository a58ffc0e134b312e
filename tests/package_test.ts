/** What `task pack` and `deno publish` give, as a stranger uses it. */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { dirname, join } from "node:path";
import config from "../deno.json" with { type: "json" };
import { CHROMIUM, Chromium } from "./chromium.ts";
import { MAY_RUN, withCerts } from "./programs.ts";
import { outputOf } from "./limit.ts";
import { lacksPermissions, lacksProgram, testUnless } from "./requirements.ts";
import { run } from "./services.ts";

const ROOT = `${import.meta.dirname}/..`;
const TESTDATA = `${import.meta.dirname}/testdata`;
const SYSTEM = `${Deno.build.os}-${
  Deno.build.arch === "aarch64" ? "arm64" : "x64"
}`;
const ARCHIVE = `innerlock-${config.version}-${SYSTEM}`;

const npx = (pack: string, ...command: string[]) => [
  ...["timeout", "120", "npx", "--offline", "-y", "-p", pack, ...command],
];
const TSC = npx("typescript@5.9", "tsc");

const mayRun = lacksPermissions(...MAY_RUN);

/** Packs a project's folder into another, under a narrow umask. */
async function pack(project: string, folder: string): Promise<void> {
  const task = 'umask 077; exec "$0" task --quiet --config "$1/deno.json" pack';
  await run([
    ...["env", `INIT_CWD=${folder}`, "timeout", "300"],
    ...["sh", "-c", task, Deno.execPath(), project],
  ]);
}

/** A stranger's folder with the package in `node_modules`. */
async function withPackage(
  work: (dir: string) => Promise<void>,
): Promise<void> {
  const dir = await Deno.makeTempDir({ prefix: "innerlock-test-" });
  try {
    await pack(ROOT, dir);
    const installed = `${dir}/node_modules/innerlock`;
    await Deno.mkdir(installed, { recursive: true });
    const tarball = `${dir}/innerlock-${config.version}.tgz`;
    await run([
      ...["tar", "xzf", tarball, "-C", installed, "--strip-components=1"],
    ]);
    await Deno.writeTextFile(`${dir}/package.json`, '{ "type": "module" }');
    await work(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

/** The relative links of a page that lead nowhere. */
async function deadLinks(root: string, pages: string[], has: Set<string>) {
  const dead: string[] = [];
  for (const page of pages) {
    const text = await Deno.readTextFile(join(root, page));
    for (const [, link] of text.matchAll(/\]\(([^)#]+)[^)]*\)/g)) {
      if (/^[a-z]+:/.test(link!)) continue;
      const to = join(dirname(page), link!);
      const isThere = has.has(to) ||
        [...has].some((path) => path.startsWith(`${to.replace(/\/$/, "")}/`));
      if (!isThere) dead.push(`${page}: ${link}`);
    }
  }
  return dead;
}

async function filesIn(dir: string): Promise<string[]> {
  const text = await run(["sh", "-c", 'cd "$0" && find . -type f', dir]);
  return text.trim().split("\n").map((path) => path.slice(2));
}

testUnless(
  mayRun ?? lacksProgram([...TSC, "--version"], "TypeScript"),
  "package: what a stranger takes from npm's",
  () =>
    withPackage(async (dir) => {
      const installed = `${dir}/node_modules/innerlock`;
      const files = await filesIn(installed);

      await run([
        "sh",
        "-c",
        'cd "$0" && sha256sum -c --strict SHA256SUMS',
        dir,
      ]);
      // Whoever packs with a narrow umask packs for others all the same.
      const unreadable = [
        "find",
        installed,
        "-type",
        "f",
        "!",
        "-perm",
        "-044",
      ];
      assertEquals(await run(unreadable), "");

      const pages = files.filter((path) => path.endsWith(".md"));
      assertEquals(await deadLinks(installed, pages, new Set(files)), []);

      // The comments' examples import what the package has.
      const declared = await run([
        ...["sh", "-c", 'cd "$0" && cat lib/*.d.ts lib/*/*.d.ts', installed],
      ]);
      const names = declared.matchAll(/ \* import .* from "([^"]+)"/g);
      assertEquals(
        new Set(Array.from(names, ([, name]) => name)),
        new Set(["innerlock", "innerlock/websocket", ON_DENO]),
      );

      // A bundler that needs nothing of it takes nothing.
      const { sideEffects } = JSON.parse(
        await Deno.readTextFile(`${installed}/package.json`),
      );
      assertEquals(sideEffects, false);

      await Deno.copyFile(`${TESTDATA}/stranger.mjs.txt`, `${dir}/use.mjs`);
      await runtimes(dir);
      await browser(dir);
      await types(dir);
    }),
);

/** What an example says of Deno. */
const ON_DENO = "@innerlock/innerlock/deno";

/** What `use.mjs` says when both roles have met. */
const OUTCOME = "1000000 function";

/** The library in each runtime, and the examples in it. */
async function runtimes(dir: string): Promise<void> {
  // Node 18 has WebCrypto, but not unasked.
  const node18 = npx("node@18", "node");
  const flag = "--experimental-global-webcrypto";
  for (
    const runtime of [
      [...node18, "--no-warnings", flag],
      npx("node@20", "node"),
      npx("node@22", "node"),
      npx("node@24", "node"),
      npx("bun@1", "bun"),
    ]
  ) {
    if (lacksProgram([...runtime, "--version"], "it")) continue;
    assertEquals(await run([...runtime, `${dir}/use.mjs`]), `${OUTCOME}\n`);
    await withCerts(async (certs) => {
      const examples = `${dir}/node_modules/innerlock/examples`;
      const script = `${TESTDATA}/node_examples.sh`;
      const said = await run(["sh", script, examples, certs, ...runtime]);
      assertEquals(said, "GRÜSSE\n");
    })();
  }
  if (lacksProgram([...node18, "--version"], "Node 18")) return;
  const { stderr } = await outputOf(node18[0]!, {
    args: [...node18.slice(1), `${dir}/use.mjs`],
  });
  assertStringIncludes(new TextDecoder().decode(stderr), `needs ${flag}\n`);
}

/** In one file that imports nothing: alone, and in a browser. */
async function browser(dir: string): Promise<void> {
  const bundle = 'cd "$1" && exec "$0" bundle --quiet --platform browser "$2"';
  const bundled = await run([
    ...["sh", "-c", bundle, Deno.execPath(), dir, "use.mjs"],
  ]);
  assertEquals(/^import /m.test(bundled), false);
  await Deno.writeTextFile(`${dir}/bundle.mjs`, bundled);
  const alone = [Deno.execPath(), "run", "--no-prompt", `${dir}/bundle.mjs`];
  assertEquals(await run(alone), `${OUTCOME}\n`);
  if (lacksProgram(CHROMIUM, "chromium")) return;
  const html = "<!doctype html><title>test</title>";
  const serve = (request: Request) =>
    request.url.endsWith("/bundle.mjs")
      ? new Response(bundled, {
        headers: { "content-type": "text/javascript" },
      })
      : new Response(html, { headers: { "content-type": "text/html" } });
  const options = { hostname: "127.0.0.1", port: 0, onListen: () => {} };
  await using server = Deno.serve(options, serve);
  await using chromium = await Chromium.start();
  const page = await chromium.open(`http://127.0.0.1:${server.addr.port}/`);
  const outcome = await page.evaluate(
    'import("/bundle.mjs").then(() => globalThis.outcome)',
  );
  assertEquals([outcome, page.complaints], [OUTCOME, []]);
}

/** How a project may find modules. */
const NODE = { module: "nodenext" };
const BUNDLER = { module: "esnext", moduleResolution: "bundler" };

/** The types, under whatever a project says. */
async function types(dir: string): Promise<void> {
  const names = ["stranger.ts", "stranger_dom.ts", "stranger_node.ts"];
  for (const name of names) {
    await Deno.copyFile(`${TESTDATA}/${name}.txt`, `${dir}/${name}`);
  }
  await run([
    ...["sh", "-c", 'cd "$0" && exec timeout 120 npm install "$@"', dir],
    ...["--prefer-offline", "--no-save", "--no-package-lock"],
    ...["--silent", "--prefix", "types", "@types/node@22"],
  ]);
  for (
    const [target, lib, types, how] of [
      ["es2022", ["es2022", "dom"], [], NODE],
      ["es2022", ["es2022"], ["node"], NODE],
      ["es2022", ["es2022", "dom"], [], BUNDLER],
      ["es2024", ["es2024", "dom"], [], BUNDLER],
      ["es2024", ["es2024"], ["node"], BUNDLER],
      ["esnext", ["esnext", "dom"], ["node"], NODE],
    ] as const
  ) {
    const settings = {
      compilerOptions: {
        ...{ noEmit: true, strict: true, skipLibCheck: false },
        ...{ exactOptionalPropertyTypes: true, target, lib, types },
        ...{ ...how, typeRoots: ["types/node_modules/@types"] },
      },
      files: [
        names[0],
        ...((lib as readonly string[]).includes("dom") ? [names[1]] : []),
        ...(types.length > 0 ? [names[2]] : []),
      ],
    };
    await Deno.writeTextFile(`${dir}/tsconfig.json`, JSON.stringify(settings));
    const { stdout } = await outputOf(TSC[0]!, {
      args: [...TSC.slice(1), "-p", dir],
    });
    const said = new TextDecoder().decode(stdout);
    assertEquals([settings.compilerOptions, said], [
      settings.compilerOptions,
      "",
    ]);
  }
}

testUnless(
  mayRun,
  "package: what JSR gets has no dead link",
  async () => {
    const { stdout, stderr } = await outputOf(Deno.execPath(), {
      args: ["publish", "--dry-run", "--allow-dirty", "--no-check"],
      cwd: ROOT,
      env: { NO_COLOR: "1" },
    });
    const decoder = new TextDecoder();
    const said = decoder.decode(stdout) + decoder.decode(stderr);
    const files = Array.from(
      said.matchAll(/file:\/\/(\S+) \(/g),
      ([, path]) => decodeURI(path!).split("/").slice(ROOT_DEPTH).join("/"),
    );
    assertEquals(files.includes("lib/mod.ts"), true, said);
    const pages = files.filter((path) => path.endsWith(".md"));
    assertEquals(await deadLinks(ROOT, pages, new Set(files)), []);
  },
);

/** How many folders stand before a file's path in the project. */
const ROOT_DEPTH = join(ROOT).split("/").length;

const noRoot = lacksProgram(
  ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"],
  "unshare, for root,",
);

testUnless(
  mayRun ?? noRoot ?? lacksProgram(["openssl", "version"], "openssl"),
  "package: the archive runs on a machine that has nothing else",
  async () => {
    const dir = await Deno.makeTempDir({ prefix: "innerlock test ü " });
    try {
      const project = `${dir}/the projeçt`;
      await Deno.mkdir(project);
      const copy = 'cd "$0" && git ls-files -z -co --exclude-standard | ' +
        'tar c --null -T - | tar x -C "$1"';
      await run(["bash", "-o", "pipefail", "-c", copy, ROOT, project]);
      await pack(project, dir);
      const script = `${TESTDATA}/bare_machine.sh`;
      const printed = await run([
        ...["timeout", "120", "unshare", "--mount", "--fork"],
        ...["sh", script, `${dir}/${ARCHIVE}.tar.gz`, ARCHIVE],
      ]);
      assertEquals(printed.trim().split("\n").at(-1), "HELLO");
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  },
);
