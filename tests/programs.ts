/** Runs the real programs as a user does. */

import config from "../deno.json" with { type: "json" };
import { parseTask } from "../npm/commands.mjs";
import { connect, type ConnectOptions } from "../lib/deno.ts";
import type { Channel } from "../lib/mod.ts";
import { launch, outputOf } from "./limit.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const ROOT = `${import.meta.dirname}/../`;

/** The permissions that it takes to run the programs. */
export const MAY_RUN = ["net", "run", "read", "write"] as const;

export interface Result {
  code: number;
  stdout: Uint8Array<ArrayBuffer>;
  text: string;
  stderr: string;
}

/** The variables that a program's task sets. */
export function environment(task: Task): Record<string, string> {
  return parseTask(config.tasks[task]).env;
}

type Task = "server" | "client" | "certs";

/** A program's command line, with the permissions of its task. */
export function command(task: Task, args: string[]): string[] {
  const { unset, args: [run, ...rights], file } = parseTask(config.tasks[task]);
  const env = unset.flatMap((name) => ["-u", name]);
  return [
    ...(env.length > 0 ? ["env", ...env] : []),
    ...[Deno.execPath(), run!, ...rights, ROOT + file, ...args],
  ];
}

export function start(
  task: Task,
  args: string[],
  env: Record<string, string> = {},
  cwd = ROOT,
): Deno.ChildProcess {
  return spawn(command(task, args), { ...env, ...environment(task) }, cwd);
}

/** Runs a command line, from the project's folder unless another is given. */
export function spawn(
  command: string[],
  env: Record<string, string> = {},
  cwd = ROOT,
): Deno.ChildProcess {
  const [name, ...args] = command;
  return launch(name!, {
    args,
    cwd,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    // No program of a test finds what this user has joined, nor adds to it.
    env: {
      NO_COLOR: "1",
      XDG_CONFIG_HOME: "/nonexistent",
      INNERLOCK_DIR: "",
      ...env,
    },
  });
}

