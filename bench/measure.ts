/** Measuring in turn: noise that comes and goes meets every contender alike. */

import process from "node:process";

/** A named way to do a piece of work; returns its figure. */
export type Contenders = Record<string, () => Promise<number>>;

/** The figures of each contender, a round at a time, in turn. */
export async function inTurn<C extends Contenders>(
  title: string,
  rounds: number,
  contenders: C,
): Promise<Record<keyof C, number[]>> {
  const figures = Object.fromEntries(
    Object.keys(contenders).map((name) => [name, [] as number[]]),
  ) as Record<keyof C, number[]>;
  for (let round = 0; round <= rounds; round++) {
    for (const name in contenders) {
      progress(`${title}: ${name}, round ${round} of ${rounds}`);
      const figure = await contenders[name]!();
      // The first round warms up.
      if (round > 0) figures[name]!.push(figure);
    }
  }
  progress("");
  return figures;
}

/** The middle one. */
export function median(figures: number[]): number {
  const sorted = figures.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2
    ? sorted[middle]!
    : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The median of the ratios of each round, so that both met the same noise. */
export function medianRatio(a: number[], b: number[]): number {
  return median(a.map((figure, round) => figure / b[round]!));
}

/** Milliseconds that a piece of work takes. */
export async function milliseconds(work: () => Promise<unknown>) {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/** Microseconds of CPU time that a piece of work takes, of all threads. */
export async function cpuTime(work: () => Promise<unknown>): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

/** Shows, at a terminal, what goes on. */
export function progress(text: string): void {
  if (!Deno.stderr.isTerminal()) return;
  Deno.stderr.writeSync(new TextEncoder().encode(`\r\x1b[K${text}`));
}
