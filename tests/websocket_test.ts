import { assert, assertEquals, assertRejects } from "@std/assert";
import { HttpError, MAX_HEAD_LENGTH } from "../lib/carrier/http.ts";
import { ChannelError, type Transport } from "../lib/mod.ts";
import { WebSocketTransport } from "../lib/carrier/websocket_frames.ts";
import {
  acceptWebSocket,
  connectWebSocket,
  HealthCheck,
} from "../lib/carrier/websocket_handshake.ts";
import { toTransport, writeAll } from "../lib/lock/transport.ts";
import { settled } from "./pipe.ts";
import { duplex, pieces, whole, type Wire } from "./duplex.ts";
import { type Bytes, concat, readAll, Scripted } from "./scripted.ts";
import {
  decodeFrames,
  encodeFrame,
  type Frame,
  KEY,
  Opcode,
} from "./websocket_frame.ts";

const bytesOf = (text: string) => new TextEncoder().encode(text) as Bytes;
const textOf = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** Bytes that differ from their neighbours. */
const pattern = (length: number) =>
  new Uint8Array(length).map((_, i) => i * 7 + (i >> 8));

const CUTS: [string, number[]][] = [
  ["whole", [1 << 20]],
  ["split", [3, 1, 4, 700]],
  ["byte by byte", [1]],
];

const WIRES: [string, Wire][] = [
  ["whole", whole],
  ["split", pieces(5)],
  ["byte by byte", pieces(1)],
];

const ROLES = ["client", "server"] as const;
type Role = typeof ROLES[number];

/** What a peer of `role` says: a server's peer masks. */
const said = (role: Role, frames: Frame[]) =>
  concat(
    frames.map((frame) =>
      encodeFrame({ key: role === "server" ? KEY : undefined, ...frame })
    ),
  );

const binary = (payload: Uint8Array): Frame => ({
  opcode: Opcode.binary,
  payload,
});

/** Over a peer that says this and takes what comes. */
function open(role: Role, frames: Frame[] | Bytes, cuts?: number[]) {
  const bytes = frames instanceof Uint8Array ? frames : said(role, frames);
  const peer = new Scripted(bytes, cuts);
  const socket = new WebSocketTransport(peer, role);
  return {
    peer,
    socket,
    /** What the peer got. */
    frames: () => decodeFrames(concat(peer.taken)),
  };
}

// The opening handshake (RFC 6455, section 4).

const KEY_FIELD = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

const request = (changes: Record<string, string> = {}) => {
  const lines: Record<string, string> = {
    start: "GET /innerlock HTTP/1.1",
    host: "Host: localhost",
    upgrade: "Upgrade: websocket",
    connection: "Connection: Upgrade",
    key: KEY_FIELD,
    version: "Sec-WebSocket-Version: 13",
    ...changes,
  };
  return Object.values(lines).filter(Boolean).join("\r\n") + "\r\n\r\n";
};

for (const [name, wire] of WIRES) {
  Deno.test(`WebSocket carries bytes both ways, ${name}`, async () => {
    const [near, far] = duplex(wire, wire);
    const [client, accepted] = await Promise.all([
      connectWebSocket(toTransport(near), { host: "localhost" }),
      acceptWebSocket(toTransport(far)),
    ]);
    const server = accepted.transport;
    const send = async (socket: Transport, bytes: Uint8Array) => {
      await writeAll(socket, bytes);
      await socket.closeWrite();
    };
    const [up, down] = await Promise.all([
      readAll(server),
      readAll(client),
      send(client, pattern(3000)),
      send(server, pattern(200)),
    ]);
    assertEquals(up, pattern(3000));
    assertEquals(down, pattern(200));
  });
}

Deno.test("connectWebSocket asks for host and path, and offers nothing else", async () => {
  const peer = new Scripted(new Uint8Array(0));
  const opening = connectWebSocket(peer, {
    host: "box.example:8443",
    path: "/a?b=%20",
  });
  await assertRejects(() => opening, HttpError);
  const [start, ...fields] = textOf(concat(peer.taken)).split("\r\n");
  assertEquals(start, "GET /a?b=%20 HTTP/1.1");
  const keyField = fields.find((field) =>
    field.startsWith("Sec-WebSocket-Key")
  );
  assert(/^Sec-WebSocket-Key: [\w+/]{22}==$/.test(keyField!));
  assertEquals(fields.filter((field) => field !== keyField), [
    "Host: box.example:8443",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "",
    "",
  ]);
});

