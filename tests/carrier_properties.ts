/** What holds for any input of what carries a channel: part of
 * {@linkcode PROPERTIES}. */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { clientAddress } from "../lib/carrier/forwarded.ts";
import { HttpError } from "../lib/carrier/http.ts";
import { canonicalAddress } from "../lib/carrier/ip_address.ts";
import { ChannelError, type Transport } from "../lib/mod.ts";
import { connectThroughProxy } from "../lib/carrier/proxy.ts";
import { readProxyHeader } from "../lib/carrier/proxy_protocol.ts";
import { mask, WebSocketTransport } from "../lib/carrier/websocket_frames.ts";
import {
  acceptWebSocket,
  connectWebSocket,
} from "../lib/carrier/websocket_handshake.ts";
import { toTransport, writeAll } from "../lib/lock/transport.ts";
import { duplex } from "./duplex.ts";
import {
  type Bytes,
  bytes,
  concat,
  cuts,
  equal,
  type Property,
  readAll,
  Scripted,
  within,
} from "./scripted.ts";
import { encodeFrame, type Frame, Opcode } from "./websocket_frame.ts";

const role = fc.constantFrom("client" as const, "server" as const);
const key = fc.uint8Array({ minLength: 4, maxLength: 4 });

/** Cuts what passes into pieces of these lengths, over and over. */
function cutter(cuts: number[]) {
  let count = 0;
  return function* (chunk: Bytes) {
    while (chunk.length > 0) {
      const cut = cuts[count++ % cuts.length]!;
      yield chunk.slice(0, cut);
      chunk = chunk.subarray(cut);
    }
  };
}

/** A message in fragments, with control frames between them. */
const message = fc.array(
  fc.record({
    payload: bytes(300),
    between: fc.array(
      fc.record({
        opcode: fc.constantFrom(Opcode.ping, Opcode.pong),
        payload: bytes(125),
      }),
      { maxLength: 2 },
    ),
  }),
  { minLength: 1, maxLength: 4 },
).map((fragments) =>
  fragments.flatMap(({ payload, between }, i): Frame[] => [
    {
      opcode: i === 0 ? Opcode.binary : Opcode.continuation,
      isFinal: i === fragments.length - 1,
      payload,
    },
    ...between,
  ])
);

/** Frames of any kind, right or wrong. */
const anyFrame = fc.record({
  opcode: fc.nat(15),
  isFinal: fc.boolean(),
  payload: bytes(130),
  key: fc.option(key, { nil: undefined }),
  extra: fc.constantFrom(0 as const, 2 as const, 8 as const),
}).map((frame) =>
  encodeFrame({ ...frame, extra: frame.payload.length < 126 ? frame.extra : 2 })
);

const REQUEST = [
  "GET /innerlock HTTP/1.1",
  "Host: localhost",
  "Upgrade: websocket",
  "Connection: Upgrade",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
  "Sec-WebSocket-Version: 13",
  "",
  "",
].join("\r\n");

/** A head with some characters changed, so that it is one or is none. */
const head = (text: string) =>
  fc.oneof(
    fc.array(
      fc.record({ at: fc.nat(text.length), insert: fc.string() }),
      { maxLength: 3 },
    ).map((changes) =>
      changes.reduce(
        (text, { at, insert }) => text.slice(0, at) + insert + text.slice(at),
        text,
      )
    ).map((text) => new TextEncoder().encode(text) as Bytes),
    bytes(500),
  );

const address = fc.oneof(fc.ipV4(), fc.ipV6(), fc.string());

/** A header of the PROXY protocol with some fields that may not be. */
const proxyHeader = fc.oneof(
  fc.record({
    family: fc.constantFrom("TCP4", "TCP6", "UNKNOWN", "X"),
    addresses: fc.array(address, { minLength: 2, maxLength: 2 }),
    ports: fc.array(fc.nat(70_000), { minLength: 2, maxLength: 2 }),
  }).map(({ family, addresses, ports }) =>
    new TextEncoder().encode(
      ["PROXY", family, ...addresses, ...ports].join(" ") + "\r\n",
    ) as Bytes
  ),
  fc.record({ start: fc.uint8Array({ maxLength: 4 }), rest: bytes(60) })
    .map(({ start, rest }) =>
      concat([new TextEncoder().encode("\r\n\r\n\0\r\nQUIT\n"), start, rest])
    ),
);

async function isHttpErrorOr<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await within(work);
  } catch (error) {
    if (error instanceof HttpError) return undefined;
    throw error;
  }
}

