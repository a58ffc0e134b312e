/**
 * SIGHUP, heard from a program's first instruction on: it imports this before all
 * else, and says later what the signal is to do. Until then it is remembered, and
 * does not end the program, as it would by itself.
 *
 * @module
 */

let handler: (() => void) | undefined;
let isDue = false;

Deno.addSignalListener("SIGHUP", () => {
  if (handler) handler();
  else isDue = true;
});

/** Says what SIGHUP does, and does it if the signal has come already. */
export function onHangUp(action: () => void): void {
  handler = action;
  if (isDue) action();
}