for (
  const options of [
    { host: "a\r\nX: y" },
    { host: "" },
    { host: "a", path: "innerlock" },
    { host: "a", path: "/a b" },
    { host: "a", path: "/a\r\nX: y" },
    { host: "a", path: "/ü" },
    { host: "a", path: "/a#b" },
  ]
) {
  Deno.test(`connectWebSocket refuses ${JSON.stringify(options)}`, async () => {
    const peer = new Scripted(new Uint8Array(0));
    await assertRejects(() => connectWebSocket(peer, options), TypeError);
    assertEquals(peer.taken, []);
  });
}

Deno.test("acceptWebSocket answers the key of RFC 6455, section 1.3", async () => {
  const peer = new Scripted(bytesOf(request()));
  await acceptWebSocket(peer);
  assertEquals(
    textOf(concat(peer.taken)),
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n" +
      "Connection: Upgrade\r\n" +
      "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
  );
});

Deno.test("acceptWebSocket takes any path, and what boxes add to a request", async () => {
  const peer = new Scripted(bytesOf(request({
    start: "GET /any?path HTTP/1.1",
    upgrade: "uPGRADE:WebSocket",
    connection: "connection:   keep-alive, upgrade\t",
    other: "Sec-WebSocket-Extensions: permessage-deflate",
    forwarded: "X-Forwarded-For: 192.0.2.1",
    again: "x-forwarded-for: 198.51.100.7",
  })));
  const { headers } = await acceptWebSocket(peer);
  assertEquals(headers.get("x-forwarded-for"), "192.0.2.1, 198.51.100.7");
});

for (const [name, cuts] of CUTS) {
  Deno.test(`acceptWebSocket gives what follows the request, ${name}`, async () => {
    const rest = said("server", [binary(pattern(300))]);
    const peer = new Scripted(concat([bytesOf(request()), rest]), cuts);
    const { transport } = await acceptWebSocket(peer);
    assertEquals(await readAll(transport), pattern(300));
  });
}

const REFUSED: [string, Record<string, string>, string][] = [
  [
    "a plain GET",
    { upgrade: "", connection: "", key: "", version: "" },
    "no WebSocket",
  ],
  ["HTTP/1.0", { start: "GET / HTTP/1.0" }, "HTTP/1.0"],
  ["another method", { start: "GUESS / HTTP/1.1" }, "a method other than GET"],
  ["another upgrade", { upgrade: "Upgrade: h2c" }, "no WebSocket"],
  ["no Connection", { connection: "" }, "Connection"],
  [
    "a Connection that closes",
    { connection: "Connection: close" },
    "Connection",
  ],
  ["no version", { version: "" }, "version"],
  ["version 8", { version: "Sec-WebSocket-Version: 8" }, "version"],
  ["no key", { key: "" }, "key"],
  ["a short key", { key: "Sec-WebSocket-Key: AAAA" }, "key"],
];

for (const [name, changes, message] of REFUSED) {
  Deno.test(`acceptWebSocket answers ${name} with 426 alone`, async () => {
    const peer = new Scripted(bytesOf(request(changes)));
    const error = await assertRejects(
      () => acceptWebSocket(peer),
      HttpError,
      message,
    );
    assertEquals([error.code, error.reason], ["protocol", "no-upgrade"]);
    const answer = textOf(concat(peer.taken));
    assertEquals(
      answer,
      "HTTP/1.1 426 Upgrade Required\r\nConnection: close, Upgrade\r\n" +
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
        "Content-Length: 0\r\n\r\n",
    );
    assert(peer.isEnded);
  });
}

