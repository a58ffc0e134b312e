import { assertEquals } from "@std/assert";
import {
  Admission,
  type AdmissionOptions,
  networkOf,
} from "../lib/admission.ts";

/** Who has been dropped, by name, and how often a limit was told. */
function admission(options: AdmissionOptions) {
  const dropped: string[] = [];
  const told: string[] = [];
  const admission = new Admission({
    ...options,
    onLimit: (limit) => told.push(limit),
  });
  const begin = (address: string, name = address) =>
    admission.begin(
      address,
      (reason) => dropped.push(`${name} ${reason.code}`),
    );
  return { admission, begin, dropped, told };
}

Deno.test("Admission: a flood displaces itself, oldest first", () => {
  const { admission: { handshakes }, begin, dropped, told } = admission({
    maxHandshakes: 4,
  });
  assertEquals(handshakes, 0);
  begin("192.0.2.1", "honest");
  for (let i = 0; i < 6; i++) begin("192.0.2.2", `flood ${i}`);
  begin("192.0.2.3", "late");
  assertEquals(dropped, [0, 1, 2, 3].map((i) => `flood ${i} limit`));
  assertEquals(told, ["handshakes"]);
});

Deno.test("Admission: among networks that hold as many, the oldest goes", () => {
  const { begin, dropped } = admission({ maxHandshakes: 3 });
  const endOfFirst = begin("192.0.2.1", "first");
  begin("192.0.2.2");
  begin("192.0.2.1", "second");
  endOfFirst();
  begin("192.0.2.3");
  begin("192.0.2.4");
  begin("192.0.2.5");
  assertEquals(dropped, ["192.0.2.2 limit", "second limit"]);
});

Deno.test("Admission: who has ended or been dropped is not dropped again", () => {
  const { admission: limits, begin, dropped } = admission({ maxHandshakes: 2 });
  const ends = [1, 2, 3].map(() => begin("192.0.2.1"));
  assertEquals(dropped, ["192.0.2.1 limit"]);
  for (const end of ends) end();
  assertEquals(limits.handshakes, 0);
  begin("192.0.2.4");
  begin("192.0.2.5");
  assertEquals(dropped.length, 1);
  assertEquals(limits.handshakes, 2);
});

Deno.test("Admission: there is room below the limit, and its end is told once", () => {
  const { admission: limits, told } = admission({ maxConnections: 2 });
  assertEquals([0, 1, 2, 3].map((count) => limits.hasRoom(count)), [
    ...[true, true, false, false],
  ]);
  assertEquals(told, ["connections"]);
  assertEquals(new Admission({}).hasRoom(9_999), true);
  assertEquals(new Admission({}).hasRoom(10_000), false);
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
