/**
 * Signals, where the system has them.
 *
 * @module
 */

import { Exit } from "./main.ts";
import { stderr } from "./output.ts";

/** Calls `handler` at each of these signals. */
export function onSignal(
  signals: Deno.Signal | Deno.Signal[],
  handler: () => void,
): void {
  for (const signal of [signals].flat()) {
    // Windows knows no SIGTERM.
    if (Deno.build.os === "windows" && signal === "SIGTERM") continue;
    Deno.addSignalListener(signal, handler);
  }
}

/** Within this time of the first signal another is the same, in milliseconds. */
const SAME_SIGNAL = 500;

/**
 * Waits for a signal to stop; at a second one the program ends at once, but for
 * the lines that it still has to write: those have a second. One
 * Ctrl-C may come as several: the terminal tells every process, and `deno task`
 * tells its child once more.
 */
export async function stopSignal(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let first: number | undefined;
  onSignal(["SIGTERM", "SIGINT"], () => {
    const now = performance.now();
    first ??= now;
    if (now - first >= SAME_SIGNAL) {
      stderr.flush().then(() => Deno.exit(Exit.failed));
    }
    resolve();
  });
  await promise;
}
