/** Runs the real programs as a user does. */

import config from "../deno.json" with { type: "json" };

const ROOT = new URL("..", import.meta.url).pathname;

/** Whether this run may start programs; else why their tests are ignored. */
export const mayRun = (["net", "run", "read", "write"] as const).every((name) =>
  Deno.permissions.querySync({ name }).state === "granted"
);
export const why = mayRun
  ? ""
  : " (ignored: needs --allow-net, -run, -read and -write)";

export interface Result {
  code: number;
  stdout: Uint8Array<ArrayBuffer>;
  text: string;
  stderr: string;
}

/** The permissions that a program's task grants. */
function permissions(task: "server" | "client" | "certs"): string[] {
  return config.tasks[task].match(/--(allow-\S+|no-prompt|cached-only)/g) ?? [];
}

export function start(
  task: "server" | "client" | "certs",
  args: string[],
  env: Record<string, string> = {},
): Deno.ChildProcess {
  const file = task === "certs" ? "gen_certs.ts" : `${task}.ts`;
  return new Deno.Command(Deno.execPath(), {
    args: ["run", ...permissions(task), ROOT + file, ...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1", ...env },
  }).spawn();
}

export async function run(
  task: "server" | "client" | "certs",
  args: string[],
  input: string | Uint8Array<ArrayBuffer> = "",
  env: Record<string, string> = {},
): Promise<Result> {
  const child = start(task, args, env);
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

/** A running server: its port, and its log once it has been stopped. */
export class TestServer implements AsyncDisposable {
  readonly port: number;
  readonly #child: Deno.ChildProcess;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #log: Promise<string>;

  private constructor(
    child: Deno.ChildProcess,
    reader: ReadableStreamDefaultReader<Uint8Array>,
    log: Promise<string>,
    port: number,
  ) {
    this.#child = child;
    this.#reader = reader;
    this.#log = log;
    this.port = port;
  }

  static async start(args: string[]): Promise<TestServer> {
    const child = start("server", ["--port", "0", ...args]);
    await child.stdin.close();
    const log = new Response(child.stderr).text();
    const reader = child.stdout.getReader();
    const { value } = await reader.read();
    const ready = new TextDecoder().decode(value);
    const port = Number(/^listening on .*:(\d+)\n$/.exec(ready)?.[1]);
    const server = new TestServer(child, reader, log, port);
    if (port > 0) return server;
    throw new Error(`The server did not start: ${await server.stop()}`);
  }

  async stop(): Promise<string> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.#child.status;
    await this.#reader.cancel();
    return await this.#log;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** A folder of keys and certificates, made by the real `gen_certs.ts`. */
export async function makeCerts(args: string[] = []): Promise<string> {
  const dir = await Deno.makeTempDir({ prefix: "innerlock-test-" });
  const { code, stderr } = await run("certs", ["--out", dir, ...args]);
  if (code !== 0) throw new Error(stderr);
  return dir;
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