/** The same at a terminal of its own, made by `script`: what it shows. */
export class Terminal implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #output: ReadableStreamDefaultReader<string>;
  #shown = "";

  /**
   * @param task A program, a shell with job control, or any command line.
   * @param redirect What a shell would append, such as `> /dev/null`.
   */
  constructor(
    task: Task | "shell" | string[],
    args: string[] = [],
    redirect = "",
  ) {
    const other = task === "shell" ? ["bash", "--norc", "-i"] : task;
    const isProgram = typeof other === "string";
    const words = isProgram ? command(other, args) : other;
    const quoted = words
      .map((arg) => `'${arg.replaceAll("'", `'\\''`)}'`).join(" ");
    this.#child = launch("script", {
      args: ["-qec", `${quoted} ${redirect}`, "/dev/null"],
      stdin: "piped",
      stdout: "piped",
      env: { NO_COLOR: "1", ...(isProgram && environment(other)) },
    });
    this.#input = this.#child.stdin.getWriter();
    this.#output = this.#child.stdout.pipeThrough(new TextDecoderStream())
      .getReader();
  }

  /**
   * Waits until this is shown, after all that was waited for before.
   *
   * @returns What was shown until then.
   */
  async expect(text: string): Promise<string> {
    while (!this.#shown.includes(text)) {
      const { done, value } = await this.#output.read();
      if (done) throw new Error(`"${text}" is not in "${this.#shown}"`);
      this.#shown += value;
    }
    const end = this.#shown.indexOf(text) + text.length;
    const shown = this.#shown.slice(0, end);
    this.#shown = this.#shown.slice(end);
    return shown;
  }

  async type(keys: string): Promise<void> {
    await this.#input.write(new TextEncoder().encode(keys));
  }

  /** The program's exit code, and the rest of what it showed. */
  async end(): Promise<{ code: number; rest: string }> {
    let rest = this.#shown;
    for (let r; !(r = await this.#output.read()).done;) rest += r.value;
    return { code: (await this.#child.status).code, rest };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#input.close().catch(() => {});
    await this.#output.cancel();
    await this.#child.status;
  }
}

export async function run(
  task: Task,
  args: string[],
  input: string | Uint8Array<ArrayBuffer> = "",
  env: Record<string, string> = {},
  cwd = ROOT,
): Promise<Result> {
  const child = start(task, args, env, cwd);
  const [output] = await Promise.all([
    child.output(),
    new Blob([input]).stream().pipeTo(child.stdin).catch(() => {}),
  ]);
  return {
    code: output.code,
    stdout: output.stdout,
    text: new TextDecoder().decode(output.stdout),
    stderr: new TextDecoder().decode(output.stderr),
  };
}

/** What a log has not said by then it will not say, in milliseconds. */
const PATIENCE = 30_000;

/** A program that listens, and its log as it comes. */
class Program implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #stdout: ReadableStreamDefaultReader<Uint8Array>;
  readonly #reading: Promise<void>;
  #more = Promise.withResolvers<boolean>();
  #log = "";
  /** Up to where {@linkcode logged} has looked. */
  #seen = 0;

  protected constructor(
    child: Deno.ChildProcess,
    stdout: ReadableStreamDefaultReader<Uint8Array>,
  ) {
    this.#child = child;
    this.#stdout = stdout;
    this.#reading = this.#read();
  }

  /** What one that has just been started says first on its stdout. */
  protected static async greeting(child: Deno.ChildProcess) {
    await child.stdin.close();
    const stdout = child.stdout.getReader();
    const { value } = await stdout.read();
    return { stdout, greeting: new TextDecoder().decode(value) };
  }

  get pid(): number {
    return this.#child.pid;
  }

  signal(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  async exitCode(): Promise<number> {
    return (await this.#child.status).code;
  }

  /** Lets it have so many descriptors, until it is told otherwise. */
  async limitDescriptors(count: number): Promise<void> {
    await outputOf("prlimit", {
      args: [`--nofile=${count}:`, "--pid", String(this.pid)],
    });
  }

  /**
   * Its resident memory in MiB, how many descriptors it has open, and how long it
   * has kept a processor busy, in milliseconds.
   */
  async usage(): Promise<
    { memory: number; descriptors: number; busy: number }
  > {
    // Deno itself may not read another process's /proc.
    const script = "awk '/VmRSS/ { print $2 }' /proc/$0/status; " +
      "awk '{ print 10 * ($14 + $15) }' /proc/$0/stat; ls /proc/$0/fd";
    const { stdout } = await outputOf("sh", {
      args: ["-c", script, String(this.pid)],
    });
    const [kib, busy, ...names] = new TextDecoder().decode(stdout).trim()
      .split("\n");
    return {
      memory: Math.round(Number(kib) / 1024),
      descriptors: names.length,
      busy: Number(busy),
    };
  }

  /** Waits until its log says this, after all that was waited for before. */
  async logged(text: string): Promise<void> {
    let at: number;
    const timeout = Promise.withResolvers<boolean>();
    const timer = setTimeout(() => timeout.resolve(false), PATIENCE);
    while ((at = this.#log.indexOf(text, this.#seen)) === -1) {
      if (await Promise.race([this.#more.promise, timeout.promise])) continue;
      clearTimeout(timer);
      throw new Error(`"${text}" is not in "${this.#log}"`);
    }
    clearTimeout(timer);
    this.#seen = at + text.length;
  }

  /** All the time: a full pipe would stop the program. */
  async #read(): Promise<void> {
    const text = this.#child.stderr.pipeThrough(new TextDecoderStream());
    for await (const chunk of text) {
      this.#log += chunk;
      this.#more.resolve(true);
      this.#more = Promise.withResolvers();
    }
    this.#more.resolve(false);
  }

  /** Ends it by a signal, if it has not ended; its exit code and whole log. */
  protected async end(
    signal: Deno.Signal,
  ): Promise<{ code: number; log: string }> {
    try {
      this.#child.kill(signal);
    } catch {
      // It has ended.
    }
    const { code } = await this.#child.status;
    await this.#stdout.cancel();
    await this.#reading;
    return { code, log: this.#log };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end("SIGKILL");
  }
}

/** A running server. */
export class TestServer extends Program {
  private constructor(
    child: Deno.ChildProcess,
    stdout: ReadableStreamDefaultReader<Uint8Array>,
    readonly port: number,
  ) {
    super(child, stdout);
  }

  /** @param port Where it is to listen; 0 takes a free one. */
  static async start(
    args: string[],
    port = 0,
    env: Record<string, string> = {},
  ): Promise<TestServer> {
    const flags = ["--port", String(port), ...args];
    return await TestServer.of(start("server", flags, env));
  }

  /** One that has just been started. */
  static async of(child: Deno.ChildProcess): Promise<TestServer> {
    const { stdout, greeting } = await Program.greeting(child);
    const taken = Number(/^listening on .*:(\d+)\n$/.exec(greeting)?.[1]);
    const server = new TestServer(child, stdout, taken);
    if (taken > 0) return server;
    throw new Error(`The server did not start: ${await server.stop()}`);
  }

  /** Kills it, if it has not ended; its whole log. */
  async stop(): Promise<string> {
    return (await this.end("SIGKILL")).log;
  }
}

/** The real client at a tunnel's near end, or at its far one. */
export class TestEntrance extends Program {
  private constructor(
    child: Deno.ChildProcess,
    stdout: ReadableStreamDefaultReader<Uint8Array>,
    readonly address: { host: string; port: number },
  ) {
    super(child, stdout);
  }

  static async start(
    dir: string,
    port: number,
    listen = "0",
    flags: string[] = [],
  ): Promise<TestEntrance> {
    const args = [...clientFlags(dir, port), "--listen", listen, ...flags];
    return await TestEntrance.of(start("client", args));
  }

  /** One that has just been started. */
  static async of(child: Deno.ChildProcess): Promise<TestEntrance> {
    const { stdout, greeting } = await Program.greeting(child);
    const port = Number(/^listening on .*:(\d+)$/m.exec(greeting)?.[1]);
    const address = { host: "127.0.0.1", port };
    const entrance = new TestEntrance(child, stdout, address);
    if (/^(listening on|exposing) /.test(greeting)) return entrance;
    throw new Error(`The client did not start: ${(await entrance.stop()).log}`);
  }

  /** Asks it to stop; its exit code and whole log. */
  async stop(): Promise<{ code: number; log: string }> {
    return await this.end("SIGTERM");
  }
}

const PORTS = { first: 10_000, count: 22_000 };
let nextPort = Math.floor(Math.random() * PORTS.count);

/**
 * A port where nobody listens, for who must know it before he does. The system
 * gives it to none that takes any port: it deals out higher ones.
 */
export function freePort(): number {
  while (true) {
    const port = PORTS.first + nextPort;
    nextPort = (nextPort + 1) % PORTS.count;
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}

/** What a program prints that has ended well. */
export async function succeeds(result: Promise<Result>): Promise<string> {
  const { code, text, stderr } = await result;
  if (code !== 0) throw new Error(`It exits ${code}: ${stderr}`);
  return text;
}

/** A folder of keys and certificates, made by the real `gen_certs.ts`. */
export async function makeCerts(args: string[] = []): Promise<string> {
  const dir = await Deno.makeTempDir({ prefix: "innerlock-test-" });
  const { code, stderr } = await run("certs", ["--out", dir, ...args]);
  if (code !== 0) throw new Error(stderr);
  return dir;
}

/** A test's work in such a folder, which goes when the work is done. */
export function withCerts(
  work: (dir: string) => Promise<void>,
  args: string[] = [],
): () => Promise<void> {
  return async () => {
    const dir = await makeCerts(args);
    try {
      await work(dir);
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  };
}

/**
 * What defines tests that run the programs, each with such a folder.
 *
 * @param prefix Begins their names.
 * @param args What `gen_certs.ts` is given.
 */
export function programTests(prefix: string, args: string[] = []) {
  return (
    name: string,
    fn: (dir: string) => Promise<void>,
    otherReason?: string,
  ): void =>
    testUnless(
      lacksPermissions(...MAY_RUN) ?? otherReason,
      prefix + name,
      withCerts(fn, args),
    );
}

/** A channel to a server, with what is in such a folder. */
export async function dial(
  dir: string,
  port: number,
  options: Partial<ConnectOptions> = {},
): Promise<Channel> {
  return await connect({
    port,
    caCerts: [await Deno.readTextFile(`${dir}/cert.pem`)],
    psk: await Deno.readTextFile(`${dir}/psk.txt`),
    ...options,
  });
}

/** The flags that point a server, or a client, at such a folder. */
export const serverFlags = (dir: string) => [
  ...["--cert", `${dir}/cert.pem`, "--key", `${dir}/key.pem`],
  ...["--psk", `${dir}/psk.txt`],
];
export const clientFlags = (dir: string, port: number) => [
  ...["--ca", `${dir}/cert.pem`, "--psk", `${dir}/psk.txt`],
  ...["--port", String(port)],
];
