/** Sessions through the boxes of docs/BOXES.md, and what those can read of them. */

import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { ChannelError } from "../lib/mod.ts";
import { connectThroughProxy } from "../lib/carrier/proxy.ts";
import { connectWebSocket } from "../lib/carrier/websocket_handshake.ts";
import type { Transport } from "../lib/lock/transport.ts";
import { writeAll } from "../lib/lock/transport.ts";
import {
  Box,
  type BoxName,
  CREDENTIALS,
  headings,
  lacksBox,
  nginxPaths,
  serverArgs,
} from "./boxes.ts";
import {
  clientFlags,
  dial,
  freePort,
  MAY_RUN,
  run as runProgram,
  start,
  TestEntrance,
  TestServer,
  withCerts,
} from "./programs.ts";
import { found, OuterAlone, Recorder, tracesOf } from "./recorder.ts";
import { lacksPermissions, lacksProgram, testUnless } from "./requirements.ts";
import {
  freePlace,
  HAS_POSTGRES,
  postgresArgs,
  run,
  Service,
  startPostgres,
} from "./services.ts";
import type { Bytes } from "./scripted.ts";

const mayRun = lacksPermissions(...MAY_RUN);

/** A test with a folder of certificates, and boxes that must be there. */
function test(
  name: string,
  boxes: BoxName[],
  fn: (certs: string) => Promise<void>,
  lacking = mayRun,
): void {
  const reason = boxes.reduce<string | undefined>(
    (reason, box) => reason ?? lacksBox(box),
    mayRun ?? lacking,
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

/** Boxes of a kind, at the same time: most of it is waiting for programs. */
const KINDS: Record<string, [name: BoxName, changes?: Changes][]> = {
  "reverse proxies": [
    ["nginx"],
    ["caddy"],
    ["HAProxy, mode http"],
    ["Varnish"],
  ],
  "boxes that look no further": [
    ["nginx, stream"],
    ["nginx, stream", { edit: (lines) => lines.replace(/ssl_alpn.*;/, "") }],
    ["HAProxy, mode tcp"],
    ["HAProxy, mode tcp", { edit: (lines) => lines.replace("-v2", "") }],
    ["sslsplit"],
  ],
  "forward proxies": [
    ["squid"],
    ["squid, with a password"],
    ["tinyproxy"],
    ["privoxy"],
  ],
  "boxes that look into TLS": [
    ["squid that looks into TLS"],
    ["mitmproxy"],
    ["mitmproxy", { clientArgs: asFrames }],
    ["mitmproxy, in reverse"],
    ["mitmproxy, in reverse", { clientArgs: asFrames }],
  ],
};

for (const [kind, cases] of Object.entries(KINDS)) {
  const missing = cases.flatMap(([name]) => lacksBox(name) ?? []);
  const here = cases.filter(([name]) => !lacksBox(name));
  const name = [kind, ...new Set(missing)].join(", ");
  test(name, here.map(([name]) => name), async (certs) => {
    await each(here, async ([name, changes]) => {
      const log = await prove(name, certs, changes);
      if (Box.behind(name) === "plain") assertRealAddress(log);
    });
  }, here.length === 0 ? missing[0] : undefined);
}

testUnless(
  lacksPermissions("read"),
  "boxes: all of the page are tried",
  async () => {
    const tried = Object.values(KINDS).flat().map(([name]) => name);
    assertEquals(new Set<string>(tried), new Set(await headings()));
  },
);

/** The client's own, not that of the box. */
function assertRealAddress(log: string): void {
  assertMatch(log, /Z 127\.0\.0\.1(:\d+)? default connected/);
  assert(!log.includes(`${Recorder.ADDRESS}:`), log);
}

/** Does it for all at once, and waits for all. */
async function each<T>(
  cases: T[],
  work: (one: T) => Promise<void>,
): Promise<void> {
  const results = await Promise.allSettled(cases.map(work));
  for (const [i, result] of results.entries()) {
    if (result.status === "fulfilled") continue;
    throw new Error(`${cases[i]} fails`, { cause: result.reason });
  }
}

/** Frames as they are, where the page has a WebSocket. */
function asFrames(args: string[]): string[] {
  // mitmproxy does not always pass on that a connection has ended.
  return [...without("--websocket")(args), "--grace", "0"];
}

const without = (flag: string) => (args: string[]) =>
  args.filter((arg) => arg !== flag);

test("nginx ends what is silent for its time, and pings keep a channel", [
  "nginx",
], async (certs) => {
  await using http = backend();
  // 130 s at nginx's own 60 s and --idle-timeout 25, at a twentieth of the time.
  await using way = await open("nginx", certs, http.addr.port, {
    edit: (lines) =>
      lines.replace("proxy_http_version", "proxy_read_timeout 3s; $&"),
  });
  const quiet = await dial(certs, way.box.port, {
    websocket: true,
    idleTimeout: 1250,
  });
  for (let i = 0; i < 2; i++) {
    const silent = await dial(certs, way.box.port, {
      websocket: true,
      idleTimeout: 0,
    });
    const error = await assertRejects(() => silent.closed, ChannelError);
    assertEquals(error.code, "cut");
  }
  await session(quiet, newSecret());
});

const PG_BOXES: BoxName[] = ["nginx", "squid that looks into TLS"];

test("PostgreSQL, by way of nginx and of squid", PG_BOXES, async (certs) => {
  const place = freePlace();
  await using _ = await startPostgres(certs, place);
  await each(PG_BOXES, async (name) => {
    const secret = newSecret();
    await using way = await open(name, certs, place.port);
    const table = `t${name.length}`;
    const answer = await run([
      ...["psql", ...postgresArgs(way.entrance.address), "-qAt"],
      ...["-c", `create table ${table} (a text)`],
      ...["-c", `insert into ${table} values ('${secret}')`],
      ...["-c", `select upper(a) from ${table}`],
    ]);
    assertEquals(answer, `${secret.toUpperCase()}\n`);
    await way.entrance.stop();
    await way.box.stop();
    const dump = await way.recorder.seen();
    assertEquals(found("innerlock/1 default", dump).length > 0, true);
    for (
      const text of [secret, secret.toUpperCase(), `create table ${table}`]
    ) {
      assertEquals(found(text, dump), []);
    }
  });
}, lacksProgram(HAS_POSTGRES, "postgresql-15"));

/** What the client says, and its exit code. */
async function words(certs: string, args: string[]): Promise<string> {
  const own = ["--psk", `${certs}/psk.txt`, "--handshake-timeout", "2"];
  const listen = args.indexOf("--listen");
  const rest = args.toSpliced(listen, 2);
  const { code, stderr } = await runProgram("client", [
    ...rest,
    ...own,
    "hello",
  ]);
  return `${code} ${stderr}`;
}

/** With nobody behind it, whom HAProxy would try again for longer than we wait. */
const startAlone = (name: BoxName, certs: string) =>
  Box.start(
    name,
    certs,
    freePort(),
    (lines) => lines.replace(/^backend .*$/m, "$&\n    retries 0"),
  );

const HTTP_BOXES: BoxName[] = [
  "nginx",
  "caddy",
  "HAProxy, mode http",
  "squid that looks into TLS",
];

test(
  "what a client says at boxes that speak HTTP",
  HTTP_BOXES,
  async (certs) => {
    await each(HTTP_BOXES, async (name) => {
      await using box = await startAlone(name, certs);
      const raw = await words(certs, without("--websocket")(box.clientArgs));
      assertMatch(
        raw,
        /^1 client: .*(HTTP\/1\.\d 400|innerlock did not answer)/,
      );
      assertMatch(raw, /; if a box in between speaks HTTP, use --websocket\n$/);
      assert(!raw.includes("another key"), raw);
      const upgraded = await words(certs, box.clientArgs);
      assertMatch(upgraded, /^1 client: .*HTTP\/1\.\d 50[23] .*cannot reach/);
    });
  },
);

const TCP_BOXES: BoxName[] = ["nginx, stream", "HAProxy, mode tcp"];

test(
  "what a client says at boxes that reach nobody",
  TCP_BOXES,
  async (certs) => {
    await each(TCP_BOXES, async (name) => {
      await using box = await startAlone(name, certs);
      const line = await words(certs, box.clientArgs);
      assertMatch(
        line,
        /^1 client: .* closed the connection without an answer/,
      );
      assert(!line.includes("another key"), line);
    });
  },
);

test(
  "a wrong key is called one behind a box that speaks HTTP",
  ["nginx"],
  async (certs) => {
    await using http = backend();
    await using way = await open("nginx", certs, http.addr.port);
    const other = `${certs}/other.txt`;
    await Deno.writeTextFile(other, `default:${"0e".repeat(32)}\n`, {
      mode: 0o600,
    });
    const args = [...way.box.clientArgs, "--psk", other];
    const { code, stderr } = await runProgram(
      "client",
      args.toSpliced(args.indexOf("--listen"), 2),
    );
    assertEquals(code, 3);
    assertMatch(stderr, /another key/);
  },
);

test(
  "deploy/nginx.conf deals clients out, and leaves a server out that is gone",
  ["nginx"],
  async (certs) => {
    const [port, first, second] = [freePort(), freePort(), freePort()];
    const page = await Deno.readTextFile(
      new URL("../deploy/nginx.conf", import.meta.url),
    );
    const file = `${certs}/nginx.conf`;
    await Deno.writeTextFile(
      file,
      page.replaceAll("/etc/innerlock/", `${certs}/`)
        .replace("/run/nginx.pid", `${certs}/nginx.pid`)
        .replace("/var/log/nginx/error.log", "stderr")
        .replace("listen 443", `listen 127.0.0.1:${port}`)
        .replace("127.0.0.1:5001", `127.0.0.1:${first}`)
        .replace("127.0.0.1:5002", `127.0.0.1:${second}`)
        .replace("http {", `http { ${nginxPaths(certs)}`),
    );
    await run(["nginx", "-t", "-q", "-c", file]);
    const command = ["nginx", "-c", file, "-g", "daemon off;"];
    const flags = ["--no-tls", "--psk", `${certs}/psk.txt`];
    const proxies = ["--proxies", "127.0.0.1"];
    const servers = await Promise.all(
      [first, second].map((port) =>
        TestServer.start([...flags, ...proxies], port)
      ),
    );
    const place = { host: "127.0.0.1", port };
    await using _ = await Service.start(command, place);
    const say = async () => {
      const args = [...clientFlags(certs, port), "--websocket", "--", "hello"];
      const { text, stderr } = await runProgram("client", args);
      assertEquals([text, stderr], ["HELLO\n", ""]);
    };
    await Promise.all([say(), say(), say(), say()]);
    assertMatch(await servers[0]!.stop(), /127\.0\.0\.1\S* default connected/);
    await say();
    assertMatch(await servers[1]!.stop(), /127\.0\.0\.1\S* default connected/);
    const http = Deno.createHttpClient({
      caCerts: [await Deno.readTextFile(`${certs}/cert.pem`)],
    });
    using client = http;
    const elsewhere = await fetch(`https://localhost:${port}/`, { client });
    await elsewhere.body?.cancel();
    assertEquals(elsewhere.status, 404);
  },
);
