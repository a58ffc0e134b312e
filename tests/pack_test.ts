/** The package, as npm installs it and as its command runs the programs. */

import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { randomBytes } from "node:crypto";
import { dirname } from "node:path";
import config from "../deno.json" with { type: "json" };
import { launch, outputOf } from "./limit.ts";
import { freePort, MAY_RUN, Terminal, TestServer } from "./programs.ts";
import { lacksPermissions, lacksProgram } from "./requirements.ts";
import { freePlace, HAS_SSHD, run, sshArgs, startSshd } from "./services.ts";
import { KINDS, runWith } from "./stdio.ts";

const CONFIG = `${import.meta.dirname}/../deno.json`;
const TARBALL = `innerlock-${config.version}.tgz`;

/** All of it takes a third of that, in milliseconds. */
const TIME_LIMIT = 600_000;

/** Whoever asks the network asks where nobody answers. */
const OFFLINE = {
  HTTP_PROXY: "http://127.0.0.1:9",
  HTTPS_PROXY: "http://127.0.0.1:9",
  NO_PROXY: "localhost,127.0.0.1",
  npm_config_registry: "http://127.0.0.1:9",
};

/** A user whose home is empty, and who works in `here` and `here/sub`. */
class User implements AsyncDisposable {
  readonly prefix: string;
  /** Where commands are looked for first. */
  path: string;

  /** The process groups of what was started; where all hangs, they are ended. */
  readonly #groups: number[] = [];
  readonly #watchdog = setTimeout(() => {
    for (const group of this.#groups) {
      try {
        Deno.kill(-group, "SIGKILL");
      } catch {
        // It has ended.
      }
    }
  }, TIME_LIMIT);

  private constructor(readonly dir: string) {
    this.prefix = `${dir}/prefix`;
    this.path = `${this.prefix}/bin`;
  }

  static async create(): Promise<User> {
    const dir = await Deno.makeTempDir({ prefix: "innerlock-test-" });
    await Deno.mkdir(`${dir}/home`);
    await Deno.mkdir(`${dir}/here/sub`, { recursive: true });
    return new User(dir);
  }

  start(
    folder: "here" | "here/sub",
    command: string[],
    env: Record<string, string> = OFFLINE,
  ): Deno.ChildProcess {
    const script = 'PATH=$0:$PATH; exec "$@"';
    const child = launch("setsid", {
      args: ["sh", "-c", script, this.path, ...command],
      cwd: `${this.dir}/${folder}`,
      env: {
        HOME: `${this.dir}/home`,
        DENO_DIR: `${this.dir}/home/deno`,
        NO_COLOR: "1",
        npm_config_cache: `${this.dir}/home/npm`,
        ...env,
      },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    });
    this.#groups.push(child.pid);
    return child;
  }

  async run(...args: Parameters<User["start"]>) {
    const child = this.start(...args);
    await child.stdin.close();
    const { code, stdout, stderr } = await child.output();
    const decoder = new TextDecoder();
    return {
      code,
      stdout: decoder.decode(stdout),
      stderr: decoder.decode(stderr),
    };
  }

  /** What a command prints that succeeds, and says no more. */
  async print(...args: Parameters<User["start"]>): Promise<string> {
    const { code, stdout, stderr } = await this.run(...args);
    assertEquals([code, stderr], [0, ""]);
    return stdout;
  }

  async install(...args: string[]): Promise<void> {
    const command = ["npm", "install", "--prefer-offline", ...args];
    const { code, stderr } = await this.run("here", command, {});
    assertEquals(code, 0, stderr);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#watchdog);
    await Deno.remove(this.dir, { recursive: true });
  }
}

const server = (port: number) => [
  ...["innerlock", "server", "--port", String(port)],
  ...["--cert", "keys/cert.pem", "--key", "keys/key.pem"],
  ...["--psk", "keys/psk.txt"],
];

/** One that runs in `here/sub`. */
const client = (port: number, psk: string, ...words: string[]) => [
  ...["innerlock", "client", "--port", String(port)],
  ...["--ca", "../keys/cert.pem", "--psk", `../${psk}/psk.txt`, ...words],
];

