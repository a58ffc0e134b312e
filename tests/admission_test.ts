import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  Admission,
  type AdmissionOptions,
  networkOf,
} from "../lib/admission.ts";
import { FakeClock } from "./clock.ts";

/** Who has been dropped, by name, and how often a limit was told. */
function admission(options: AdmissionOptions) {
  const dropped: string[] = [];
  const told: string[] = [];
  const clock = new FakeClock();
  const admission = new Admission({
    ...options,
    onLimit: (limit) => told.push(limit),
  }, clock);
  const begin = (address: string, name = address) =>
    admission.begin(
      address,
      (reason) => dropped.push(`${name} ${reason.code}`),
    );
  return { admission, begin, clock, dropped, told };
}

Deno.test("Admission: a flood displaces itself, oldest first", () => {
  const { admission: { handshakes }, begin, clock, dropped, told } = admission({
    maxHandshakes: 4,
  });
  assertEquals(handshakes, 0);
  begin("192.0.2.1", "honest");
  for (let i = 0; i < 6; i++) {
    begin("192.0.2.2", `flood ${i}`);
    clock.pass(2000);
  }
  begin("192.0.2.3", "late");
  assertEquals(dropped, [0, 1, 2, 3].map((i) => `flood ${i} limit`));
  assertEquals(told, ["handshakes"]);
});

Deno.test("Admission: a burst is in good time, up to four times the limit", () => {
  const { begin, clock, dropped, told } = admission({ maxHandshakes: 4 });
  const ends = Array.from({ length: 16 }, (_, i) => begin("192.0.2.1", `${i}`));
  clock.pass(1999);
  assertEquals([dropped, told], [[], []]);
  begin("192.0.2.1");
  assertEquals(dropped, ["0 limit"]);
  // Whoever proves a key vouches for the neighbours that wait behind it.
  ends[1]!(true);
  clock.pass(1999);
  begin("192.0.2.1");
  assertEquals(dropped, ["0 limit"]);
  clock.pass(1);
  ends[2]!(false);
  begin("192.0.2.1");
  assertEquals(dropped, ["0 limit", "3 limit"]);
});

Deno.test("Admission: among networks that hold as many, the oldest goes", () => {
  const { begin, clock, dropped } = admission({ maxHandshakes: 3 });
  const endOfFirst = begin("192.0.2.1", "first");
  begin("192.0.2.2");
  begin("192.0.2.1", "second");
  endOfFirst();
  begin("192.0.2.3");
  clock.pass(2000);
  begin("192.0.2.4");
  begin("192.0.2.5");
  assertEquals(dropped, ["192.0.2.2 limit", "second limit"]);
});

Deno.test("Admission: who has ended or been dropped is not dropped again", () => {
  const { admission: limits, begin, clock, dropped } = admission({
    maxHandshakes: 2,
  });
  const ends = [1, 2, 3].map(() => (clock.pass(2000), begin("192.0.2.1")));
  assertEquals(dropped, ["192.0.2.1 limit"]);
  for (const end of ends) end();
  assertEquals(limits.handshakes, 0);
  begin("192.0.2.4");
  begin("192.0.2.5");
  assertEquals(dropped.length, 1);
  assertEquals(limits.handshakes, 2);
});

Deno.test("Admission: there is room below the limit", () => {
  const { admission: limits } = admission({ maxConnections: 2 });
  assertEquals([0, 1, 2, 3].map((count) => limits.hasRoom(count)), [
    ...[true, true, false, false],
  ]);
  assertEquals(new Admission({}).hasRoom(9_999), true);
  assertEquals(new Admission({}).hasRoom(10_000), false);
});

Deno.test("Admission: a limit is told once a minute", () => {
  const { admission: limits, clock, told } = admission({});
  for (const time of [0, 59_999, 1]) {
    clock.pass(time);
    limits.notice("connections");
  }
  limits.notice("descriptors");
  assertEquals(told, ["connections", "connections", "descriptors"]);
});

/** What may happen: to one of four networks, or to all. */
const happening = fc.record({
  what: fc.constantFrom("begin", "begin", "begin", "prove", "leave", "pass"),
  where: fc.nat({ max: 3 }),
  time: fc.nat({ max: 1500 }),
});

Deno.test("Admission: however they come and go, nobody is dropped in good time, and nobody before the oldest of the most", () => {
  fc.assert(fc.property(
    fc.integer({ min: 1, max: 6 }),
    fc.array(happening, { maxLength: 150 }),
    (maxHandshakes, happenings) => {
      const clock = new FakeClock();
      const limits = new Admission({ maxHandshakes }, clock);
      const networks = Array.from({ length: 4 }, () => ({
        lastProof: 0,
        clients: [] as { start: number; end: (isProved: boolean) => void }[],
      }));
      const count = () =>
        networks.reduce((sum, { clients }) => sum + clients.length, 0);
      const isLate = ({ clients: [first], lastProof }: typeof networks[0]) =>
        clock.now() - Math.max(first!.start, lastProof) >= 2000;
      for (const { what, where, time } of happenings) {
        const here = networks[where]!;
        if (what === "pass") clock.pass(time);
        else if (what === "begin") {
          const client = { start: clock.now(), end: (_: boolean) => {} };
          here.clients.push(client);
          client.end = limits.begin(`192.0.2.${where}`, () => {
            const total = count();
            assert(total > maxHandshakes);
            const mayGo = networks.filter((network) =>
              network.clients.length > 0 &&
              (total > 4 * maxHandshakes || isLate(network))
            );
            const its = mayGo.find(({ clients }) => clients[0] === client)!;
            for (const { clients } of mayGo) {
              assert(its.clients.length >= clients.length);
            }
            its.clients.shift();
          });
        } else if (here.clients.length > 0) {
          here.clients.pop()!.end(what === "prove");
          if (what === "prove") here.lastProof = clock.now();
        }
        assertEquals(limits.handshakes, count());
        assert(count() <= 4 * maxHandshakes);
      }
    },
  ));
});

Deno.test("networkOf: an address of IPv4, 64 bits of IPv6", () => {
  const networks = {
    "192.0.2.1": "192.0.2.1",
    "::ffff:192.0.2.1": "192.0.2.1",
    "::FFFF:c000:201": "192.0.2.1",
    "2001:db8::1": "2001:db8:0:0::/64",
    "2001:db8:0:0:1:2:3:4": "2001:db8:0:0::/64",
    "2001:0DB8::ffff:0:1": "2001:db8:0:0::/64",
    "2001:db8:0:1::": "2001:db8:0:1::/64",
    "fe80::1%eth0": "fe80:0:0:0::/64",
    "::1": "0:0:0:0::/64",
  };
  for (const [address, network] of Object.entries(networks)) {
    assertEquals(networkOf(address), network, address);
  }
});
