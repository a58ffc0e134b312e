/** The systemd units: well-formed, tight, and enough for the programs to run. */

import {
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertStringIncludes,
} from "@std/assert";
import { format, parseAddress } from "../tunnel/address.ts";
import { listenPlain, type PlainListener } from "../tunnel/plain.ts";
import { outputOf } from "./limit.ts";
import { ask } from "./plain_peers.ts";
import {
  clientFlags,
  command,
  environment,
  freePort,
  MAY_RUN,
  programTests,
  run,
  spawn,
  TestEntrance,
  TestServer,
} from "./programs.ts";
import { lacksPermissions, lacksProgram, testUnless } from "./requirements.ts";
import { run as output, Service } from "./services.ts";

type Unit = "server" | "client" | "renew";
/** Those that keep running. */
const UNITS = ["server", "client"] as const;

const mayRun = lacksPermissions(...MAY_RUN);

const test = programTests("deploy: ");

const DEPLOY = new URL("../deploy/", import.meta.url);

async function read(unit: Unit): Promise<string> {
  return await Deno.readTextFile(
    new URL(`innerlock-${unit}@.service`, DEPLOY),
  );
}

/** Has systemd look at a unit; what it says. */
async function analyze(
  dir: string,
  unit: Unit,
  ...args: string[]
): Promise<string> {
  const path = `${dir}/innerlock-${unit}@.service`;
  // It looks whether there is such a command.
  const text = (await read(unit)).replace(
    /^ExecStart=[/]usr[/]local\S+/m,
    "ExecStart=/bin/true",
  );
  await Deno.writeTextFile(path, text);
  const { success, stdout, stderr } = await outputOf(
    "systemd-analyze",
    { args: [...args, path], env: { SYSTEMD_COLORS: "0" } },
  );
  const [said, complaints] = [stdout, stderr]
    .map((bytes) => new TextDecoder().decode(bytes));
  assertEquals([success, complaints], [true, ""], said);
  return said!;
}

/** Puts our drop-in beside a unit. */
async function dropIn(dir: string, unit: Unit): Promise<void> {
  const name = "ports-below-1024.conf";
  const folder = `${dir}/innerlock-${unit}@.service.d`;
  await Deno.mkdir(folder);
  await Deno.copyFile(new URL(name, DEPLOY), `${folder}/${name}`);
}

const systemd = mayRun ??
  lacksProgram(["systemd-analyze", "--version"], "systemd-analyze");

test("systemd understands the units, and the drop-in", async (dir) => {
  for (const unit of UNITS) {
    await analyze(dir, unit, "verify");
    await dropIn(dir, unit);
    await analyze(dir, unit, "verify");
  }
  await Deno.copyFile(
    new URL("innerlock-renew@.timer", DEPLOY),
    `${dir}/innerlock-renew@.timer`,
  );
  await analyze(dir, "renew", "verify", `${dir}/innerlock-renew@.timer`);
}, systemd);

test("systemd finds little that the units could still give up", async (dir) => {
  // In tenths of its points: below is better, 100 is a unit that says nothing.
  const limit = ["--offline=true", "--threshold=15"];
  for (const unit of [...UNITS, "renew"] as const) {
    await analyze(dir, unit, "security", ...limit);
  }
}, systemd);

test("the units are tried for ever, but with wrong flags or files, and have a folder for sockets", async () => {
  for (const unit of UNITS) {
    const text = await read(unit);
    for (
      const line of [
        "StartLimitIntervalSec=0",
        "Restart=on-failure",
        "RestartPreventExitStatus=2",
        // For the sockets of --listen.
        "RuntimeDirectory=%p-%i",
        "RuntimeDirectoryMode=0700",
      ]
    ) assertStringIncludes(text, `\n${line}\n`);
  }
});

/** What a unit says for a key, each time, as a shell reads it. */
function lines(unit: string, key: string, places: Places): string[] {
  return Array.from(
    unit.matchAll(new RegExp(`^${key}=(.*)$`, "gm")),
    ([, line]) =>
      line!.replaceAll("/etc/innerlock/%i", places.etc)
        .replaceAll("%C/innerlock/%p-%i", places.cache)
        .replaceAll("/usr/local/bin/innerlock", places.innerlock)
        .replaceAll("%%", "%").replaceAll("$$", "$"),
  );
}

