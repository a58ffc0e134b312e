/**
 * Asks at the terminal for a secret.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { Exit } from "../advice/errors.ts";

const [CTRL_C, CTRL_D, BACKSPACE, DELETE] = [3, 4, 8, 127];
const [LF, CR] = [10, 13];

/**
 * Asks on stderr, and does not show the answer.
 *
 * @param isWhole Says of the lines so far that the answer may end with them. An
 * empty line and Ctrl-D always end it.
 * @returns The answer, or undefined if stdin is no terminal.
 */
export function promptHidden(
  message: string,
  isWhole: (text: string) => boolean = () => true,
): string | undefined {
  if (!Deno.stdin.isTerminal()) return undefined;
  // Before it asks: whoever pastes at once is not shown either. Raw, a terminal
  // also takes lines of more than 4095 characters.
  Deno.stdin.setRaw(true);
  try {
    write(message + " ");
    return readAnswer(isWhole);
  } finally {
    Deno.stdin.setRaw(false);
    write("\n");
  }
}

function readAnswer(isWhole: (text: string) => boolean): string {
  const answer: number[] = [];
  let last: number | undefined;
  for (let byte; (byte = readByte()) !== undefined; last = byte) {
    if (byte === CTRL_D) break;
    if (byte === CTRL_C) {
      write("\r\n");
      // It leaves the terminal as it was.
      Deno.exit(Exit.interrupted);
    }
    if (byte === LF && last === CR) continue;
    if (byte === LF || byte === CR) {
      const isEmpty = [undefined, LF, CR].includes(last);
      if (isEmpty || isWhole(textOf(answer))) break;
      answer.push(LF);
    } else if (byte === BACKSPACE || byte === DELETE) {
      // The bytes of one character.
      while ((answer.pop() ?? 0) >> 6 === 0b10);
    } else {
      answer.push(byte);
    }
  }
  return textOf(answer);
}

/** One at a time: what is typed after the answer is not for this program. */
function readByte(): number | undefined {
  const byte = new Uint8Array(1);
  return Deno.stdin.readSync(byte) ? byte[0] : undefined;
}

function textOf(bytes: number[]): string {
  return Buffer.from(bytes).toString();
}

/** At once: nothing else is written while somebody is asked. */
function write(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(text));
}
