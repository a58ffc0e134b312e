/**
 * Shows how far a transfer is, at a terminal.
 *
 * @module
 */

import { format as formatBytes } from "@std/fmt/bytes";
import { format as formatDuration } from "@std/fmt/duration";
import { SingleBar } from "cli-progress";
import { fstatSync } from "node:fs";
import process from "node:process";
import type { Channel } from "../lib/mod.ts";

/** How often it is drawn, in milliseconds. */
const INTERVAL = 200;

/**
 * Shows on stderr the bytes sent and received, the rate and the time; where
 * stdin is a file, its size and the time that is left too. Until it is disposed
 * of.
 */
export function showProgress(channel: Channel): Disposable {
  const total = sizeOfStdin();
  const start = performance.now();
  const bar = new SingleBar({
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
    format: () => {
      const ms = performance.now() - start;
      const { bytesSent, bytesReceived } = channel;
      const rate = `${formatBytes(1000 * bytesSent / ms)}/s`;
      const of = total ? ` of ${formatBytes(total)}` : "";
      const left = total && bytesSent
        ? `, ${seconds(ms * (total - bytesSent) / bytesSent)} left`
        : "";
      return `${formatBytes(bytesSent)}${of} sent, ` +
        `${formatBytes(bytesReceived)} back, ${rate}, ${seconds(ms)}${left}`;
    },
  });
  bar.start(total ?? 1, 0);
  const timer = setInterval(() => bar.update(channel.bytesSent), INTERVAL);
  return {
    [Symbol.dispose]() {
      clearInterval(timer);
      bar.stop();
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
