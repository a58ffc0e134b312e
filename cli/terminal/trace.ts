/**
 * `--trace`: a line on stderr for each frame.
 *
 * @module
 */

import type { FrameTrace } from "../../lib/mod.ts";
import { stderr } from "./output.ts";
import { count } from "./words.ts";

const SHOWN_BYTES = 16;

/** Control characters other than those of plain text. */
const CONTROL = /[^\P{Cc}\t\r\n]/u;

/** Prints a frame: direction, number, type, length, and how its bytes begin. */
export function printFrame(frame: FrameTrace): void {
  const { direction, number, type, plaintext, ciphertext } = frame;
  const arrow = direction === "sent" ? "->" : "<-";
  const length = count(ciphertext.length || plaintext.length, "byte");
  stderr.line(
    `${arrow} #${number} ${type} ${length}` +
      `  plain ${hex(plaintext)}${text(plaintext)}  wire ${hex(ciphertext)}`,
  );
}

/** The first bytes in hex. */
function hex(bytes: Uint8Array): string {
  if (bytes.length === 0) return "-";
  const more = bytes.length > SHOWN_BYTES ? "…" : "";
  return bytes.subarray(0, SHOWN_BYTES).toHex() + more;
}

/** The same bytes as a text in quotes, if they are one. */
function text(bytes: Uint8Array): string {
  if (bytes.length === 0) return "";
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  try {
    // The last character may be cut off.
    const shown = decoder.decode(bytes.subarray(0, SHOWN_BYTES), {
      stream: true,
    });
    return CONTROL.test(shown) ? "" : ` ${JSON.stringify(shown)}`;
  } catch {
    return "";
  }
}