/** Where a unit finds what is elsewhere on a machine that runs systemd. */
interface Places {
  /** /etc/innerlock/NAME */
  etc: string;
  /** The service's folder in /var/cache. */
  cache: string;
  /** The command. */
  innerlock: string;
}

/**
 * Runs a unit's program as systemd would but for the sandbox: with no variables
 * but the unit's, so without a HOME, as on a system that lacks libnss-systemd.
 * What `systemd-notify` is told comes to the log.
 *
 * @param enter What makes the program another user's.
 */
function startUnit(
  unit: string,
  places: Places,
  env: Record<string, string>,
  enter: string[] = [],
): Deno.ChildProcess {
  const [folder] = lines(unit, "WorkingDirectory", places);
  const [start] = lines(unit, "ExecStart", places);
  const variables = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ...lines(unit, "Environment", places),
    ...Object.entries(env).map(([name, value]) => `${name}=${value}`),
  ];
  const notify = 'systemd-notify() { echo "systemd-notify $*" >&2; }; ' +
    "export -f systemd-notify";
  return spawn([
    ...["env", "-i", "-C", folder!, ...variables, ...enter],
    ...["bash", "-c", `${notify} && exec ${start}`],
  ]);
}

/** Where this Deno keeps what it has downloaded. */
async function denoDir(): Promise<string> {
  return JSON.parse(await output([Deno.execPath(), "info", "--json"])).denoDir;
}

/** The same with the program as it is here, and `dir` as the folder of keys. */
async function runUnit(
  unit: typeof UNITS[number],
  dir: string,
  flags: string[],
): Promise<Deno.ChildProcess> {
  const etc = await Deno.makeTempDir({ dir });
  await Deno.symlink(dir, `${etc}/certs`);
  const innerlock = `${etc}/innerlock`;
  const words = command(unit, []).map((word) => `'${word}'`).join(" ");
  const variables = Object.entries(environment(unit))
    .map(([name, value]) => `${name}=${value}`).join(" ");
  // The program as it is here needs the packages that are here.
  await Deno.writeTextFile(
    innerlock,
    `#!/bin/sh
shift
export DENO_DIR='${await denoDir()}' ${variables}
exec ${words} "$@"
`,
    { mode: 0o700 },
  );
  const ARGS = flags.join(" ");
  const places = { etc, cache: `${etc}/cache`, innerlock };
  return startUnit(await read(unit), places, { ARGS });
}

test("the server's unit: it is ready when it listens", async (dir) => {
  const flags = ["--port", "0", "--reuse-port"];
  await using server = await TestServer.of(await runUnit("server", dir, flags));
  const { port } = server;
  await server.logged(
    `systemd-notify --ready --status=listening on 127.0.0.1:${port}\n`,
  );
  const args = [...clientFlags(dir, port), "straße"];
  const { text, stderr } = await run("client", args);
  assertEquals([text, stderr], ["STRASSE\n", ""]);
});

test("the server's unit: exit codes and signals are the program's", async (dir) => {
  const wrong = await runUnit("server", dir, ["--port", "none"]);
  await wrong.stdin.close();
  const { code, stderr } = await wrong.output();
  assertEquals(code, 2);
  assertEquals(new TextDecoder().decode(stderr).includes("--ready"), false);
  const flags = ["--port", "0"];
  await using server = await TestServer.of(await runUnit("server", dir, flags));
  server.signal("SIGHUP");
  await server.logged("read again");
  server.signal("SIGTERM");
  await server.logged("stopped");
  assertEquals(await server.exitCode(), 0);
});

/** What the drop-in leaves a service, in a network of its own. */
const MAY_BIND = [
  ...["unshare", "--net", "setpriv", "--reuid=64321", "--regid=64321"],
  ...["--clear-groups", "--no-new-privs", "--inh-caps=-all,+net_bind_service"],
  ...["--ambient-caps=-all,+net_bind_service"],
  "--bounding-set=-all,+net_bind_service",
];