for (
  const [start, isCheck] of [
    ["GET /healthz HTTP/1.1", true],
    ["GET /healthz?from=probe HTTP/1.0", true],
    ["HEAD / HTTP/1.1", true],
    ["OPTIONS / HTTP/1.0", true],
    ["OPTIONS * HTTP/1.1", true],
    ["GET /healthz/x HTTP/1.1", false],
    ["GET / HTTP/1.1", false],
    ["HEADS / HTTP/1.1", false],
    ["HEAD /", false],
  ] as const
) {
  Deno.test(`acceptWebSocket says how it is, or does not: ${start}`, async () => {
    for (const isHealthy of [true, false]) {
      const peer = new Scripted(bytesOf(`${start}\r\nHost: a\r\n\r\n`));
      const options = { isHealthy: () => isHealthy };
      const error = await acceptWebSocket(peer, options).catch((error) =>
        error
      );
      assertEquals(error instanceof HealthCheck, isCheck);
      if (!isCheck) continue;
      const status = isHealthy ? "200 OK" : "503 Service Unavailable";
      assertEquals(
        textOf(concat(peer.taken)),
        `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`,
      );
      assert(peer.isEnded);
    }
  });
}

Deno.test("acceptWebSocket: a WebSocket may be at the path of health checks", async () => {
  const peer = new Scripted(
    bytesOf(request({ start: "GET /healthz HTTP/1.1" })),
  );
  await acceptWebSocket(peer);
});

Deno.test("acceptWebSocket reads what follows a refused request, up to a bound", async () => {
  const body = new Uint8Array(100_000);
  const peer = new Scripted(concat([bytesOf("GET / HTTP/1.1\r\n\r\n"), body]));
  await assertRejects(() => acceptWebSocket(peer), HttpError);
  const read = peer.said.length - peer.left.length;
  assert(read > 16_384 && read < 30_000, `${read} bytes`);
});

Deno.test("acceptWebSocket says nothing to what is no HTTP", async () => {
  const cases: [string, string][] = [
    ["", "closed"],
    ["GET / HTTP/1.1\r\nHost: a\r\n", "closed"],
    ["GET / HTTP/1.1\r\nno colon\r\n\r\n", "not-http"],
    ["GET / HTTP/1.1\r\nName : value\r\n\r\n", "not-http"],
    ["GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", "not-http"],
    ["G\0", "not-http"],
    ["GARBAGE\r\n\r\n", "no-upgrade"],
  ];
  for (const [text, reason] of cases) {
    const peer = new Scripted(bytesOf(text), [1]);
    const error = await assertRejects(() => acceptWebSocket(peer), HttpError);
    assertEquals(error.reason, reason, JSON.stringify(text));
    assertEquals(peer.taken, []);
  }
});

Deno.test("an error shows what a peer said without control characters, and not all", async () => {
  for (
    const path of [`/\x1b[31m${"x".repeat(200)}`, `/\xff${"y".repeat(200)}`]
  ) {
    const said = Uint8Array.from(
      `GET ${path} HTTP/1.1\r\n\r\n`,
      (letter) => letter.charCodeAt(0),
    );
    const opening = acceptWebSocket(new Scripted(said));
    const { message } = await assertRejects(() => opening, HttpError);
    assert(/^[\x20-\x7e…]{1,200}$/.test(message), message);
  }
});

for (const [name, cuts] of CUTS) {
  Deno.test(`a request's head may have ${MAX_HEAD_LENGTH} bytes and no more, ${name}`, async () => {
    const room = MAX_HEAD_LENGTH - request({ filler: "F: " }).length;
    for (const extra of [-1, 0, 1]) {
      const filler = `F: ${"f".repeat(room + extra)}`;
      const peer = new Scripted(bytesOf(request({ filler })), cuts);
      if (extra <= 0) await acceptWebSocket(peer);
      else {
        const error = await assertRejects(
          () => acceptWebSocket(peer),
          HttpError,
        );
        assertEquals(error.reason, "too-long");
      }
    }
  });
}

// A server that answers this to whatever it is asked.
const asked = (answer: string) =>
  connectWebSocket(new Scripted(bytesOf(answer)), { host: "localhost" });

const SWITCHING = "HTTP/1.1 101 Switching Protocols\r\n";
const UPGRADED = SWITCHING + "Upgrade: websocket\r\nConnection: Upgrade\r\n";

