/**
 * Shows how far a transfer is, at a terminal.
 *
 * @module
 */

import { format as formatBytes } from "@std/fmt/bytes";
import { format as formatDuration } from "@std/fmt/duration";
import { fstatSync } from "node:fs";
import type { Channel } from "../../lib/mod.ts";
import { columns, stderr } from "./output.ts";

/** How often it is drawn, in milliseconds. */
const INTERVAL = 200;

/**
 * Shows on stderr the bytes sent and received, the rate and the time, until it
 * is disposed of. If stdin is a file, it also shows its size and the time left.
 * It does not touch the terminal's modes, because a signal may end the program
 * at any time.
 */
export function showProgress(channel: Channel): Disposable {
  const total = sizeOfStdin();
  const start = performance.now();
  let shownLength = 0;
  const draw = (text: string) => {
    // What is longer than a line would stay there when the next is drawn.
    const shown = text.slice(0, columns() - 1);
    stderr.raw(`\r${shown.padEnd(shownLength)}`);
    shownLength = shown.length;
  };
  const timer = setInterval(() => {
    // A terminal that was stopped gets no more until it goes on.
    if (!stderr.isIdle) return;
    const ms = performance.now() - start;
    const { bytesSent, bytesReceived } = channel;
    const rate = `${formatBytes(1000 * bytesSent / ms)}/s`;
    const of = total ? ` of ${formatBytes(total)}` : "";
    const left = total && bytesSent
      ? `, ${seconds(ms * (total - bytesSent) / bytesSent)} left`
      : "";
    draw(
      `${formatBytes(bytesSent)}${of} sent, ` +
        `${formatBytes(bytesReceived)} back, ${rate}, ${seconds(ms)}${left}`,
    );
  }, INTERVAL);
  return {
    [Symbol.dispose]() {
      clearInterval(timer);
      if (shownLength === 0) return;
      draw("");
      stderr.raw("\r");
    },
  };
}

function sizeOfStdin(): number | undefined {
  const info = fstatSync(0);
  return info.isFile() ? info.size : undefined;
}

function seconds(ms: number): string {
  const whole = 1000 * Math.round(ms / 1000);
  return formatDuration(whole, { ignoreZero: true }) || "0s";
}
