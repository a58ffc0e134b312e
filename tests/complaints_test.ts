import { assertEquals } from "@std/assert";
import { Complaints } from "../cli/complaints.ts";
import { FakeClock } from "./clock.ts";

const MINUTE = 60_000;

function complaining() {
  const lines: string[] = [];
  const clock = new FakeClock();
  const complaints = new Complaints((line) => lines.push(line), clock);
  return { lines, clock, complaints };
}

Deno.test("Complaints: the first of each kind is told, the others are counted", () => {
  const { lines, clock, complaints } = complaining();
  for (let i = 0; i < 813; i++) complaints.add("time", `Refused after ${i} ms`);
  complaints.add("cut", "Cut");
  assertEquals(lines, ["Refused after 0 ms", "Cut"]);
  complaints.tellRest();
  assertEquals(lines.slice(2), ["Refused after 812 ms (812 more)"]);
  assertEquals(clock.left, []);
  // From here on it is new.
  complaints.add("time", "Refused");
  assertEquals(lines.slice(3), ["Refused"]);
  complaints.tellRest();
  assertEquals(lines.length, 4);
});

Deno.test("Complaints: the number is told each minute, and then forgotten", () => {
  const { lines, clock, complaints } = complaining();
  for (let i = 0; i < 3; i++) complaints.add("cut", "Cut");
  clock.pass(MINUTE - 1);
  assertEquals(lines, ["Cut"]);
  clock.pass(1);
  assertEquals(lines, ["Cut", "Cut (2 more)"]);
  complaints.add("cut", "Cut");
  clock.pass(MINUTE);
  assertEquals(lines.slice(2), ["Cut (1 more)"]);
  clock.pass(MINUTE);
  assertEquals([lines.length, clock.left], [3, []]);
  complaints.add("cut", "Cut");
  assertEquals(lines.slice(3), ["Cut"]);
});
