import { assert, assertEquals } from "@std/assert";
import { isPrivateAddress, network } from "../cli/addresses.ts";

Deno.test("isPrivateAddress knows loopback and private addresses, on any link", () => {
  const addresses = [
    "localhost",
    "127.0.0.1",
    "10.1.2.3",
    "::1",
    "fe80::7",
    "fe80::7%eth0",
    "::ffff:192.168.0.1",
  ];
  for (const address of addresses) assert(isPrivateAddress(address), address);
  for (const address of ["8.8.8.8", "2001:db8::1", "::ffff:8.8.8.8", "name"]) {
    assert(!isPrivateAddress(address), address);
  }
});

Deno.test("network has the addresses that it names, and no others", () => {
  const cases: [string, string[], string[]][] = [
    ["192.0.2.1", ["192.0.2.1", "::ffff:192.0.2.1"], ["192.0.2.2", "::1", ""]],
    ["10.0.0.0/8", ["10.0.0.0", "10.255.255.255"], ["11.0.0.0", "9.9.9.9"]],
    ["10.7.7.7/8", ["10.0.0.1"], ["11.0.0.0"]],
    ["0.0.0.0/0", ["8.8.8.8"], ["2001:db8::1"]],
    ["2001:db8::/32", ["2001:db8::1"], ["2001:db9::1", "10.0.0.1"]],
    ["fe80::/10", ["fe80::1%eth0"], ["fec0::1"]],
    ["::1/128", ["::1", "0:0:0:0:0:0:0:1"], ["::2"]],
  ];
  for (const [text, members, others] of cases) {
    const has = network(text)!;
    for (const address of members) assert(has(address), `${text} ${address}`);
    for (const address of others) assert(!has(address), `${text} ${address}`);
  }
});

Deno.test("network refuses what names no addresses", () => {
  const wrong = [
    "",
    "name",
    "10.0.0.0/",
    "10.0.0.0/33",
    "::/129",
    "10.0.0/8",
    "/8",
    "[::1]",
    "fe80::%eth0/10",
    "10.0.0.0/8/8",
    "10.0.0.1 ",
  ];
  for (const text of wrong) assertEquals(network(text), undefined, text);
});
