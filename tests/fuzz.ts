/**
 * `deno task fuzz [MINUTES] [SEED]`: the properties, in turn, with ever new
 * cases, for as long as asked. The seed is printed: the same seed tries the same
 * cases in the same order.
 *
 * @module
 */

import fc from "fast-check";
import { PROPERTIES } from "./properties.ts";

/** A turn of a property takes about so long, in milliseconds. */
const TURN = 2000;

const minutes = Number(Deno.args[0] ?? 1);
const seed = Number(Deno.args[1] ?? Math.trunc(Math.random() * 2 ** 31));
if (!(minutes > 0) || !Number.isSafeInteger(seed)) {
  console.error("fuzz: it takes minutes and a whole number, such as 0.5 7");
  Deno.exit(2);
}
console.log(`seed ${seed}`);

const end = performance.now() + minutes * 60_000;
const counts = new Map<string, number>();
/** How many cases a turn has: as many as the last one's speed allows. */
const runs = new Map<string, number>();
for (let round = 0; performance.now() < end; round++) {
  for (const [name, property] of Object.entries(PROPERTIES)) {
    const numRuns = runs.get(name) ?? 50;
    const start = performance.now();
    const result = await fc.check(property, { numRuns, seed: seed + round });
    if (result.failed) {
      console.error(`fuzz: ${name}\n${fc.defaultReportMessage(result)}`);
      Deno.exit(1);
    }
    counts.set(name, (counts.get(name) ?? 0) + numRuns);
    const speed = numRuns / (performance.now() - start);
    runs.set(name, Math.max(50, Math.ceil(speed * TURN)));
  }
}
let total = 0;
for (const [name, count] of counts) {
  console.log(`${String(count).padStart(9)}  ${name}`);
  total += count;
}
console.log(`${String(total).padStart(9)}  cases, none failed`);
