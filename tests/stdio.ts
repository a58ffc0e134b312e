/** Programs whose stdout may be anything, and its reader slow. */

import { outputOf } from "./limit.ts";

/** What stdout can be, and its reader: as `stdio.py` knows them. */
export const KINDS = [
  ["pipe", "fast"],
  ["pipe", "slow"],
  ["pipe", "late"],
  ["file", "fast"],
  ["terminal", "slow"],
  ["nonblocking pipe", "slow"],
  ["nonblocking pipe", "late"],
] as const;

/** What has become of a program that should send back what it gets. */
export interface Outcome {
  code: number;
  /** Whether what it has written is what it was given. */
  isWhole: boolean;
  /** How many bytes it has written. */
  received: number;
  /** Whether its stdin, stdout and stderr have the flags that they had. */
  isUntouched: boolean;
  stderr: string;
}

/** What it may take, in seconds. */
const TIME_LIMIT = 60;

/** Runs a command with so many bytes on stdin. */
export async function runWith(
  kind: string,
  reader: string,
  length: number,
  command: string[],
  env: Record<string, string> = {},
): Promise<Outcome> {
  const script = `${import.meta.dirname}/stdio.py`;
  const { stdout, stderr } = await outputOf("timeout", {
    args: [
      ...[`${TIME_LIMIT}`, "python3", script],
      ...[kind, reader, `${length}`, ...command],
    ],
    env: { NO_COLOR: "1", ...env },
  });
  const decoder = new TextDecoder();
  const said = decoder.decode(stdout);
  if (said) return JSON.parse(said);
  throw new Error(`it hangs: ${command.join(" ")} ${decoder.decode(stderr)}`);
}