const ANSWERS: [string, string, string, number | undefined, string][] = [
  ["nothing", "", "closed", undefined, "said nothing"],
  ["half a head", "HTTP/1.1 101 Swit", "closed", undefined, "in the middle"],
  [
    "404",
    "HTTP/1.1 404 Not Found\r\nServer: nginx\r\n\r\nno",
    "status",
    404,
    "404 Not Found",
  ],
  ["200", "HTTP/1.0 200 OK\r\n\r\n", "status", 200, "200 OK"],
  ["426", "HTTP/1.1 426 Upgrade Required\r\n\r\n", "status", 426, "426"],
  ["no phrase", "HTTP/1.1 502\r\n\r\n", "status", 502, "502"],
  [
    "bare line feeds",
    "HTTP/1.1 400 Bad Request\nA: b\n\n",
    "status",
    400,
    "400",
  ],
  ["frames", "\0\x30abc", "not-http", undefined, 'HTTP: it sent "\\x000abc"'],
  ["SSH", "SSH-2.0-OpenSSH_9.2\r\n", "not-http", undefined, "SSH-2.0-OpenSSH"],
  ["HTTP/2", "HTTP/2 200\r\n\r\n", "not-http", undefined, "HTTP/2 200"],
  [
    "a TLS alert",
    "\x15\x03\x01\0\x02\x02\x46",
    "not-http",
    undefined,
    "\\x15\\x03",
  ],
  [
    "no Upgrade",
    SWITCHING + "Connection: Upgrade\r\n\r\n",
    "no-upgrade",
    101,
    "a protocol other than WebSocket",
  ],
  [
    "no Connection",
    SWITCHING + "Upgrade: websocket\r\n\r\n",
    "no-upgrade",
    101,
    "a protocol other than WebSocket",
  ],
  ["no Accept", UPGRADED + "\r\n", "no-upgrade", 101, "Accept"],
  [
    "another Accept",
    UPGRADED + "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    "no-upgrade",
    101,
    "Accept",
  ],
  [
    "too long a head",
    `HTTP/1.1 200 OK\r\nA: ${"a".repeat(8192)}`,
    "too-long",
    undefined,
    "8192",
  ],
];

for (const [name, answer, reason, status, message] of ANSWERS) {
  Deno.test(`connectWebSocket tells of ${name}`, async () => {
    const opening = asked(answer);
    const error = await assertRejects(() => opening, HttpError, message);
    assertEquals(
      [error.code, error.reason, error.status],
      ["protocol", reason, status],
    );
  });
}

Deno.test("connectWebSocket gives the fields of the answer that refused it", async () => {
  const opening = asked("HTTP/1.1 403 Forbidden\r\nServer: cloud\r\n\r\n");
  const error = await assertRejects(() => opening, HttpError);
  assertEquals(error.startLine, "HTTP/1.1 403 Forbidden");
  assertEquals(error.headers?.get("server"), "cloud");
});

for (
  const field of [
    "Sec-WebSocket-Extensions: permessage-deflate",
    "Sec-WebSocket-Protocol: chat",
  ]
) {
  Deno.test(`connectWebSocket refuses an answer with ${field}`, async () => {
    const [near, far] = duplex();
    const server = toTransport(far);
    const opening = connectWebSocket(toTransport(near), { host: "a" });
    const asked = new Uint8Array(8192);
    const count = await server.read(asked);
    const key = /Key: (\S+)/.exec(textOf(asked.subarray(0, count!)))![1]!;
    // The right answer, by a server of our own, with one field more.
    const right = new Scripted(
      bytesOf(request({ key: `Sec-WebSocket-Key: ${key}` })),
    );
    await acceptWebSocket(right);
    const answer = textOf(concat(right.taken)).replace(
      "\r\n\r\n",
      `\r\n${field}\r\n\r\n`,
    );
    const refused = assertRejects(() => opening, HttpError, "was offered none");
    await writeAll(server, bytesOf(answer));
    await refused;
  });
}

// Frames (section 5).

const LENGTHS = [1, 124, 125, 126, 127, 65_534, 65_535, 65_536];

