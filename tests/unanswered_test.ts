/** What a client says where a box, not innerlock, is at the other end. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { ExpectedFrames } from "../lib/carrier/answer.ts";
import { WebSocketTransport } from "../lib/carrier/websocket_frames.ts";
import { HttpError, UnansweredError } from "../lib/deno.ts";
import { ChannelError, connectChannel } from "../lib/mod.ts";
import { PSK } from "./duplex.ts";
import { pairUnless } from "./pair.ts";
import {
  clientFlags,
  MAY_RUN,
  run,
  serverFlags,
  TestServer,
  withCerts,
} from "./programs.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";
import { type Bytes, Scripted } from "./scripted.ts";

const bytesOf = (text: string) => new TextEncoder().encode(text) as Bytes;

/** What a client that expects frames says of a peer that says this and closes. */
async function errorAt(said: string, cuts?: number[]): Promise<ChannelError> {
  const peer = new Scripted(bytesOf(said), cuts);
  const connecting = connectChannel(new ExpectedFrames(peer), { psk: PSK });
  const error = await assertRejects(() => connecting, ChannelError);
  assert(peer.isClosed);
  return error;
}

const BAD_REQUEST =
  "HTTP/1.1 400 Bad Request\r\nServer: box\r\nConnection: close\r\n\r\n<html>";

for (const cuts of [[1], [2, 5], [10_000]]) {
  Deno.test(`ExpectedFrames tells of an answer in HTTP, in reads of ${cuts}`, async () => {
    const error = await errorAt(BAD_REQUEST, cuts);
    assert(error instanceof HttpError);
    assertEquals([error.code, error.reason], ["protocol", "unasked"]);
    assertEquals([error.status, error.headers!.get("server")], [400, "box"]);
    assert(error.message.includes("HTTP/1.1 400 Bad Request"), error.message);
  });
}

for (
  const said of ["HTTP/1.0 400 Bad", `HTTP/1.1 200 OK\nA: ${"b".repeat(9000)}`]
) {
  Deno.test(`ExpectedFrames knows HTTP by its beginning: ${said.slice(0, 20)}`, async () => {
    const error = await errorAt(said);
    assert(error instanceof HttpError);
    assertEquals([error.code, error.reason], ["protocol", "unasked"]);
  });
}

for (
  const said of ["220 mail.example ESMTP\r\n", "HTML", "\0", "\0\x31"]
) {
  Deno.test(`connectChannel shows what else came: ${JSON.stringify(said)}`, async () => {
    const error = await errorAt(said);
    const isCut = said.length === 1;
    assertEquals(error.code, isCut ? "refused" : "protocol");
    if (isCut) return;
    assert(!(error instanceof HttpError));
    assert(error.message.includes(said.slice(2, 10).trim()), error.message);
  });
}

Deno.test("connectChannel: a peer that closes instead of answering", async () => {
  const error = await errorAt("");
  assert(error instanceof UnansweredError);
  assertEquals(error.code, "refused");
});

const CARRIERS: [string, number[], string, string][] = [
  ["a text message", [0x81, 1, 65], "protocol", "it sent a text message"],
  [
    "a masked frame",
    [0x82, 0x81, 0, 0, 0, 0, 65],
    "protocol",
    "it sent a masked frame",
  ],
  ...[1001, 1008, 1011, 1012, 1013, 1014, 4000].map((
    code,
  ): [string, number[], string, string] => [
    `a Close ${code}`,
    [0x88, 2, code >> 8, code & 0xff],
    "cut",
    `closed it with code ${code}`,
  ]),
];

for (const [name, said, code, words] of CARRIERS) {
  Deno.test(`connectChannel tells why what carries it gives no answer: ${name}`, async () => {
    const peer = new Scripted(Uint8Array.from(said));
    const socket = new WebSocketTransport(peer, "client");
    const connecting = connectChannel(socket, { psk: PSK });
    const error = await assertRejects(() => connecting, ChannelError, words);
    assertEquals(error.code, code);
    assert(!(error instanceof UnansweredError));
    assert(peer.isClosed);
  });
}

const reason = lacksPermissions(...MAY_RUN);
const { cert, key } = await pairUnless(reason);

/**
 * The real client's answer to a box that ends TLS.
 *
 * @param answer What the box does with the connection, before it closes it.
 */
