/**
 * Words with numbers.
 *
 * @module
 */

/** `1 client`, `2 clients`. */
export function count(
  number: number,
  noun: string,
  plural: string = `${noun}s`,
): string {
  return `${number} ${number === 1 ? noun : plural}`;
}

/** What a program that is told to stop says while some are not done. */
export function mayFinish(some: string, grace: number): string {
  return `${some} may finish, up to ${grace / 1000} s; ` +
    "Ctrl-C again stops at once";
}

/** What it says at the end. */
export function stopped(cut: number, noun: string): string {
  return cut === 0 ? "stopped" : `stopped: ${count(cut, noun)} had to be cut`;
}
