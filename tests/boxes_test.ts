/** Sessions through the boxes of docs/BOXES.md, and what those can read of them. */

import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { connectThroughProxy } from "../lib/proxy.ts";
import { connectWebSocket } from "../lib/rfc6455.ts";
import type { Transport } from "../lib/transport.ts";
import { writeAll } from "../lib/transport.ts";
import {
  Box,
  BOX_NAMES,
  type BoxName,
  CREDENTIALS,
  lacksBox,
  serverArgs,
} from "./boxes.ts";
import {
  MAY_RUN,
  start,
  TestEntrance,
  TestServer,
  withCerts,
} from "./programs.ts";
import { found, OuterAlone, Recorder, tracesOf } from "./recorder.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";
import type { Bytes } from "./scripted.ts";

const mayRun = lacksPermissions(...MAY_RUN);

/** A test with a folder of certificates, and boxes that must be there. */
function test(
  name: string,
  boxes: BoxName[],
  fn: (certs: string) => Promise<void>,
): void {
  const reason = boxes.reduce<string | undefined>(
    (reason, box) => reason ?? lacksBox(box),
    mayRun,
  );
  testUnless(reason, `boxes: ${name}`, withCerts(fn));
}

/** An HTTP server that answers with the same secret in capitals. */
function backend() {
  return Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    async (request) => new Response((await request.text()).toUpperCase()),
  );
}

const newSecret = () => `secret-${crypto.randomUUID()}`;

/** A session of HTTP, with the secret in a head and all over a body. */
async function session(conn: Transport, secret: string): Promise<void> {
  const body = `${secret}\n`.repeat(5000);
  const request = `POST / HTTP/1.1\r\nHost: backend\r\nCookie: ${secret}\r\n` +
    `Content-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`;
  const [answer] = await Promise.all([
    readAnswer(conn),
    writeAll(conn, new TextEncoder().encode(request)),
  ]).finally(() => conn.close());
  assertMatch(answer, /^HTTP\/1\.1 200 OK\r\n/);
  assert(answer.endsWith(`\r\n\r\n${body.toUpperCase()}`), "not the answer");
}

/** An answer up to its end, at which not all boxes close. */
async function readAnswer(conn: Transport): Promise<string> {
  const buffer = new Uint8Array(65_536);
  let answer = "";
  while (true) {
    const [head, body] = answer.split("\r\n\r\n");
    const length = /^content-length: (\d+)/im.exec(head!)?.[1];
    if (body?.length === Number(length)) return answer;
    const count = await conn.read(buffer);
    if (count === null) throw new Error(`No whole answer: ${head}`);
    answer += new TextDecoder().decode(buffer.subarray(0, count));
  }
}

/** All between a local caller and a backend, with a box in the middle. */
interface Way extends AsyncDisposable {
  box: Box;
  recorder: Recorder;
  server: TestServer;
  entrance: TestEntrance;
}

/** What differs from docs/BOXES.md. */
interface Changes {
  /** What the client is told. */
  clientArgs?: (args: string[]) => string[];
  /** The box's lines. */
  edit?: (lines: string) => string;
}