for (const role of ROLES) {
  Deno.test(`a ${role} writes one frame a call, in one write, with the shortest length`, async () => {
    for (const length of LENGTHS) {
      const { socket, peer, frames } = open(role, []);
      assertEquals(await socket.write(pattern(length)), length);
      assertEquals(peer.taken.length, 1);
      const [frame] = frames();
      const extra = length < 126 ? 0 : length < 65_536 ? 2 : 8;
      assertEquals(frame!.opcode, Opcode.binary);
      assert(frame!.isFinal);
      assertEquals(frame!.extra, extra);
      assertEquals(frame!.payload, pattern(length));
      assertEquals(frame!.key !== undefined, role === "client");
    }
  });

  Deno.test(`a ${role} takes 64 KiB a call, and nothing of nothing`, async () => {
    const { socket, peer } = open(role, []);
    assertEquals(await socket.write(pattern(65_537)), 65_536);
    assertEquals(await socket.write(new Uint8Array(0)), 0);
    assertEquals(peer.taken.length, 1);
  });

  for (const [name, cuts] of CUTS) {
    Deno.test(`a ${role} reads every length, ${name}`, async () => {
      for (const length of [0, ...LENGTHS]) {
        const { socket } = open(role, [binary(pattern(length))], cuts);
        assertEquals(await readAll(socket), pattern(length));
      }
    });

    Deno.test(`a ${role} reads fragments, and control frames between them, ${name}`, async () => {
      const { socket, frames } = open(role, [
        { opcode: Opcode.binary, payload: bytesOf("He"), isFinal: false },
        { opcode: Opcode.ping, payload: bytesOf("first") },
        { opcode: Opcode.continuation, payload: bytesOf(""), isFinal: false },
        { opcode: Opcode.pong, payload: bytesOf("nobody asked") },
        { opcode: Opcode.continuation, payload: bytesOf("l"), isFinal: false },
        { opcode: Opcode.continuation, payload: bytesOf("lo"), isFinal: true },
        binary(bytesOf(", you")),
        { opcode: Opcode.ping, payload: pattern(125) },
      ], cuts);
      assertEquals(textOf(await readAll(socket)), "Hello, you");
      await settled();
      const answers = frames();
      assert(answers.every(({ opcode }) => opcode === Opcode.pong));
      assertEquals(answers.at(-1)!.payload, pattern(125));
    });
  }

  Deno.test(`a ${role} reads a byte at a time`, async () => {
    const frames = [binary(pattern(300)), binary(pattern(10))];
    const { socket } = open(role, frames);
    assertEquals(
      await readAll(socket, 1),
      concat([pattern(300), pattern(10)]),
    );
  });

  Deno.test(`a ${role} reads nothing into nothing`, async () => {
    const { socket } = open(role, [binary(pattern(3))]);
    assertEquals(await socket.read(new Uint8Array(0)), 0);
    assertEquals(await readAll(socket), pattern(3));
  });

  Deno.test(`a ${role} that was cut inside a frame reads the end`, async () => {
    const bytes = said(role, [binary(pattern(100))]);
    const { socket } = open(role, bytes.slice(0, -1));
    assertEquals((await readAll(socket)).length, 99);
  });

  const raw = (hex: string) => Uint8Array.fromHex(hex);
  const mask = role === "server" ? 0x80 : 0;
  const short = (first: number, second: number) =>
    new Uint8Array([first, mask | second]);
  const faults: [string, Frame[] | Bytes, number, string][] = [
    [
      "a text message",
      [{ opcode: Opcode.text, payload: bytesOf("hi") }],
      1003,
      "text",
    ],
    [
      "a text in fragments",
      [{ opcode: Opcode.text, payload: bytesOf("hi"), isFinal: false }],
      1003,
      "text",
    ],
    [
      "the wrong mask",
      [{ ...binary(pattern(3)), key: role === "server" ? undefined : KEY }],
      1002,
      "mask",
    ],
    ["an extension's bit", short(0xc2, 1), 1002, "extension"],
    [
      "an unknown kind",
      [{ opcode: 3, payload: pattern(1) }],
      1002,
      "unknown kind 3",
    ],
    [
      "an unknown control frame",
      [{ opcode: 11, payload: pattern(1) }],
      1002,
      "unknown kind 11",
    ],
    [
      "a fragment of nothing",
      [{ opcode: Opcode.continuation, payload: pattern(1) }],
      1002,
      "no message",
    ],
    [
      "a message in another",
      [{ ...binary(pattern(1)), isFinal: false }, binary(pattern(1))],
      1002,
      "inside another",
    ],
    [
      "a ping in fragments",
      [{ opcode: Opcode.ping, payload: pattern(1), isFinal: false }],
      1002,
      "control frame in fragments",
    ],
    [
      "a ping of 126 bytes",
      [{ opcode: Opcode.ping, payload: pattern(126) }],
      1002,
      "too long",
    ],
    [
      "a length of 16 bits for 125",
      [{ ...binary(pattern(125)), extra: 2 }],
      1002,
      "too many bytes",
    ],
    [
      "a length of 64 bits for 65535",
      [{ ...binary(pattern(65_535)), extra: 8 }],
      1002,
      "too many bytes",
    ],
    [
      "a length with the top bit",
      concat([short(0x82, 127), raw("8000000000000000"), KEY]),
      1009,
      "without bound",
    ],
    [
      "a length of 2^53",
      concat([short(0x82, 127), raw("0020000000000000"), KEY]),
      1009,
      "without bound",
    ],
    [
      "a Close of one byte",
      [{ opcode: Opcode.close, payload: pattern(1) }],
      1002,
      "malformed Close",
    ],
    [
      "a Close whose text is no UTF-8",
      [{ opcode: Opcode.close, payload: raw("03e8ff") }],
      1007,
      "proper text",
    ],
  ];
  for (const [name, frames, code, message] of faults) {
    Deno.test(`a ${role} refuses ${name}`, async () => {
      for (const [, cuts] of CUTS) {
        const { socket, frames: got } = open(role, frames, cuts);
        const p = new Uint8Array(65_536);
        const fail = async () => {
          while (await socket.read(p) !== null) { /* until it fails */ }
        };
        const error = await assertRejects(fail, ChannelError, message);
        assertEquals(error.code, "protocol");
        assertEquals(await assertRejects(fail, ChannelError), error);
        await settled();
        const [close] = got();
        assertEquals(close!.opcode, Opcode.close);
        assertEquals(close!.payload[0]! << 8 | close!.payload[1]!, code);
      }
    });
  }

  // Closing (section 7).

  Deno.test(`a ${role} reads the end at a Close, and answers it`, async () => {
    const payload = concat([new Uint8Array([0x03, 0xe8]), bytesOf("bye")]);
    const { socket, peer, frames } = open(role, [
      binary(pattern(10)),
      { opcode: Opcode.close, payload },
      binary(pattern(10)),
    ]);
    assertEquals(await readAll(socket), pattern(10));
    assertEquals(await socket.read(new Uint8Array(9)), null);
    await settled();
    const [close, ...others] = frames();
    assertEquals(close!.opcode, Opcode.close);
    assertEquals(close!.payload, payload.slice(0, 2));
    assertEquals(others, []);
    const error = await assertRejects(
      () => socket.write(pattern(1)),
      ChannelError,
    );
    assertEquals(error.code, "cut");
    assert(!peer.isEnded);
    await socket.closeWrite();
    assertEquals(frames().length, 1);
    assert(peer.isEnded);
  });

  Deno.test(`a ${role} reads what came before a Close for a fault, then the fault`, async () => {
    for (const [code, words] of [[1001, "going away"], [1013, "too much"]]) {
      const payload = new Uint8Array(2);
      new DataView(payload.buffer).setUint16(0, code as number);
      for (const [, cuts] of CUTS) {
        const { socket, frames } = open(role, [
          binary(pattern(10)),
          { opcode: Opcode.close, payload: concat([payload, bytesOf("\x1b")]) },
        ], cuts);
        const p = new Uint8Array(65_536);
        let length = 0;
        while (length < 10) length += (await socket.read(p))!;
        const error = await assertRejects(
          () => socket.read(p),
          ChannelError,
          `${code} (${words}`,
        );
        assertEquals(error.code, "cut");
        assert(error.message.includes("\\x1b"), error.message);
        await settled();
        assertEquals(frames().map(({ payload }) => payload), [payload]);
      }
    }
  });

  Deno.test(`a ${role} reads what came before a fault in the same read`, async () => {
    const { socket } = open(role, [
      binary(pattern(10)),
      { opcode: Opcode.text, payload: bytesOf("garbage") },
      binary(pattern(10)),
    ]);
    const p = new Uint8Array(100);
    assertEquals(await socket.read(p), 10);
    assertEquals(p.slice(0, 10), pattern(10));
    await assertRejects(() => socket.read(p), ChannelError, "text message");
  });

  Deno.test(`a ${role} answers a Close without a code by one without`, async () => {
    const { socket, frames } = open(role, [
      { opcode: Opcode.close, payload: pattern(0) },
    ]);
    assertEquals(await socket.read(new Uint8Array(9)), null);
    await settled();
    assertEquals(frames()[0]!.payload.length, 0);
  });

  Deno.test(`a ${role} knows which codes a Close may have`, async () => {
    const isAllowed = async (code: number) => {
      const payload = new Uint8Array([code >> 8, code & 0xff]);
      const { socket } = open(role, [{ opcode: Opcode.close, payload }]);
      try {
        return await socket.read(new Uint8Array(9)) === null;
      } catch (error) {
        return (error as ChannelError).code === "cut";
      }
    };
    const good = [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999];
    const bad = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535];
    for (const code of good) assert(await isAllowed(code), `${code}`);
    for (const code of bad) assert(!await isAllowed(code), `${code}`);
  });

  Deno.test(`a ${role} that ends sends a Close, and can read on`, async () => {
    const ping = { opcode: Opcode.ping, payload: pattern(3) };
    const { socket, peer, frames } = open(role, [ping, binary(pattern(10))]);
    await socket.closeWrite();
    assertEquals(frames().map(({ payload }) => [...payload]), [[0x03, 0xe8]]);
    // The peer's Close may still come.
    assert(!peer.isEnded && !peer.isClosed);
    assertEquals(await readAll(socket), pattern(10));
    assert(peer.isEnded && !peer.isClosed);
    await settled();
    assertEquals(frames().length, 1);
    await assertRejects(() => socket.write(pattern(1)), ChannelError);
  });
}

