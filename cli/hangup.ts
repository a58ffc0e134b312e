/**
 * SIGHUP, from a program's first instruction on. The program imports this before
 * everything else, and later says what the signal does. Until then the signal is
 * remembered, and does not end the program.
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