testUnless(
  mayRun ?? lacksProgram([...MAY_BIND, "true"], "setpriv and unshare by root"),
  "deploy: the drop-in's capability is enough for a port below 1024",
  async () => {
    const text = await Deno.readTextFile(
      new URL("ports-below-1024.conf", DEPLOY),
    );
    const listen = 'Deno.listen({ port: 443, hostname: "0.0.0.0" });';
    for (
      const [words, isEnough] of [
        [MAY_BIND, true],
        [MAY_BIND.map((word) => word.replace(",+net_bind_service", "")), false],
      ] as const
    ) {
      const { success } = await outputOf(words[0]!, {
        args: [...words.slice(1), Deno.execPath(), "eval", listen],
        env: { DENO_DIR: "/nonexistent" },
      });
      assertEquals(success, isEnough);
    }
    assertMatch(text, /^AmbientCapabilities=CAP_NET_BIND_SERVICE$/m);
    assertMatch(text, /^CapabilityBoundingSet=CAP_NET_BIND_SERVICE$/m);
  },
);

const PLACES = {
  "TCP ports": () => "0",
  "Unix sockets": (dir: string, end: string) => `unix:${dir}/${end}`,
};

for (const [name, place] of Object.entries(PLACES)) {
  test(`both units: a tunnel between ${name}`, async (dir) => {
    const backend = await listenPlain(
      parseAddress(place(dir, "far"), "127.0.0.1")!,
    );
    const echoing = echo(backend);
    const forward = ["--port", "0", "--forward", format(backend.address)];
    await using server = await TestServer.of(
      await runUnit("server", dir, forward),
    );
    const near = place(dir, "near");
    const flags = ["--port", String(server.port)];
    await using entrance = await TestEntrance.of(
      await runUnit("client", dir, [...flags, "--listen", near]),
    );
    const at = parseAddress(near) ?? entrance.address;
    assertEquals(await ask(at, "there and back"), "there and back");
    await backend.close();
    await echoing;
  });
}

/** Sends each caller back what it says. */
async function echo(listener: PlainListener): Promise<void> {
  for (let caller; (caller = await listener.accept());) {
    const buffer = new Uint8Array(1000);
    for (let n; (n = await caller.read(buffer)) !== null;) {
      await caller.write(buffer.subarray(0, n));
    }
    await caller.closeWrite();
    caller.close();
  }
}

const README = new URL("../deploy/README.md", import.meta.url);
const CONFIG = `${import.meta.dirname}/../deno.json`;

/** The README's commands in order: where they are typed, and what. */
async function blocks(): Promise<{ where: string; text: string }[]> {
  const text = await Deno.readTextFile(README);
  return Array.from(
    text.matchAll(/^```sh\n# (.*)\n([^]*?)^```$/gm),
    ([, where, text]) => ({ where: where!, text: text! }),
  );
}

/** What only prints what it was asked to do. */
const STUBS = ["apt-get", "systemctl", "journalctl", "useradd"];

/** Root runs services as a user of whom the system knows nothing, no home. */
const NOBODY = "64321";
const AS_NOBODY = [
  ...["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"],
  ...["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"],
];
const lacksRoot = lacksProgram([...AS_NOBODY, "true"], "setpriv by root");

/**
 * The machines that the README is about, where root has a narrow umask, as
 * folders: a server and a client that have one /usr/local, one /opt and one
 * systemd, which does what it is asked to afterwards. Root's services run as
 * another user.
 */
class Machines {
  readonly #server = freePort();
  readonly entrance = { host: "127.0.0.1", port: freePort() };
  #invitation = "";
  readonly #running = new Map<string, TestServer | TestEntrance>();

  constructor(readonly dir: string, readonly backend: number) {
    const places = ["usr/bin", "opt", "system", "cache", "server", "client"];
    for (const name of ["bin", ...places]) {
      Deno.mkdirSync(`${dir}/${name}`, { recursive: true });
    }
    for (const stub of STUBS) {
      const script = '#!/bin/sh\necho "${0##*/} $*" >&2\n';
      Deno.writeTextFileSync(`${dir}/bin/${stub}`, script, { mode: 0o700 });
    }
  }

