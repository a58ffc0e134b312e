import { assertEquals } from "@std/assert";
import type { LogFields } from "../cli/server/log.ts";
import { Refusals } from "../cli/server/refusals.ts";
import { FakeClock } from "./clock.ts";

type Entry = [message: string, fields: LogFields];

const peer = (hostname: string, port: number) => (
  { transport: "tcp", hostname, port } as const
);

function logged() {
  const entries: Entry[] = [];
  const clock = new FakeClock();
  const refusals = new Refusals((event, message, fields = {}) => {
    assertEquals(event, "refused");
    entries.push([message, fields]);
  }, clock);
  return { refusals, entries, clock };
}

Deno.test("Refusals: the first are told one by one, the others as a number", () => {
  const { refusals, entries } = logged();
  for (let port = 1; port <= 530; port++) {
    refusals.add(peer("10.0.0.1", port), "cut", "It went");
  }
  // Another host, and another reason of the same, are not hidden by them.
  refusals.add(peer("10.0.0.2", 1), "cut", "It went");
  refusals.add(peer("10.0.0.1", 1), "refused", "Wrong key");
  assertEquals(entries.slice(4), [
    ["not let in: cut (It went)", { address: "10.0.0.1:5", reason: "cut" }],
    ["not let in: cut (It went)", { address: "10.0.0.2:1", reason: "cut" }],
    [
      "not let in: refused (Wrong key)",
      { address: "10.0.0.1:1", reason: "refused" },
    ],
  ]);
  entries.length = 0;
  refusals.tellRepeated();
  assertEquals(entries, [
    [
      "not let in: 525 more, cut",
      { address: "10.0.0.1", reason: "cut", count: 525 },
    ],
  ]);
  refusals.add(peer("10.0.0.1", 1), "cut", "It went");
  assertEquals(entries.length, 2);
  refusals.tellRepeated();
  assertEquals(entries.length, 2);
});

Deno.test("Refusals: however many hosts there are, there are few lines", () => {
  const { refusals, entries } = logged();
  for (let i = 0; i < 5000; i++) {
    refusals.add(peer(`10.0.${i >> 8}.${i & 255}`, 1), "cut", "It went");
  }
  refusals.tellRepeated();
  assertEquals(entries.length, 21);
  assertEquals(entries.at(-1), [
    "not let in: 4980 more from other addresses, cut",
    { reason: "cut", count: 4980 },
  ]);
});

Deno.test("Refusals: the number is told after ten seconds, and then forgotten", () => {
  const { refusals, entries, clock } = logged();
  for (let port = 1; port <= 6; port++) {
    refusals.add(peer("10.0.0.1", port), "cut", "It went");
  }
  clock.pass(9999);
  assertEquals(entries.length, 5);
  clock.pass(1);
  assertEquals(entries.at(-1)![0], "not let in: 1 more, cut");
  assertEquals(clock.left, []);
});