Deno.test("a client's masks all differ", async () => {
  const { socket, frames } = open("client", []);
  for (let i = 0; i < 100; i++) await socket.write(pattern(1));
  const keys = new Set(frames().map(({ key }) => key?.toHex()));
  assertEquals(keys.size, 100);
});

Deno.test("a write leaves what it was given as it was", async () => {
  const { socket } = open("client", []);
  const bytes = pattern(1000);
  await socket.write(bytes);
  assertEquals(bytes, pattern(1000));
});

/** A transport that takes a write when it is told to. */
class Slow extends Scripted {
  readonly waiting: (() => void)[] = [];

  override async write(p: Uint8Array): Promise<number> {
    await new Promise<void>((resolve) => this.waiting.push(resolve));
    return await super.write(p.subarray(0, 7));
  }

  async takeAll(): Promise<void> {
    for (let go; (go = this.waiting.shift());) {
      go();
      await settled();
    }
  }
}

Deno.test("while a write waits, pings are read, and the latest is answered after it", async () => {
  const pings = ["a", "b", "c"].map((text) => ({
    opcode: Opcode.ping,
    payload: bytesOf(text),
  }));
  const peer = new Slow(said("server", [...pings, binary(pattern(9))]));
  const socket = new WebSocketTransport(peer, "server");
  const writing = socket.write(pattern(20));
  await settled();
  assertEquals(await readAll(socket), pattern(9));
  assertEquals(peer.taken, []);
  await peer.takeAll();
  await writing;
  const next = socket.write(pattern(5));
  await settled();
  await peer.takeAll();
  await next;
  assertEquals(
    decodeFrames(concat(peer.taken)).map(({ opcode, payload }) => [
      opcode,
      opcode === Opcode.pong ? textOf(payload) : payload.length,
    ]),
    [[Opcode.binary, 20], [Opcode.pong, "c"], [Opcode.binary, 5]],
  );
});

Deno.test("a write that failed fails all after it: half a frame is out", async () => {
  const peer = new Scripted(new Uint8Array(0));
  peer.write = () => Promise.reject(new Error("Broken pipe"));
  const socket = new WebSocketTransport(peer, "server");
  await assertRejects(() => socket.write(pattern(1)), Error, "Broken pipe");
  peer.write = Scripted.prototype.write;
  await assertRejects(() => socket.write(pattern(1)), Error, "Broken pipe");
  assertEquals(peer.taken, []);
});
