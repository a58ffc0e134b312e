import { assertEquals } from "@std/assert";
import { CLOCK } from "../lib/lock/clock.ts";

Deno.test("CLOCK.after: what a timer cannot hold is never, not at once", () => {
  for (const extra of [-1, 0, 1, Infinity]) {
    const timer = CLOCK.after(2 ** 31 - 1 + extra, () => {});
    assertEquals(timer === undefined, extra > 0, `${extra}`);
    CLOCK.clear(timer);
  }
});
