import { assert, assertEquals, assertRejects } from "@std/assert";
import { whyNotThrough } from "../cli/advice/proxy_errors.ts";
import { HttpError } from "../lib/carrier/http.ts";
import { connectThroughProxy, proxySchemes } from "../lib/carrier/proxy.ts";
import { type Bytes, concat, readAll, Scripted } from "./scripted.ts";

const bytesOf = (text: string) => new TextEncoder().encode(text) as Bytes;
const TARGET = { hostname: "server.example", port: 5001 };
const credentials = { username: "alice", password: "päss:word" };

Deno.test("connectThroughProxy asks for the target", async () => {
  const asked = async (options: Parameters<typeof connectThroughProxy>[1]) => {
    const peer = new Scripted(bytesOf("HTTP/1.1 200 OK\r\n\r\n"));
    await connectThroughProxy(peer, options);
    return new TextDecoder().decode(concat(peer.taken));
  };
  assertEquals(
    await asked(TARGET),
    "CONNECT server.example:5001 HTTP/1.1\r\nHost: server.example:5001\r\n\r\n",
  );
  assertEquals(
    await asked({ hostname: "2001:db8::1", port: 443, credentials }),
    "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n" +
      "Proxy-Authorization: Basic YWxpY2U6cMOkc3M6d29yZA==\r\n\r\n",
  );
});

for (
  const options of [
    { ...TARGET, hostname: "" },
    { ...TARGET, hostname: "a\r\nX: y" },
    { ...TARGET, hostname: "a b" },
    { ...TARGET, credentials: { username: "a:b", password: "" } },
  ]
) {
  Deno.test(`connectThroughProxy refuses ${JSON.stringify(options)}`, async () => {
    const peer = new Scripted(new Uint8Array(0));
    await assertRejects(() => connectThroughProxy(peer, options), TypeError);
    assertEquals(peer.taken, []);
    assert(peer.isClosed);
  });
}

for (
  const head of [
    "HTTP/1.1 200 Connection established\r\n\r\n",
    "HTTP/1.0 200 OK\r\nProxy-agent: x\r\nContent-Length: 3\r\n\r\n",
    "HTTP/1.1 204\r\n\r\n",
    "HTTP/1.1 200 OK\nVia: x\n\n",
  ]
) {
  Deno.test(`connectThroughProxy reads no further than ${JSON.stringify(head)}`, async () => {
    for (const cuts of [[1], [2, 5], [10_000]]) {
      const peer = new Scripted(bytesOf(head + "\r\n\x16\x03"), cuts);
      await connectThroughProxy(peer, TARGET);
      assert(!peer.isClosed);
      assertEquals(await readAll(peer), bytesOf("\r\n\x16\x03"));
    }
  });
}

const LONG = "a".repeat(8192);
const NTLM = "Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n";
const BASIC = 'Proxy-Authenticate: Basic realm="Say, friend"\r\n';

const settings = { hostname: "proxy.example", port: 3128, origin: "--proxy" };

const ANSWERS: [string, string, string, string, boolean?][] = [
  [
    "407",
    `HTTP/1.1 407 Who\r\n${BASIC}\r\n`,
    "credentials-missing",
    "asks for a password; give --proxy http://USER@proxy.example:3128",
  ],
  [
    "407 to credentials",
    `HTTP/1.1 407 Who\r\n${BASIC}\r\n`,
    "credentials-refused",
    "rejects this password of alice",
    true,
  ],
  [
    "407 of another kind",
    `HTTP/1.1 407 Who\r\n${NTLM}\r\n`,
    "credentials-missing",
    "takes Negotiate or NTLM, but not Basic",
  ],
  [
    "407 of no kind",
    "HTTP/1.1 407 Who\r\n\r\n",
    "credentials-missing",
    "asks for a password",
  ],
  [
    "403",
    "HTTP/1.1 403 Forbidden\r\n\r\nno",
    "forbidden",
    "does not allow server.example:5001; many allow only port 443",
  ],
  [
    "502",
    "HTTP/1.1 502 Bad Gateway\r\n\r\n",
    "unreachable",
    "which answered HTTP/1.1 502 Bad Gateway",
  ],
  [
    "503",
    "HTTP/1.1 503 Service Unavailable\r\n\r\n",
    "unreachable",
    "check --host",
  ],
  [
    "504",
    "HTTP/1.1 504 Gateway Timeout\r\n\r\n",
    "unreachable",
    "check --host",
  ],
  [
    "400",
    "HTTP/1.1 400 Bad Request\r\n\r\n",
    "status",
    "is it a proxy?",
  ],
  [
    "302",
    "HTTP/1.1 302 Found\r\n\r\n",
    "status",
    "answered HTTP/1.1 302 Found",
  ],
  ["100", "HTTP/1.1 100 Continue\r\n\r\n", "status", "answered HTTP/1.1 100"],
  ["no number", "HTTP/1.1 OK\r\n\r\n", "status", "answered HTTP/1.1 OK"],
  ["SOCKS", "\x05\x00", "not-http", "does not speak HTTP"],
  ["nothing", "", "closed", "closed the connection"],
  ["half a head", "HTTP/1.1 200 OK\r\n", "closed", "closed the connection"],
  [
    "too long a head",
    `HTTP/1.1 200 OK\r\nA: ${LONG}`,
    "too-long",
    "does not speak HTTP",
  ],
];

for (const [name, answer, reason, line, hasCredentials] of ANSWERS) {
  Deno.test(`connectThroughProxy tells of ${name}`, async () => {
    const peer = new Scripted(bytesOf(answer));
    const shown = hasCredentials ? { credentials } : {};
    const error = await assertRejects(
      () => connectThroughProxy(peer, { ...TARGET, ...shown }),
      HttpError,
    );
    assertEquals([error.code, error.reason], ["proxy", reason]);
    assert(peer.isClosed);
    const why = whyNotThrough(
      error,
      { ...settings, ...shown },
      "server.example:5001",
    );
    assert(why.includes(line), why);
    for (const text of [why, error.message]) {
      assert(!text.includes(credentials.password), text);
    }
  });
}

Deno.test("a proxy's head may have 8192 bytes and no more", async () => {
  const room = 8192 - "HTTP/1.1 200 OK\r\nA: \r\n\r\n".length;
  for (const extra of [-1, 0, 1]) {
    const answer = `HTTP/1.1 200 OK\r\nA: ${
      LONG.slice(0, room + extra)
    }\r\n\r\n`;
    const peer = new Scripted(bytesOf(answer));
    const connecting = connectThroughProxy(peer, TARGET);
    if (extra <= 0) await connecting;
    else await assertRejects(() => connecting, HttpError, "more than 8192");
  }
});

Deno.test("proxySchemes reads challenges, whose parameters may have commas", () => {
  const schemes = (text: string) =>
    proxySchemes(new Headers({ "Proxy-Authenticate": text }));
  assertEquals(
    schemes(
      'Digest realm="a, Basic b", qop="auth,\\"b", nonce=x, NTLM, Basic realm="b"',
    ),
    ["Digest", "NTLM", "Basic"],
  );
  assertEquals(schemes(""), []);
});