/** By what they are of. */
export const CARRIER_PROPERTIES: Record<string, Property> = {
  "mask: as byte by byte, wherever the bytes lie": fc.property(
    bytes(300),
    key,
    fc.nat(3),
    fc.nat(9),
    (payload, key, phase, offset) => {
      const buffer = new Uint8Array(offset + payload.length + 9).fill(7);
      const part = buffer.subarray(offset, offset + payload.length);
      part.set(payload);
      mask(part, key, phase);
      assert(
        equal(part, payload.map((byte, i) => byte ^ key[(phase + i) % 4]!)),
      );
      assert(buffer.subarray(0, offset).every((byte) => byte === 7));
      assert(buffer.subarray(offset + part.length).every((b) => b === 7));
    },
  ) as Property,

  "WebSocket: any messages, cut anyhow, come out as one stream": fc
    .asyncProperty(
      role,
      fc.array(message, { maxLength: 5 }),
      fc.array(key, { minLength: 1, maxLength: 5 }),
      cuts,
      fc.integer({ min: 1, max: 500 }),
      async (role, messages, keys, cuts, size) => {
        const frames = messages.flat();
        const said = concat(frames.map((frame, i) =>
          encodeFrame({
            ...frame,
            key: role === "server" ? keys[i % keys.length] : undefined,
          })
        ));
        const socket = new WebSocketTransport(new Scripted(said, cuts), role);
        const read = await readAll(socket, size);
        const data = frames.filter(({ opcode }) => opcode < 8);
        assert(equal(read, concat(data.map(({ payload }) => payload))));
      },
    ) as Property,

  "WebSocket: any frames are a stream or the one error": fc.asyncProperty(
    role,
    fc.array(fc.oneof(anyFrame, bytes(20)), { maxLength: 10 }),
    cuts,
    async (role, parts, cuts) => {
      const said = concat(parts);
      const socket = new WebSocketTransport(new Scripted(said, cuts), role);
      try {
        const read = await within(readAll(socket));
        assert(read.length <= said.length);
      } catch (error) {
        if (!(error instanceof ChannelError)) throw error;
      }
    },
  ) as Property,

  "WebSocket: any writes, cut anyhow, come out as one stream": fc
    .asyncProperty(
      fc.array(bytes(5000), { maxLength: 8 }),
      cuts,
      (writes, cuts) =>
        within((async () => {
          const [near, far] = duplex(cutter(cuts), cutter(cuts));
          const [client, { transport: server }] = await Promise.all([
            connectWebSocket(toTransport(near), { host: "localhost" }),
            acceptWebSocket(toTransport(far)),
          ]);
          const send = async (socket: Transport) => {
            for (const bytes of writes) await writeAll(socket, bytes);
          };
          // Close ends both directions (5.5.1): as a session does, neither side
          // says it before both have said all.
          const sent = Promise.all([send(client), send(server)]);
          const [up, down] = await Promise.all([
            readAll(server),
            readAll(client),
            sent.then(() => client.closeWrite()),
            sent.then(() => server.closeWrite()),
          ]);
          assert(equal(up, concat(writes)));
          assert(equal(down, concat(writes)));
        })()),
    ) as Property,

  "acceptWebSocket: any request opens one or is the one error": fc
    .asyncProperty(head(REQUEST), cuts, async (said, cuts) => {
      const transport = new Scripted(said, cuts);
      const accepted = await isHttpErrorOr(acceptWebSocket(transport));
      const answer = new TextDecoder().decode(concat(transport.taken));
      if (accepted) assert(answer.startsWith("HTTP/1.1 101 "));
      else assert(answer === "" || answer.startsWith("HTTP/1.1 426 "));
    }) as Property,

  "connectWebSocket: any answer is the one error": fc.asyncProperty(
    head(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n" +
        "Connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
    ),
    cuts,
    async (said, cuts) => {
      const transport = new Scripted(said, cuts);
      const opening = connectWebSocket(transport, { host: "localhost" });
      assertEquals(await isHttpErrorOr(opening), undefined);
    },
  ) as Property,

  "connectThroughProxy: any answer is a tunnel or the one error": fc
    .asyncProperty(
      head("HTTP/1.1 200 OK\r\nVia: a proxy\r\n\r\n"),
      cuts,
      async (said, cuts) => {
        const transport = new Scripted(said, cuts);
        const target = { hostname: "a.example", port: 443 };
        await isHttpErrorOr(connectThroughProxy(transport, target));
        if (transport.isClosed) return;
        // The last byte that was read ended the head.
        const read = said.subarray(0, said.length - transport.left.length);
        assert(/\n\r?\n$/.test(String.fromCharCode(...read.slice(-3))));
      },
    ) as Property,

  "readProxyHeader: any bytes are a source, none or the one error": fc
    .asyncProperty(
      fc.oneof(proxyHeader, bytes(60)),
      cuts,
      async (said, cuts) => {
        const transport = new Scripted(said, cuts);
        try {
          const source = await within(readProxyHeader(transport));
          if (!source) return;
          const { hostname, port } = source;
          assertEquals(canonicalAddress(hostname), hostname);
          assert(port >= 0 && port < 65_536);
        } catch (error) {
          if (!(error instanceof ChannelError)) throw error;
        }
      },
    ) as Property,

  "clientAddress: any text is the peer or an address": fc.property(
    fc.oneof(fc.string(), fc.array(address).map((list) => list.join(", "))),
    (forwardedFor) => {
      const isTrusted = (address: string) => /[02468aceg]$/.test(address);
      const client = clientAddress("127.0.0.2", forwardedFor, isTrusted);
      assertEquals(canonicalAddress(client), client);
    },
  ) as Property,
};