async function clientAt(
  answer: (conn: Deno.TlsConn) => Promise<unknown>,
  args: string[],
  alpnProtocols: string[] = [],
): Promise<string> {
  const dir = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${dir}/cert.pem`, cert);
    await Deno.writeTextFile(`${dir}/psk.txt`, PSK, { mode: 0o600 });
    using listener = Deno.listenTls({ port: 0, cert, key, alpnProtocols });
    const { port } = listener.addr;
    const serving = (async () => {
      using conn = await listener.accept();
      await conn.handshake();
      await answer(conn);
    })();
    const flags = [...clientFlags(dir, port), "--identity", "default"];
    const { code, stderr } = await run("client", [...flags, ...args, "hello"]);
    await serving;
    return `${code} ${stderr}`;
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

const heard = (conn: Deno.TlsConn) => conn.read(new Uint8Array(4096));
const said = (text: string) => async (conn: Deno.TlsConn) => {
  await heard(conn);
  await conn.write(bytesOf(text));
  await conn.closeWrite();
};
/** Until the client has given up. */
const silent = async (conn: Deno.TlsConn) => {
  while (await heard(conn).catch(() => null));
};

const RAW: [string, (conn: Deno.TlsConn) => Promise<unknown>, RegExp][] = [
  [
    "answers in HTTP",
    said(BAD_REQUEST),
    /HTTP\/1\.1 400 Bad Request.*--websocket/,
  ],
  [
    "closes at once",
    () => Promise.resolve(),
    /closed the connection without.*--websocket/,
  ],
  ["closes at the hello", heard, /closed the connection without.*--websocket/],
  [
    "waits for a newline",
    silent,
    /innerlock did not answer within 1 s.*--websocket/,
  ],
];

for (const [name, answer, words] of RAW) {
  for (const alpn of [[], ["http/1.1"]]) {
    testUnless(reason, `client: a box that ${name}, ALPN ${alpn}`, async () => {
      const line = await clientAt(answer, ["--handshake-timeout", "1"], alpn);
      assert(words.test(line), line);
      assert(line.startsWith("1 client: "), line);
      assert(!/another key|refused|--websocket.*--websocket/.test(line), line);
    });
  }
}

const HTTP = (status: string) => said(`HTTP/1.1 ${status}\r\n\r\n`);
const UPGRADES: [string, (conn: Deno.TlsConn) => Promise<unknown>, RegExp][] = [
  [
    "has no such path",
    HTTP("404 Not Found"),
    /404 Not Found.*--websocket PATH/,
  ],
  [
    "takes the upgrade out",
    HTTP("426 Upgrade Required"),
    /426.*Upgrade.*BOXES\.md/,
  ],
  [
    "finds no server",
    HTTP("502 Bad Gateway"),
    /502 Bad Gateway.*cannot reach/,
  ],
  [
    "asks for a login",
    HTTP("401 Unauthorized"),
    /401 Unauthorized.*whoever runs it/,
  ],
  [
    "is a web server",
    HTTP("200 OK"),
    /200 OK; is it innerlock, or a box in front of it\?/,
  ],
  [
    "is none of HTTP",
    said("220 mail\r\n"),
    /does not speak HTTP.*without --websocket/,
  ],
  ["closes", heard, /closed the connection.*may not reach/],
  ["says nothing", silent, /no WebSocket opened within 1 s/],
];

for (const [name, answer, words] of UPGRADES) {
  testUnless(reason, `client --websocket: a box that ${name}`, async () => {
    const args = ["--handshake-timeout", "1", "--websocket", "--"];
    const line = await clientAt(answer, args);
    assert(words.test(line), line);
    assert(line.startsWith("1 client: "), line);
    assert(!/another key|refused/.test(line), line);
  });
}

testUnless(
  reason,
  "client: a wrong key is still called one, with and without a WebSocket",
  withCerts(async (dir) => {
    await using server = await TestServer.start(serverFlags(dir));
    // The server would read its own again.
    await Deno.writeTextFile(`${dir}/other.txt`, PSK, { mode: 0o600 });
    for (const args of [["hello"], ["--websocket", "--", "hello"]]) {
      const flags = clientFlags(dir, server.port)
        .map((flag) => flag.replace("psk.txt", "other.txt"));
      flags.push("--identity", "default");
      const { code, stderr } = await run("client", [...flags, ...args]);
      assertEquals(code, 3, stderr);
      assert(stderr.includes("or has another key for it"), stderr);
    }
  }),
);
