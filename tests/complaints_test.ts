import { assertEquals } from "@std/assert";
import { Complaints } from "../cli/complaints.ts";

/** Longer than any test: only what a test asks for is told. */
const LONG = 1_000_000;

Deno.test("Complaints: the first of each kind is told, the others are counted", () => {
  const lines: string[] = [];
  const complaints = new Complaints((line) => lines.push(line), LONG);
  for (let i = 0; i < 813; i++) complaints.add("time", `Refused after ${i} ms`);
  complaints.add("cut", "Cut");
  assertEquals(lines, ["Refused after 0 ms", "Cut"]);
  complaints.tellRest();
  assertEquals(lines.slice(2), ["Refused after 812 ms (812 more)"]);
  // From here on it is new.
  complaints.add("time", "Refused");
  assertEquals(lines.slice(3), ["Refused"]);
  complaints.tellRest();
  assertEquals(lines.length, 4);
});

Deno.test("Complaints: the number is told by itself, and then forgotten", async () => {
  const told = Promise.withResolvers<string>();
  const complaints = new Complaints((line) => {
    if (line.includes("more")) told.resolve(line);
  }, 1);
  complaints.add("cut", "Cut");
  complaints.add("cut", "Cut");
  // The timer alone keeps no program alive.
  const alive = setTimeout(
    () => told.reject(new Error("Nothing came")),
    10_000,
  );
  assertEquals(await told.promise, "Cut (1 more)");
  clearTimeout(alive);
  complaints.tellRest();
});
