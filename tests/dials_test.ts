/** How many dials run at a time, on a clock that tests hold. */

import { assertEquals } from "@std/assert";
import { Dials } from "../tunnel/dials.ts";
import { FakeClock } from "./clock.ts";

/** What ends each dial that begins, until there is no place. */
function beginAll(dials: Dials): ((hasSucceeded: boolean) => void)[] {
  const begun = [];
  while (true) {
    const over = dials.begin(() => {});
    if (!over) return begun;
    begun.push(over);
  }
}

/** One by itself, which takes so long. */
function dialAlone(dials: Dials, clock: FakeClock, time: number): void {
  const over = dials.begin(() => {})!;
  clock.pass(time);
  over(true);
}

Deno.test("Dials: more run at a time while each is as fast as one alone", () => {
  const clock = new FakeClock();
  const dials = new Dials(clock);
  dialAlone(dials, clock, 100);
  for (let round = 0; round < 5; round++) {
    const begun = beginAll(dials);
    clock.pass(100);
    for (const over of begun) over(true);
  }
  assertEquals(beginAll(dials).length, 16);
});

Deno.test("Dials: fewer run at a time when they make each other late", () => {
  const clock = new FakeClock();
  const dials = new Dials(clock);
  dialAlone(dials, clock, 100);
  const most = [];
  for (let round = 0; round < 20; round++) {
    const begun = beginAll(dials);
    most.push(begun.length);
    // What they share has room for one at a time.
    clock.pass(100 * begun.length);
    for (const over of begun) over(true);
  }
  const sum = most.slice(-12).reduce((sum, count) => sum + count, 0);
  assertEquals(sum <= 12 * 3, true, `${most}`);
});

Deno.test("Dials: fewer run at a time when any takes long, though all alone do", () => {
  const clock = new FakeClock();
  const dials = new Dials(clock);
  dialAlone(dials, clock, 1900);
  for (let round = 0; round < 20; round++) {
    const begun = beginAll(dials);
    clock.pass(2100);
    for (const over of begun) over(true);
  }
  assertEquals(dials.limit, 1);
});

Deno.test("Dials: one that runs alone says how long one takes from then on", () => {
  const clock = new FakeClock();
  const dials = new Dials(clock);
  dialAlone(dials, clock, 1);
  for (let i = 0; i < 20; i++) dialAlone(dials, clock, 1000);
  assertEquals(beginAll(dials).length, 16);
});

Deno.test("Dials: each failure halves how many run, to one", () => {
  const clock = new FakeClock();
  const dials = new Dials(clock);
  const limits = beginAll(dials).map((over) => (over(false), dials.limit));
  assertEquals(limits, [1, 1]);
  for (let i = 0; i < 20; i++) dialAlone(dials, clock, 1);
  const [first] = beginAll(dials);
  first!(false);
  assertEquals(dials.limit, 8);
});

Deno.test("Dials: who found no place is told when there is one, in turn", () => {
  const dials = new Dials(new FakeClock());
  const begun = beginAll(dials);
  const told: string[] = [];
  const later = (name: string) => () => {
    told.push(name);
    dials.begin(() => {});
  };
  for (const name of ["a", "b", "c"]) dials.begin(later(name));
  begun[0]!(false);
  assertEquals(told, []);
  begun[1]!(true);
  assertEquals(told, ["a", "b"]);
});
