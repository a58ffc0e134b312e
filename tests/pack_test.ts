/** The package, as npm installs it and as its command runs the programs. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { freePort, MAY_RUN, Terminal, TestServer } from "./programs.ts";
import { lacksPermissions, lacksProgram } from "./requirements.ts";

const CONFIG = new URL("../deno.json", import.meta.url).pathname;
const TARBALL = `innerlock-${config.version}.tgz`;

const reason = lacksPermissions(...MAY_RUN) ??
  lacksProgram(["npm", "--version"], "npm") ??
  lacksProgram(["script", "--version"], "script") ??
  lacksProgram(["setsid", "--version"], "setsid");

/** All of it takes a third of that, in milliseconds. */
const TIME_LIMIT = 60_000;

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
    const child = new Deno.Command("setsid", {
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
    }).spawn();
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

/** A Node of the other kind: from 22.15 on the launcher becomes the program. */
async function installOtherNode(user: User): Promise<void> {
  const kind = ["node", "-p", "typeof process.execve"];
  const isNew = await user.print("here", kind) === "function\n";
  const arch = Deno.build.arch === "aarch64" ? "arm64" : "x64";
  const name = `node-${Deno.build.os}-${arch}`;
  const version = isNew ? "20" : "24";
  await user.install("--prefix", `${user.dir}/node`, `${name}@${version}`);
  user.path += `:${user.dir}/node/node_modules/${name}/bin`;
  const installed = await user.print("here", ["node", "--version"]);
  assertStringIncludes(installed, `v${version}.`);
}

Deno.test({
  name: "pack: npm installs one command that runs all programs" +
    (reason ? ` (ignored: ${reason})` : ""),
  ignore: reason !== undefined,
  async fn(t) {
    await using user = await User.create();
    const installed = `${user.prefix}/lib/node_modules/innerlock`;

    await t.step("it is packed into the caller's folder", async () => {
      const { success } = await new Deno.Command(Deno.execPath(), {
        args: ["task", "--quiet", "--config", CONFIG, "pack"],
        env: { INIT_CWD: `${user.dir}/here` },
        stdout: "null",
      }).output();
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

    await t.step("server and client talk", () => talk(user));
    await t.step("the server stops and goes on", () => stopAndGoOn(user));
    await t.step("the same with another Node", async () => {
      await installOtherNode(user);
      await talk(user);
      await stopAndGoOn(user);
    });
  },
});
