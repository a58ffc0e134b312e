/**
 * Starts every program that a test runs, with a limit: one that hangs fails its
 * test, and does not hang it.
 *
 * @module
 */

/** No test needs a program for longer, in milliseconds, even on a busy machine. */
const LIMIT = 180_000;

/** Soak, tamper and bench run their programs for as long as they are asked to. */
const isTest = Deno.mainModule.endsWith("_test.ts");

/** A program that is killed if it has not ended by then. */
export function launch(
  name: string,
  options: Deno.CommandOptions,
  time: number = LIMIT,
): Deno.ChildProcess {
  const child = new Deno.Command(name, options).spawn();
  if (!isTest) return child;
  const timer = setTimeout(() => {
    try {
      child.kill("SIGKILL");
    } catch {
      // It has just ended.
    }
  }, time);
  child.status.finally(() => clearTimeout(timer));
  return child;
}

/** What a program says that ends by itself. */
export async function outputOf(
  name: string,
  options: Omit<Deno.CommandOptions, "stdin">,
): Promise<Deno.CommandOutput> {
  return await launch(name, {
    stdout: "piped",
    stderr: "piped",
    ...options,
    stdin: "null",
  }).output();
}

/**
 * The same, while this program waits and does nothing else: its own timers stand
 * still, so `timeout` sets the limit.
 */
export function outputOfSync(...command: string[]): Deno.CommandOutput {
  const limit = Deno.build.os === "linux" ? ["timeout", `${LIMIT / 1000}`] : [];
  const [name, ...args] = [...limit, ...command];
  return new Deno.Command(name!, { args, stderr: "null" }).outputSync();
}

/** What a program prints, which must end well. */
export async function printed(
  command: string[],
  options: { cwd?: string } = {},
): Promise<string> {
  const [name, ...args] = command;
  const output = await outputOf(name!, { ...options, args });
  const decoder = new TextDecoder();
  if (output.success) return decoder.decode(output.stdout);
  throw new Error(`${command.join(" ")}: ${decoder.decode(output.stderr)}`);
}
