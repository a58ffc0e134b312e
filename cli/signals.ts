/**
 * Signals, where the system has them.
 *
 * @module
 */

import { Exit } from "./advice/errors.ts";
import { stderr } from "./terminal/output.ts";

/** Calls `handler` at each of these signals. */
export function onSignal(
  signals: Deno.Signal | Deno.Signal[],
  handler: () => void,
): void {
  for (const signal of [signals].flat()) {
    // Windows knows no other.
    if (Deno.build.os === "windows" && signal !== "SIGINT") continue;
    Deno.addSignalListener(signal, handler);
  }
}

/** A signal this soon after the first counts as the same, in milliseconds. */
const SAME_SIGNAL = 500;

/**
 * Waits for a signal to stop. A second one ends the program at once; only the
 * lines that it still has to write get up to a second. One Ctrl-C may arrive as
 * several: the terminal signals every process, and `deno task` signals its child
 * again.
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
