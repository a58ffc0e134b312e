/**
 * Signals, where the system has them.
 *
 * @module
 */

import { Exit } from "./main.ts";

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

/** Waits for a signal to stop; at a second one the program ends at once. */
export async function stopSignal(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let isStopping = false;
  onSignal(["SIGTERM", "SIGINT"], () => {
    if (isStopping) Deno.exit(Exit.failed);
    isStopping = true;
    resolve();
  });
  await promise;
}