/** Paths are the caller's; output, codes and signals the programs'. */
async function talk(user: User): Promise<void> {
  await using running = await TestServer.of(user.start("here", server(0)));
  const { port } = running;
  const reply = await user.print("here/sub", client(port, "keys", "hello"));
  assertEquals(reply, "HELLO\n");
  const refused = await user.run("here/sub", client(port, "wrong", "hello"));
  assertEquals([refused.code, refused.stdout], [3, ""]);
  await running.logged("refused");
  const cert = `${user.dir}/here/keys/cert.pem`;
  const untrusted = await user.run(
    "here/sub",
    client(port, "keys", "hello")
      .map((word) => word.replace("keys/cert.pem", "wrong/cert.pem")),
    { ...OFFLINE, DENO_CERT: cert, NODE_EXTRA_CA_CERTS: cert },
  );
  assertEquals([untrusted.code, untrusted.stdout], [3, ""]);
  const waiting = user.start("here/sub", client(port, "keys"));
  await running.logged("connected");
  waiting.kill("SIGINT");
  const { code, signal } = await waiting.output();
  await waiting.stdin.close().catch(() => {});
  assertEquals([code, signal], [128 + 2, "SIGINT"]);
  running.signal("SIGHUP");
  await running.logged("read again");
  running.signal("SIGTERM");
  await running.logged("stopped");
  assertEquals(await running.exitCode(), 0);
}

/** Ctrl-Z, `fg` and Ctrl-C at a terminal. */
async function stopAndGoOn(user: User): Promise<void> {
  const port = freePort();
  await using terminal = new Terminal("shell");
  await terminal.type("unset HISTFILE\n");
  await terminal.type(`PATH=${user.path}:$PATH; cd ${user.dir}/here\n`);
  await terminal.type(`${server(port).join(" ")}\n`);
  await terminal.expect(`listening on 127.0.0.1:${port}`);
  await terminal.type("\x1a");
  await terminal.expect("Stopped");
  await terminal.type("fg\n");
  // It answers, so Ctrl-C is for it again.
  await user.print("here/sub", client(port, "keys", "hello"));
  await terminal.type("\x03");
  await terminal.expect("stopped");
  await terminal.type("echo code $?; exit\n");
  await terminal.expect("code 0");
  await terminal.end();
}

/** The Nodes that it runs on: from 22.15 on the launcher becomes the program. */
const NODES = ["18", "20", "22", "24"];

const npx = (version: string) => [
  ...["npx", "--offline", "-y", "-p", `node@${version}`],
];

const reason = lacksPermissions(...MAY_RUN) ??
  lacksProgram(["npm", "--version"], "npm") ??
  lacksProgram(["script", "--version"], "script") ??
  lacksProgram(["setsid", "--version"], "setsid") ??
  lacksProgram(["python3", "--version"], "Python") ??
  lacksProgram(["git", "--version"], "git") ??
  lacksProgram(HAS_SSHD, "OpenSSH's server") ??
  NODES.map((version) =>
    lacksProgram([...npx(version), "node", "--version"], `Node ${version}`)
  ).find((reason) => reason !== undefined);

/** Lets another Node run the command. */
async function takeNode(user: User, version: string): Promise<void> {
  // From npm's own cache.
  const { stdout } = await outputOf("npx", {
    args: [...npx(version).slice(1), "which", "node"],
  });
  const bin = dirname(new TextDecoder().decode(stdout));
  user.path = `${user.prefix}/bin:${bin}`;
  const running = await user.print("here", ["node", "--version"]);
  assertStringIncludes(running, `v${version}.`);
}

/** The command line, for who starts it otherwise than {@linkcode User} does. */
const at = (user: User, words: string[]) => [
  ...["sh", "-c", 'PATH=$0:$PATH; exec "$@"', user.path, ...words],
];

/** A server with a service that sends back what it gets, and one for ssh. */
async function startServices(user: User, ssh: number) {
  const echo = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const echoing = (async () => {
    for await (const conn of echo) {
      await conn.readable.pipeTo(conn.writable).catch(() => {});
    }
  })();
  const running = await TestServer.of(user.start("here", [
    ...[...server(0), "--forward", `echo=127.0.0.1:${echo.addr.port}`],
    ...["--forward", `ssh=127.0.0.1:${ssh}`],
  ]));
  return {
    port: running.port,
    async [Symbol.asyncDispose]() {
      await running.stop();
      echo.close();
      await echoing;
    },
  };
}

/** One that runs anywhere. */
const connect = (user: User, port: number, service: string) =>
  client(port, "keys", "--connect", service)
    .map((word) => word.replace("..", `${user.dir}/here`));

