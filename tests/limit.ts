/**
 * A limit on every program that a test runs: one that hangs fails its test, and
 * does not hang it.
 *
 * @module
 */

/** No test needs a program for longer, in milliseconds, even on a busy machine. */
const LIMIT = 180_000;

/** Soak, tamper and bench run their programs for as long as they are asked to. */
const isTest = Deno.mainModule.endsWith("_test.ts");

/** The same program, which is killed if it has not ended by then. */
export function limited(
  child: Deno.ChildProcess,
  time: number = LIMIT,
): Deno.ChildProcess {
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
  command: string,
  options: Omit<Deno.CommandOptions, "stdin">,
): Promise<Deno.CommandOutput> {
  const child = new Deno.Command(command, {
    stdout: "piped",
    stderr: "piped",
    ...options,
    stdin: "null",
  });
  return await limited(child.spawn()).output();
}