  /** Types a block, and has systemd do what the block asked of it. */
  async type(where: string, text: string): Promise<void> {
    const machine = where.endsWith("client") ? "client" : "server";
    const { dir } = this;
    const port = machine === "client" ? this.entrance.port : this.backend;
    const script = text
      .replace(
        "npx -y deno@2.9.6 task",
        `'${Deno.execPath()}' task --config '${CONFIG}'`,
      )
      .replaceAll("/etc/systemd/system", `${dir}/system`)
      .replaceAll("/etc/innerlock", `${dir}/${machine}`)
      .replaceAll(
        " -o innerlock -g innerlock",
        lacksRoot ? "" : ` -o ${NOBODY} -g ${NOBODY}`,
      )
      .replaceAll("/usr/local", `${dir}/usr`)
      .replaceAll("/opt", `${dir}/opt`)
      .replaceAll("server.example", "localhost")
      .replaceAll("0.0.0.0", `127.0.0.1 --port ${this.#server}`)
      .replaceAll(/--invite \S+/g, `$& --port ${this.#server}`)
      .replaceAll("5432", String(port));
    const child = spawn(["bash", "-ec", `umask 077\ncd '${dir}'\n${script}`], {
      PATH: `${dir}/bin:${dir}/usr/bin:${await path()}`,
      INIT_CWD: dir,
    });
    const [{ code, ...output }] = await Promise.all([
      child.output(),
      new Blob([this.#invitation]).stream().pipeTo(child.stdin).catch(() => {}),
    ]);
    const decoder = new TextDecoder();
    const [stdout, stderr] = [output.stdout, output.stderr]
      .map((bytes) => decoder.decode(bytes));
    assertEquals(code, 0, `${text}${stdout}${stderr}`);
    this.#invitation = /^innerlock-1\..*\n/m.exec(stdout!)?.[0] ?? "";
    // What is running sees what certs has changed, without being told.
    const hasChanged = /^innerlock certs /m.test(text);
    if (hasChanged) await this.#running.get(machine)?.logged("read again");
    for (const [, words] of stderr!.matchAll(/^systemctl (.*)$/gm)) {
      await this.#control(words!);
    }
  }

  async #control(words: string): Promise<void> {
    if (words === "daemon-reload") return;
    if (words === "enable --now innerlock-renew@db.timer") {
      return await this.#renew();
    }
    const [, unit] = /^(?:enable --now|restart) innerlock-(server|client)@db$/
      .exec(words)!;
    const running = this.#running.get(unit!);
    if (running) await end(running);
    const child = await this.#unit(unit as Unit);
    const program = unit === "server" ? TestServer : TestEntrance;
    this.#running.set(unit!, await program.of(child));
  }

  /** Starts a unit that has been installed. */
  async #unit(unit: Unit): Promise<Deno.ChildProcess> {
    const machine = unit === "client" ? "client" : "server";
    const etc = `${this.dir}/${machine}/db`;
    const cache = `${this.dir}/cache/${unit}`;
    const places = { etc, cache, innerlock: `${this.dir}/usr/bin/innerlock` };
    const file = `${this.dir}/system/innerlock-${unit}@.service`;
    const text = await Deno.readTextFile(file);
    const owner = lacksRoot ? [] : ["-o", NOBODY];
    await output(["install", "-d", ...owner, cache]);
    const variables = (await Deno.readTextFile(`${etc}/env`)).matchAll(
      /^(\w+)=(.*)$/gm,
    );
    const env = Array.from(variables, ([, name, value]) => [name, value]);
    const enter = lacksRoot ? [] : AS_NOBODY;
    return startUnit(text, places, Object.fromEntries(env), enter);
  }

  /** As the timer does when the month is over. */
  async #renew(): Promise<void> {
    const certificate = `${this.dir}/server/db/certs/cert.pem`;
    const before = await Deno.readTextFile(certificate);
    const renewing = await this.#unit("renew");
    await renewing.stdin.close();
    const { code, stderr } = await renewing.output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
    assertNotEquals(await Deno.readTextFile(certificate), before);
    await this.#running.get("server")!.logged("read again");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(Array.from(this.#running.values(), end));
  }
}

/** Asks first: where the command has a child, that would outlive it. */
async function end(program: TestServer | TestEntrance): Promise<void> {
  program.signal("SIGTERM");
  await program.exitCode();
  await program[Symbol.asyncDispose]();
}

/** Where commands are. */
async function path(): Promise<string> {
  return await output(["sh", "-c", 'printf %s "$PATH"']);
}

/** The ways to install the command, and what the machine needs for it. */
const WAYS = {
  "with Node": mayRun ?? lacksProgram(["npm", "--version"], "npm"),
  "without Node": mayRun,
};