/** The command's stdin, stdout and stderr, each of any kind. */
async function keepStdio(user: User, port: number): Promise<void> {
  const command = at(user, connect(user, port, "echo"));
  const length = 1_500_000;
  for (const [kind, reader] of KINDS) {
    // The programs' own tests have the other readers.
    if (reader !== "late" && kind !== "terminal") continue;
    assertEquals(
      [kind, reader, await runWith(kind, reader, length, command, OFFLINE)],
      [kind, reader, {
        ...{ code: 0, isWhole: true, isUntouched: true, stderr: "" },
        received: length,
      }],
    );
  }
  for (const words of [["--help"], ["serve"], ["client", "--version"]]) {
    const touching = at(user, ["innerlock", ...words]);
    const { isUntouched } = await runWith("pipe", "fast", 0, touching, OFFLINE);
    assertEquals([words, isUntouched], [words, true]);
  }
}

/** A word as a shell takes it. */
const quoted = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`;

/** `ssh` and `git` by way of the command. */
async function proxyCommand(
  user: User,
  port: number,
  dir: string,
): Promise<void> {
  const words = at(user, connect(user, port, "ssh"))
    .map(quoted).join(" ");
  const login = (await run(["id", "-un"])).trim();
  const ssh = ["ssh", ...sshArgs(dir), "-o", `ProxyCommand=${words}`];
  await Deno.writeFile(`${dir}/sent`, randomBytes(10_000_000));
  const copy = '"$@" "cat $0" | tee | cmp - "$0"';
  await run(["bash", "-ec", copy, `${dir}/sent`, ...ssh, `${login}@there`]);
  await Deno.writeTextFile(
    `${dir}/ssh`,
    `#!/bin/sh\nexec ${ssh.map(quoted).join(" ")} "$@"\n`,
    { mode: 0o700 },
  );
  const clone = 'rm -rf "$0/repo" "$0/clone"; git init -q "$0/repo"; ' +
    'cp "$0/sent" "$0/repo"; cd "$0/repo"; git add .; ' +
    "git -c user.name=x -c user.email=x@x commit -qm x; " +
    'GIT_SSH="$0/ssh" git clone -q "ssh://$1@there$0/repo" "$0/clone"; ' +
    'cmp "$0/clone/sent" "$0/sent"';
  await run(["bash", "-ec", clone, dir, login]);
}

/** The shell that has run it can still read what is typed. */
async function leaveShell(user: User): Promise<void> {
  await using terminal = new Terminal(at(user, ["bash", "--norc", "-i"]));
  await terminal.type("unset HISTFILE; innerlock certs --version\n");
  await terminal.expect(`innerlock ${config.version}`);
  await terminal.type("innerlock --help | cat | tail -1\n");
  await terminal.expect("lists the flags of a command");
  const flags =
    "import fcntl; print(*[fcntl.fcntl(n, 3) & 2048 for n in (0, 1, 2)])";
  await terminal.type(`python3 -c '${flags}'\n`);
  await terminal.expect("0 0 0");
  await terminal.type("exit\n");
  await terminal.end();
}

/** A program ends when its command is killed. */
async function killIt(user: User): Promise<void> {
  const child = user.start("here", server(0));
  const running = await TestServer.of(child);
  running.signal("SIGKILL");
  await running.exitCode();
  // Nobody has its pipes any more.
  await running.stop();
  await assertRejects(
    () => Deno.connect({ hostname: "127.0.0.1", port: running.port }),
    Deno.errors.ConnectionRefused,
  );
}

/** A Deno that cannot be started. */
async function breakDeno(user: User, installed: string): Promise<void> {
  const os = Deno.build.os;
  const libc = os === "linux" ? "-glibc" : "";
  const arch = Deno.build.arch === "aarch64" ? "arm64" : "x64";
  const deno = `${installed}/node_modules/@deno/${os}-${arch}${libc}/deno`;
  await Deno.rename(deno, `${deno}.kept`);
  for (
    const spoil of [
      () => Deno.writeTextFile(deno, "", { mode: 0o644 }),
      () => Deno.writeTextFile(deno, "", { mode: 0o755 }),
      () => Deno.writeTextFile(deno, "\x7fELF nonsense\0", { mode: 0o755 }),
      () => Deno.symlink("/nowhere", deno),
    ]
  ) {
    await spoil();
    const { code, stdout, stderr } = await user.run("here", [
      ...["innerlock", "certs", "--version"],
    ]);
    assertEquals([code, stdout], [1, ""]);
    assertMatch(stderr, /^innerlock: [^\n]+\n$/);
    await Deno.remove(deno);
  }
  await Deno.rename(`${deno}.kept`, deno);
}