async function open(
  name: BoxName,
  certs: string,
  backend: number,
  { clientArgs = (args) => args, edit }: Changes = {},
): Promise<Way> {
  await using stack = new AsyncDisposableStack();
  const args = (await serverArgs(name, certs, backend))
    // The box calls from there.
    .map((arg, i, all) => all[i - 1] === "--proxies" ? Recorder.ADDRESS : arg);
  const server = stack.use(await TestServer.of(start("server", args)));
  const read = (file: string) => Deno.readTextFile(`${certs}/${file}`);
  const cert = await read("cert.pem");
  const pair = { cert, key: await read("key.pem") };
  const { port } = server;
  const behind = Box.behind(name);
  const recorder = stack.use(
    behind === "tls"
      ? new Recorder({ port, caCert: cert }, pair)
      : new Recorder({ port }),
  );
  const box = stack.use(await Box.start(name, certs, recorder.port, edit));
  box.clientArgs = clientArgs(box.clientArgs);
  const entrance = stack.use(
    await TestEntrance.of(start("client", [
      ...box.clientArgs,
      ...["--psk", `${certs}/psk.txt`],
    ])),
  );
  const all = stack.move();
  return {
    ...{ box, recorder, server, entrance },
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

const enter = ({ entrance: { address: { host, port } } }: Way) =>
  Deno.connect({ hostname: host, port });

/** The same way as the client's, but for the inner lock. */
async function withoutInnerLock({ box }: Way): Promise<Transport> {
  const { clientArgs, port } = box;
  const after = (flag: string) => clientArgs[clientArgs.indexOf(flag) + 1]!;
  const server = { hostname: "localhost", port: Number(after("--port")) };
  const tcp = await Deno.connect({ hostname: "127.0.0.1", port });
  if (clientArgs.includes("--proxy")) {
    const credentials = CREDENTIALS;
    await connectThroughProxy(tcp, { ...server, credentials });
  }
  const conn = await Deno.startTls(tcp, {
    hostname: "localhost",
    caCerts: [await Deno.readTextFile(after("--ca"))],
    alpnProtocols: ["http/1.1"],
  });
  return clientArgs.includes("--websocket")
    ? await connectWebSocket(conn, { host: `localhost:${server.port}` })
    : conn;
}

/** Both ways through a box, and what it had to read afterwards. */
async function prove(
  name: BoxName,
  certs: string,
  changes: Changes = {},
): Promise<string> {
  await using http = backend();
  const { port } = http.addr;
  const sealed = newSecret();
  const readable = newSecret();
  await using way = await open(name, certs, port, changes);
  const { box, recorder, entrance, server } = way;
  await session(await enter(way), sealed);
  await entrance.stop();
  const log = await server.stop();
  const hasHeader = (await serverArgs(name, certs, port))
    .includes("--proxy-protocol");
  const isWebSocket = box.clientArgs.includes("--websocket");
  if (box.behind !== "through") {
    await using outer = new OuterAlone(port, { isWebSocket, hasHeader });
    recorder.target = outer.target;
    await session(await withoutInnerLock(way), readable);
  }
  await box.stop();
  const dumps = [await recorder.seen(), await box.seen()]
    .filter((dump) => dump !== undefined);
  for (const dump of dumps) check(dump, sealed, readable, box.behind);
  return log;
}

function check(
  dump: Bytes,
  sealed: string,
  readable: string,
  behind: Box["behind"],
): void {
  for (const secret of [sealed, sealed.toUpperCase()]) {
    assertEquals(found(secret, dump), []);
  }
  if (behind === "through") return;
  // It is the session that was looked through, and the search finds.
  assertEquals(found("innerlock/1 default", dump).length > 0, true);
  for (const secret of [readable, readable.toUpperCase()]) {
    assertEquals(found(secret, dump), [secret]);
  }
}

Deno.test("boxes: a search finds a secret in hex, and in base64 at any place", () => {
  const secret = newSecret();
  const forms = [
    new TextEncoder().encode(secret).toHex(),
    ...["", "a", "ab", "abc"].map((before) => btoa(`${before}${secret}after`)),
  ];
  for (const form of forms) {
    assertEquals(
      found(secret, new TextEncoder().encode(`…${form}…`)).length,
      1,
    );
  }
  assertEquals(tracesOf(secret).length, 6);
});

for (const name of BOX_NAMES) {
  test(name, [name], async (certs) => {
    await prove(name, certs);
  });
}

for (const name of ["mitmproxy", "mitmproxy, in reverse"] as const) {
  test(`${name}, frames as they are`, [name], async (certs) => {
    await prove(name, certs, {
      clientArgs: (args) => [
        ...args.filter((arg) => arg !== "--websocket"),
        // It does not always pass on that a connection has ended.
        ...["--grace", "0"],
      ],
    });
  });
}

/** A backend that sends each byte back. */
function echo(): Deno.TcpListener {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  (async () => {
    for await (const conn of listener) {
      conn.readable.pipeTo(conn.writable).catch(() => {});
    }
  })();
  return listener;
}

const IMPATIENT = (lines: string) =>
  lines.replace("proxy_http_version", "proxy_read_timeout 3s;\n$&");

test(
  "nginx: pings keep a quiet channel beyond proxy_read_timeout",
  ["nginx"],
  async (certs) => {
    using backend = echo();
    const clientArgs = (args: string[]) => [
      ...args,
      ...["--idle-timeout", "1", "--trace"],
    ];
    const changes = { clientArgs, edit: IMPATIENT };
    await using way = await open("nginx", certs, backend.addr.port, changes);
    using conn = await enter(way);
    const byte = new Uint8Array(1);
    const there = async () => {
      await conn.write(byte);
      assertEquals(await conn.read(byte), 1);
    };
    await there();
    // Two each second, given and taken: more than twice nginx's patience.
    for (let n = 0; n < 16; n++) await way.entrance.logged(" pong ");
    await there();
  },
);

test("nginx: without pings it cuts a quiet channel, and that is a reset", [
  "nginx",
], async (certs) => {
  using backend = echo();
  const clientArgs = (args: string[]) => [...args, "--idle-timeout", "0"];
  const changes = { clientArgs, edit: IMPATIENT };
  await using way = await open("nginx", certs, backend.addr.port, changes);
  using conn = await enter(way);
  const byte = new Uint8Array(1);
  await conn.write(byte);
  assertEquals(await conn.read(byte), 1);
  await assertRejects(() => conn.read(byte), Deno.errors.ConnectionReset);
});
