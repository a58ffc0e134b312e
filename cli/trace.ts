/**
 * `--trace`: a line on stderr for each frame.
 *
 * @module
 */

import type { FrameTrace } from "../lib/mod.ts";
import { stderr } from "./output.ts";

const SHOWN_BYTES = 16;

/** Prints a frame: direction, number, type, length, and how its bytes begin. */
export function printFrame(frame: FrameTrace): void {
  const { direction, number, type, plaintext, ciphertext } = frame;
  const arrow = direction === "sent" ? "->" : "<-";
  const length = (ciphertext.length || plaintext.length) + " bytes";
  stderr.line(
    `${arrow} #${number} ${type} ${length}` +
      `  plain ${hex(plaintext)}  wire ${hex(ciphertext)}`,
  );
}

/** The first bytes in hex. */
function hex(bytes: Uint8Array): string {
  if (bytes.length === 0) return "-";
  const more = bytes.length > SHOWN_BYTES ? "…" : "";
  return bytes.subarray(0, SHOWN_BYTES).toHex() + more;
}