Deno.test({
  name: "pack: npm installs one command that runs all programs" +
    (reason ? ` (ignored: ${reason})` : ""),
  ignore: reason !== undefined,
  async fn(t) {
    await using user = await User.create();
    const installed = `${user.prefix}/lib/node_modules/innerlock`;

    await t.step("it is packed into the caller's folder", async () => {
      const { success } = await outputOf(Deno.execPath(), {
        args: ["task", "--quiet", "--config", CONFIG, "pack"],
        env: { INIT_CWD: `${user.dir}/here` },
        stdout: "null",
      });
      assert(success);
    });

    await t.step("npm installs Deno with it, and no more", async () => {
      await user.install("--global", "--prefix", user.prefix, `./${TARBALL}`);
      const modules = Deno.readDirSync(`${installed}/node_modules`);
      const names = Array.from(modules, ({ name }) => name);
      assertEquals(names.filter((name) => !name.startsWith(".")), ["@deno"]);
    });

    await t.step("a program has the rights of its task, no more", async () => {
      const rights = (task: string) => task.match(/ --\S+/g);
      const text = await Deno.readTextFile(`${installed}/deno.json`);
      const tasks: Record<string, string> = JSON.parse(text).tasks;
      const ours: Record<string, string> = config.tasks;
      for (const [name, task] of Object.entries(tasks)) {
        const command = ours[name]!.split(" && ").at(-1)!;
        assertEquals(rights(task), rights(command));
      }
    });

    await t.step("a program brings nothing of another", async () => {
      const certs = await Deno.readTextFile(`${installed}/gen_certs.js`);
      assertEquals(/^\/\/ (tunnel|npm:@opentelemetry)\//m.test(certs), false);
    });

    await t.step("the command says what it can do", async () => {
      const help = await user.print("here", ["innerlock", "--help"]);
      for (const name of ["certs", "server", "client", "check", "demo"]) {
        assertStringIncludes(help, `\n  ${name} `);
      }
      const version = await user.print("here", ["innerlock", "--version"]);
      assertEquals(version, `innerlock ${config.version}\n`);
      for (const words of [[], ["serve"]]) {
        const wrong = await user.run("here", ["innerlock", ...words]);
        assertEquals([wrong.code, wrong.stdout], [2, ""]);
      }
    });

    await t.step("the programs' help names the command", async () => {
      for (const name of ["certs", "server", "client", "demo"]) {
        const help = await user.print("here", ["innerlock", name, "--help"]);
        assertStringIncludes(help, `innerlock ${name}`);
        assertEquals(help.includes("deno task"), false);
      }
    });

    await t.step("npx runs it", async () => {
      const npx = ["npx", "--yes", `file:${TARBALL}`];
      const command = [...npx, "certs", "--version"];
      const version = await user.print("here", command, {});
      assertEquals(version, `innerlock ${config.version}\n`);
    });

    await t.step("certs writes into the caller's folder", async () => {
      for (const folder of ["keys", "wrong"]) {
        await user.print("here", ["innerlock", "certs", "--out", folder]);
        await Deno.stat(`${user.dir}/here/${folder}/psk.txt`);
      }
    });

    for (const version of NODES) {
      await t.step(`Node ${version}`, async (t) => {
        await takeNode(user, version);
        const sshDir = `${user.dir}/ssh${version}`;
        await Deno.mkdir(sshDir);
        const place = freePlace();
        await using _ = await startSshd(sshDir, place);
        await using services = await startServices(user, place.port);
        await t.step("server and client talk", () => talk(user));
        await t.step("the server stops and goes on", () => stopAndGoOn(user));
        await t.step(
          "stdin, stdout and stderr stay as they are",
          () => keepStdio(user, services.port),
        );
        await t.step("the shell, too", () => leaveShell(user));
        await t.step(
          "ssh and git go through it",
          () => proxyCommand(user, services.port, sshDir),
        );
        await t.step("SIGKILL ends the program", () => killIt(user));
        await t.step(
          "a Deno that cannot be started is one line",
          () => breakDeno(user, installed),
        );
      });
    }
  },
});
