import { assertEquals, assertMatch } from "@std/assert";
import { watchExpiry } from "../cli/server/expiry.ts";
import { FakeClock } from "./clock.ts";
import { makePair } from "./pair.ts";
import { MAY_RUN } from "./programs.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const reason = lacksPermissions(...MAY_RUN);
const DAY = 86_400_000;

/** A log, a clock and the dates that go with it, from today on. */
function watch(path = "certs/cert.pem") {
  const said: string[] = [];
  const clock = new FakeClock();
  const start = Date.now();
  const follow = watchExpiry(
    path,
    (event, message) => said.push(`${event}: ${message}`),
    clock,
    () => start + clock.now(),
  );
  return { said, clock, follow };
}

testUnless(
  reason,
  "watchExpiry: warns each day, from day 30 before on",
  async () => {
    const { cert } = await makePair(["localhost"], 365);
    const { said, clock, follow } = watch();
    follow(cert);
    clock.pass(334 * DAY);
    assertEquals(said, []);
    clock.pass(2 * DAY);
    assertEquals(said.length, 2);
    assertMatch(
      said[0]!,
      /^warning: certs\/cert\.pem expires on \d{4}-\d\d-\d\d at [\d:]+ UTC; renew it with 'deno task certs --renew'$/,
    );
    clock.pass(30 * DAY);
    assertMatch(
      said.at(-1)!,
      /expired on .*: clients refuse it; set the clock, or renew it with 'deno task certs --renew'$/,
    );
  },
);

testUnless(
  reason,
  "watchExpiry: of a certificate that is replaced it says no more",
  async () => {
    const { cert: short } = await makePair(["localhost"], 9);
    const { cert: long } = await makePair(["localhost"], 99);
    const { said, clock, follow } = watch("/etc/innerlock/db/certs/cert.pem");
    follow(short);
    assertMatch(said[0]!, /certs --renew --out \/etc\/innerlock\/db\/certs'$/);
    follow(long);
    clock.pass(68 * DAY);
    assertEquals([said.length, clock.left.length], [1, 1]);
    clock.pass(2 * DAY);
    assertEquals(said.length, 3);
    // Without TLS there is none.
    follow(undefined);
    assertEquals(clock.left, []);
  },
);
