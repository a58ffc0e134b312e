/** The demo's page, served as its task does it. */

import config from "../deno.json" with { type: "json" };
import { spawn } from "./programs.ts";

/** What the task pipes into what. */
const [BUNDLE, SERVE] = config.tasks["demo:web"].split(" | ")
  .map((command) =>
    command.split(" ").map((word) => word === "deno" ? Deno.execPath() : word)
  ) as [string[], string[]];

/** Bundles a file for the browser, as the task does it. */
export async function bundle(file = BUNDLE.at(-1)!): Promise<string> {
  const child = spawn([...BUNDLE.slice(0, -1), file]);
  await child.stdin.close();
  const { success, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  if (!success) throw new Error(decoder.decode(stderr));
  return decoder.decode(stdout);
}

/** What the serving process says to a command line, without a page to serve. */
export async function refusal(
  ...args: string[]
): Promise<{ code: number; stderr: string }> {
  const child = spawn([...SERVE, ...args]);
  await child.stdin.close();
  const { code, stderr } = await child.output();
  return { code, stderr: new TextDecoder().decode(stderr) };
}

/** A process that serves the page. */
export class WebDemo implements AsyncDisposable {
  /** Where the page is. */
  readonly url: string;
  readonly #child: Deno.ChildProcess;
  readonly #stdout: ReadableStreamDefaultReader<string>;
  readonly #stderr: Promise<string>;

  private constructor(
    url: string,
    child: Deno.ChildProcess,
    stdout: ReadableStreamDefaultReader<string>,
    stderr: Promise<string>,
  ) {
    this.url = url;
    this.#child = child;
    this.#stdout = stdout;
    this.#stderr = stderr;
  }

  static async start(...args: string[]): Promise<WebDemo> {
    const child = spawn([...SERVE, ...args]);
    const stderr = new Response(child.stderr).text();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(await bundle()));
    await writer.close();
    const stdout = child.stdout.pipeThrough(new TextDecoderStream())
      .getReader();
    const { value } = await stdout.read();
    if (!value) throw new Error(await stderr);
    const [url] = /http:\S+/.exec(value)!;
    return new WebDemo(url, child, stdout, stderr);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill();
    } catch {
      // It has ended by itself, and says why.
    }
    await this.#stdout.cancel();
    await this.#child.status;
    const said = await this.#stderr;
    if (said !== "") throw new Error(`The demo said: ${said}`);
  }
}
