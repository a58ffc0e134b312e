import { assertEquals, assertRejects } from "@std/assert";
import { clientAddress } from "../lib/carrier/forwarded.ts";
import { canonicalAddress } from "../lib/carrier/ip_address.ts";
import { ChannelError } from "../lib/mod.ts";
import { readProxyHeader } from "../lib/carrier/proxy_protocol.ts";
import { type Bytes, concat, readAll, Scripted } from "./scripted.ts";

const bytesOf = (text: string) => new TextEncoder().encode(text) as Bytes;

/** What follows a header: a hello. */
const REST = bytesOf("\0\x13innerlock/1 default");

/** The source of a header, and that what follows it is left. */
async function read(header: Bytes) {
  const sources = [];
  for (const cuts of [[1], [3, 5], [10_000]]) {
    const peer = new Scripted(concat([header, REST]), cuts);
    const source = await readProxyHeader(peer);
    assertEquals(await readAll(peer), REST);
    sources.push(
      source && `${source.transport} ${source.hostname} ${source.port}`,
    );
  }
  assertEquals(new Set(sources).size, 1);
  return sources[0];
}

async function fails(
  header: Bytes,
  code: "protocol" | "cut",
  message: string,
) {
  for (const cuts of [[1], [10_000]]) {
    const peer = new Scripted(header, cuts);
    const error = await assertRejects(
      () => readProxyHeader(peer),
      ChannelError,
      message,
    );
    assertEquals(error.code, code, message);
  }
}

const V1: [string, string | undefined][] = [
  ["TCP4 192.0.2.1 203.0.113.7 51000 443", "tcp 192.0.2.1 51000"],
  [
    "TCP4 255.255.255.255 255.255.255.255 65535 65535",
    "tcp 255.255.255.255 65535",
  ],
  ["TCP4 0.0.0.0 0.0.0.0 0 0", "tcp 0.0.0.0 0"],
  ["TCP6 2001:DB8:0:0::1 ::1 51000 443", "tcp 2001:db8::1 51000"],
  ["TCP6 ::ffff:192.0.2.1 ::1 1 2", "tcp 192.0.2.1 1"],
  [
    "TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
    "tcp ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535",
  ],
  ["UNKNOWN", undefined],
  [
    "UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
    undefined,
  ],
  ["UNKNOWN whatever  it says", undefined],
];

for (const [text, expected] of V1) {
  Deno.test(`readProxyHeader reads PROXY ${text}`, async () => {
    assertEquals(await read(bytesOf(`PROXY ${text}\r\n`)), expected);
  });
}

const WRONG_V1 = [
  "PROXY TCP4 192.0.2.1 203.0.113.7 51000\r\n",
  "PROXY TCP4 192.0.2.1 203.0.113.7 51000 443 1\r\n",
  "PROXY TCP4 192.0.2.1 203.0.113.7 51000 65536\r\n",
  "PROXY TCP4 192.0.2.1 203.0.113.7 051000 443\r\n",
  "PROXY TCP4 192.0.2.1 203.0.113.7 -1 443\r\n",
  "PROXY TCP4 192.0.2.1 203.0.113 1 443\r\n",
  "PROXY TCP4 192.0.2.256 203.0.113.7 1 443\r\n",
  "PROXY TCP4 192.0.2.01 203.0.113.7 1 443\r\n",
  "PROXY TCP4 ::1 ::1 1 443\r\n",
  "PROXY TCP6 192.0.2.1 203.0.113.7 1 443\r\n",
  "PROXY TCP6 ::1::2 ::1 1 443\r\n",
  "PROXY TCP6 ::g ::1 1 443\r\n",
  "PROXY TCP6 fe80::1%eth0 ::1 1 443\r\n",
  "PROXY TCP4  192.0.2.1 203.0.113.7 1 443\r\n",
  "PROXY tcp4 192.0.2.1 203.0.113.7 1 443\r\n",
  "PROXY UDP4 192.0.2.1 203.0.113.7 1 443\r\n",
  "PROXY \r\n",
  "PROXY\r\n",
];

for (const text of WRONG_V1) {
  Deno.test(`readProxyHeader refuses ${JSON.stringify(text)}`, () =>
    fails(bytesOf(text), "protocol", "names no addresses"));
}

Deno.test("readProxyHeader refuses what is no header of version 1", async () => {
  await fails(bytesOf("POST / HTTP/1.1\r\n"), "protocol", "begin with PROXY");
  await fails(bytesOf("PROXY UNKNOWN\n"), "protocol", "has no CR");
  await fails(bytesOf("\0\x13innerlock/1"), "protocol", "does not begin with");
  await fails(bytesOf("GET / HTTP/1.1\r\n"), "protocol", "does not begin with");
});

Deno.test("a header of version 1 may have 107 bytes and no more", async () => {
  const ofLength = (length: number) =>
    bytesOf(`PROXY UNKNOWN ${"x".repeat(length - 16)}\r\n`);
  for (const length of [106, 107]) {
    assertEquals(ofLength(length).length, length);
    assertEquals(await read(ofLength(length)), undefined);
  }
  await fails(ofLength(108), "protocol", "too long");
  await fails(bytesOf("P".repeat(107)), "protocol", "too long");
});

const SIGNATURE = "0d0a0d0a000d0a515549540a";
const V4 = "c0000201cb007107c73801bb";
const V6 = "20010db8000000000000000000000001".repeat(2) + "c73801bb";
const v2 = (hex: string, body: string, length = body.length / 2) =>
  Uint8Array.fromHex(
    SIGNATURE + hex + length.toString(16).padStart(4, "0") + body,
  );
const TLV = "040003aabbcc";

