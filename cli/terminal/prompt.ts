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
 * @param isEnd Says at the end of a line whether the answer ends with it, of all
 * lines so far and of this one. Ctrl-D always ends it.
 * @returns The answer, or undefined if stdin is no terminal.
 */
export function promptHidden(
  message: string,
  isEnd: (text: string, line: string) => boolean = () => true,
): string | undefined {
  if (!Deno.stdin.isTerminal()) return undefined;
  // Before it asks: whoever pastes at once is not shown either. Raw, a terminal
  // also takes lines of more than 4095 characters.
  Deno.stdin.setRaw(true);
  try {
    write(message + " ");
    return readAnswer(isEnd);
  } finally {
    Deno.stdin.setRaw(false);
    write("\n");
  }
}

function readAnswer(isEnd: (text: string, line: string) => boolean): string {
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
      const line = answer.slice(answer.lastIndexOf(LF) + 1);
      if (isEnd(textOf(answer), textOf(line))) break;
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