for (const [way, reason] of Object.entries(WAYS)) {
  test(
    `the README's commands lead to a tunnel, and keep it, ${way}`,
    async (dir) => {
      const backend = await listenPlain({ host: "127.0.0.1", port: 0 });
      const echoing = echo(backend);
      {
        const { port } = backend.address as { port: number };
        await Deno.chmod(dir, 0o711);
        await Deno.mkdir(`${dir}/machines`);
        await using machines = new Machines(`${dir}/machines`, port);
        let isRunning = false;
        for (const { where, text } of await blocks()) {
          // Its programs are HAProxy's own.
          if (where === "on the box") continue;
          if (where.startsWith("on both, ") && !where.endsWith(way)) continue;
          await machines.type(where, text);
          isRunning ||= text.includes("enable --now innerlock-client@db");
          // Until the client joins again, it trusts another certificate.
          const isBetween = text.includes("--new-key");
          if (!isRunning || isBetween) continue;
          assertEquals(await ask(machines.entrance, text), text);
        }
        assertEquals(isRunning, true);
      }
      await backend.close();
      await echoing;
    },
    reason,
  );
}

/**
 * HAProxy's environment, with a value for each name that its file has.
 *
 * @param port Where all its servers are.
 */
async function boxEnvironment(
  dir: string,
  config: string,
  port: number,
): Promise<string> {
  const read = (name: string) => Deno.readTextFile(`${dir}/${name}`);
  const pem = await read("cert.pem") + await read("key.pem");
  await Deno.writeTextFile(`${dir}/box.pem`, pem, { mode: 0o600 });
  const files: Record<string, string> = {
    INNERLOCK_ADMIN: `${dir}/admin.sock`,
    INNERLOCK_PEM: `${dir}/box.pem`,
    INNERLOCK_CA: `${dir}/cert.pem`,
  };
  const valueOf = (name: string) =>
    files[name] ?? `127.0.0.1:${/\d$/.test(name) ? port : freePort()}`;
  const names = new Set(config.match(/(?<=\$\{)\w+/g));
  return Array.from(names, (name) => `${name}=${valueOf(name)}\n`).join("");
}

const box = mayRun ?? lacksProgram(["haproxy", "-v"], "haproxy") ??
  lacksProgram(["socat", "-V"], "socat");

test(
  "the README's commands check HAProxy, drain a server, and take it back",
  async (dir) => {
    const config = await Deno.readTextFile(
      new URL("../deploy/haproxy.cfg", import.meta.url),
    );
    await Deno.writeTextFile(`${dir}/haproxy.cfg`, config);
    // Whoever listens passes HAProxy's health check.
    using server = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const environment = await boxEnvironment(dir, config, server.addr.port);
    await Deno.writeTextFile(`${dir}/haproxy`, environment);
    const type = (text: string) => {
      const stubs = STUBS.map((stub) => `${stub}() { :; }\n`).join("");
      const here = text
        .replaceAll(/\/etc\/haproxy|\/etc\/default|\/run\/haproxy/g, dir);
      return output(["bash", "-ec", stubs + here]);
    };
    const typed = (await blocks()).filter(({ where }) =>
      where === "on the box"
    );
    const [install, check, drain, ready] = typed.map(({ text }) => text);
    await type(install!);
    assertStringIncludes(await type(check!), "Configuration file is valid");
    const start =
      `set -a; . ${dir}/haproxy; exec haproxy -f ${dir}/haproxy.cfg`;
    const address = { path: `${dir}/admin.sock` };
    await using _ = await Service.start(["bash", "-c", start], address);
    assertMatch(await type(drain!), /^servers,one,.*,DRAIN,/m);
    await type(ready!);
    assertMatch(await ask(address, "show stat\n"), /^servers,one,.*,UP,/m);
  },
  box,
);

test("the README and the alerts name the metrics that there are", async () => {
  const there = (path: string) =>
    Deno.readTextFile(new URL(`../${path}`, import.meta.url));
  const source = await there("cli/server/metrics.ts");
  const names = source.match(/(?<=")innerlock\.[\w.]+(?=")/g)!;
  const readme = await there("deploy/README.md");
  const rows = readme.matchAll(/^\| `(innerlock\.[\w.]+)`\s+\| `(\w+)/gm);
  const table = new Map(Array.from(rows, ([, ours, theirs]) => [ours, theirs]));
  assertEquals([...table.keys()].sort(), [...names].sort());
  const rules = await there("deploy/prometheus-rules.yaml");
  for (const name of rules.match(/innerlock_\w+/g)!) {
    assertEquals([...table.values()].includes(name), true, name);
  }
});