const V2: [string, Bytes, string | undefined][] = [
  ["TCP over IPv4", v2("2111", V4), "tcp 192.0.2.1 51000"],
  ["TCP over IPv6", v2("2121", V6), "tcp 2001:db8::1 51000"],
  [
    "a mapped address",
    v2("2121", `${"00".repeat(10)}ffffc0000201${V6.slice(32)}`),
    "tcp 192.0.2.1 51000",
  ],
  ["more than addresses", v2("2111", V4 + TLV), "tcp 192.0.2.1 51000"],
  ["LOCAL", v2("2000", ""), undefined],
  ["LOCAL with addresses", v2("2011", V4 + TLV), undefined],
  ["LOCAL of an unknown family", v2("20ff", V4), undefined],
  ["no family", v2("2100", TLV), undefined],
  ["UDP", v2("2112", V4), undefined],
  ["a Unix socket", v2("2131", "00".repeat(216)), undefined],
];

for (const [name, header, expected] of V2) {
  Deno.test(`readProxyHeader reads ${name} of version 2`, async () => {
    assertEquals(await read(header), expected);
  });
}

const WRONG_V2: [string, Bytes, string][] = [
  ["a short IPv4 address", v2("2111", V4.slice(2)), "too short"],
  ["a short IPv6 address", v2("2121", V6.slice(2)), "too short"],
  ["no addresses", v2("2111", ""), "too short"],
  ["version 1", v2("1111", V4), "another version"],
  ["version 3", v2("3111", V4), "another version"],
  ["an unknown command", v2("2211", V4), "unknown command"],
  ["an unknown family", v2("2141", V4), "unknown family"],
  ["an unknown protocol", v2("2113", V4), "unknown family"],
];

for (const [name, header, message] of WRONG_V2) {
  Deno.test(`readProxyHeader refuses ${name} in version 2`, () =>
    fails(header, "protocol", message));
}

Deno.test("readProxyHeader refuses any change of version 2's signature", async () => {
  for (let i = 1; i < 12; i++) {
    const header = v2("2111", V4);
    header[i]! ^= 1;
    await fails(header, "protocol", "another signature");
  }
});

Deno.test("a header of version 2 may have 4096 bytes after its start and no more", async () => {
  for (const length of [4095, 4096]) {
    const body = V4.padEnd(2 * length, "0");
    assertEquals(await read(v2("2111", body)), "tcp 192.0.2.1 51000");
  }
  await fails(v2("2111", "", 4097), "protocol", "too long");
});

Deno.test("readProxyHeader tells of a header that is cut", async () => {
  const headers = [v2("2111", V4), bytesOf("PROXY UNKNOWN\r\n")];
  for (const header of headers) {
    for (let length = 0; length < header.length; length++) {
      await fails(header.slice(0, length), "cut", "closed within its header");
    }
  }
});

Deno.test("canonicalAddress writes an address in one way, and nothing else", () => {
  const cases: [string, string | undefined][] = [
    ["192.0.2.1", "192.0.2.1"],
    ["2001:DB8::0:1", "2001:db8::1"],
    ["0:0:0:0:0:0:0:0", "::"],
    ["::ffff:192.0.2.1", "192.0.2.1"],
    ["::ffff:0:0", "0.0.0.0"],
    ["::ffff:c000:0201", "192.0.2.1"],
    ["::192.0.2.1", "::c000:201"],
    ["", undefined],
    ["192.0.2", undefined],
    ["192.0.2.1.1", undefined],
    ["0x7f.0.0.1", undefined],
    ["2130706433", undefined],
    ["192.0.2.1 ", undefined],
    ["fe80::1%eth0", undefined],
    ["[::1]", undefined],
    ["::1]/x[", undefined],
    [":", undefined],
    ["1:2:3:4:5:6:7:8:9", undefined],
    ["localhost", undefined],
  ];
  for (const [text, expected] of cases) {
    assertEquals(canonicalAddress(text), expected, text);
  }
});

Deno.test("clientAddress believes the boxes that are trusted, from right to left", () => {
  const isTrusted = (address: string) => address.startsWith("10.");
  const cases: [string, string | null, string][] = [
    ["192.0.2.9", "1.2.3.4", "192.0.2.9"],
    ["192.0.2.9", null, "192.0.2.9"],
    ["10.0.0.1", null, "10.0.0.1"],
    ["10.0.0.1", "", "10.0.0.1"],
    ["10.0.0.1", "192.0.2.7", "192.0.2.7"],
    ["10.0.0.1", "1.2.3.4, 192.0.2.7", "192.0.2.7"],
    ["10.0.0.1", "1.2.3.4,192.0.2.7 ,\t10.0.0.2", "192.0.2.7"],
    ["10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"],
    ["10.0.0.1", "192.0.2.7:51000", "192.0.2.7"],
    ["10.0.0.1", "[2001:DB8::1]:51000", "2001:db8::1"],
    ["10.0.0.1", "[2001:db8::1]", "2001:db8::1"],
    ["10.0.0.1", "2001:db8::1", "2001:db8::1"],
    ["10.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"],
    ["10.0.0.1", "192.0.2.7, unknown", "10.0.0.1"],
    ["10.0.0.1", "192.0.2.7, unknown, 10.0.0.2", "10.0.0.2"],
    ["10.0.0.1", "192.0.2.7,", "10.0.0.1"],
    ["10.0.0.1", "192.0.2.7\x1b[31m", "10.0.0.1"],
  ];
  for (const [peer, forwardedFor, expected] of cases) {
    const client = clientAddress(peer, forwardedFor, isTrusted);
    assertEquals(client, expected, `${peer} ${forwardedFor}`);
  }
});
