import { assertEquals } from "@std/assert";
import { MAY_RUN } from "./programs.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";
import { type Manipulation, tamper } from "./tamper.ts";

/** Of the many bits and lengths of a frame, one in so many. */
const SAMPLE = 101;

function* sample(all: Iterable<Manipulation>): Generator<Manipulation> {
  let many = 0;
  for (const manipulation of all) {
    const { kind } = manipulation;
    const isOfMany = kind === "flip a bit" || kind === "truncate";
    if (!isOfMany || many++ % SAMPLE === 0) yield manipulation;
  }
}

testUnless(
  lacksPermissions(...MAY_RUN),
  "tamper: whatever a proxy inside TLS does to a frame is noticed",
  async () => {
    const { wrongs, honest } = await tamper(sample);
    assertEquals(wrongs, []);
    assertEquals(honest > 0, true);
  },
);
