/**
 * Signals, where the system has them.
 *
 * @module
 */

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
