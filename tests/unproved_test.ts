/** What a peer that has not proved its key, or says nothing, may cost others. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { WebSocketTransport } from "../lib/carrier/websocket_frames.ts";
import { acceptWebSocket } from "../lib/carrier/websocket_handshake.ts";
import { MAX_UNPROVED, UnprovedTransport } from "../lib/carrier/unproved.ts";
import { nextTurn } from "../lib/lock/runtime.ts";
import { ChannelError, connectChannel, type Transport } from "../lib/mod.ts";
import { acceptChannel } from "../lib/mod.ts";
import { PSK } from "./duplex.ts";
import { type Bytes, concat } from "./scripted.ts";
import { encodeFrame, KEY, Opcode } from "./websocket_frame.ts";

/** More reads than these, and a turn of the event loop is long overdue. */
const MAX_READS = 65;

/** How many bytes show that there is no bound. */
const ENDLESS = 2 * MAX_UNPROVED;

/** Says the same for ever; each read has something at once, as over TLS. */
class Endless implements Transport {
  reads = 0;
  bytes = 0;
  /** How many reads there were when the event loop first had a turn. */
  readsBeforeTurn: number | undefined;
  isClosed = false;
  #at = 0;

  /**
   * @param said What it says over and over.
   * @param step How much a read gives at most.
   * @param start What it says first.
   */
  constructor(
    readonly said: Bytes,
    readonly step = 2048,
    readonly start: Bytes = new Uint8Array(0),
  ) {
    nextTurn().then(() => this.readsBeforeTurn = this.reads);
  }

  read(p: Uint8Array): Promise<number | null> {
    if (this.isClosed || this.bytes > ENDLESS) return Promise.resolve(null);
    this.reads++;
    const count = Math.min(p.length, this.step);
    for (let i = 0; i < count; i++) p[i] = this.#next();
    this.bytes += count;
    return Promise.resolve(count);
  }

  write(p: Uint8Array): Promise<number> {
    return Promise.resolve(p.length);
  }

  closeWrite(): Promise<void> {
    return Promise.resolve();
  }

  close(): void {
    this.isClosed = true;
  }

  #next(): number {
    const at = this.#at++;
    return at < this.start.length
      ? this.start[at]!
      : this.said[(at - this.start.length) % this.said.length]!;
  }
}

const empty = new Uint8Array(0);

/** What a client, whose frames are masked, or a server may say for ever. */
const NOTHING = (key: Bytes | undefined): Record<string, Bytes> => ({
  "empty messages": encodeFrame({
    opcode: Opcode.binary,
    payload: empty,
    key,
  }),
  "empty fragments": concat([
    encodeFrame({
      opcode: Opcode.binary,
      payload: empty,
      key,
      isFinal: false,
    }),
    encodeFrame({ opcode: Opcode.continuation, payload: empty, key }),
  ]),
  "Pings": encodeFrame({
    opcode: Opcode.ping,
    payload: new Uint8Array(100),
    key,
  }),
  "Pongs": encodeFrame({ opcode: Opcode.pong, payload: empty, key }),
});

const ROLES = { server: KEY as Bytes, client: undefined };

for (const [role, key] of Object.entries(ROLES)) {
  for (const [name, said] of Object.entries(NOTHING(key))) {
    for (const step of [37, 2048]) {
      Deno.test(`WebSocketTransport as ${role}: others have a turn beside ${name}, ${step} bytes a read`, async () => {
        const peer = new Endless(said, step);
        const socket = new WebSocketTransport(peer, role as "server");
        // It reads on until the peer ends.
        assertEquals(await socket.read(new Uint8Array(2048)), null);
        assert(peer.bytes > ENDLESS);
        assert(peer.readsBeforeTurn! <= MAX_READS, `${peer.readsBeforeTurn}`);
      });

      Deno.test(`UnprovedTransport: ${name} to a ${role} end soon, ${step} bytes a read`, async () => {
        const peer = new Endless(said, step);
        const unproved = new UnprovedTransport(peer, "The peer");
        const socket = new WebSocketTransport(unproved, role as "server");
        const opening = role === "server"
          ? acceptChannel(socket, { psk: PSK })
          : connectChannel(socket, { psk: PSK });
        const error = await assertRejects(() => opening, ChannelError);
        assertEquals(error.code, "protocol");
        assert(error.message.includes("had not proved"), error.message);
        assert(peer.bytes <= MAX_UNPROVED && peer.isClosed, `${peer.bytes}`);
        assert(peer.readsBeforeTurn! <= MAX_READS, `${peer.readsBeforeTurn}`);
      });
    }
  }
}

const request = (text: string) => new TextEncoder().encode(text) as Bytes;

for (
  const [name, start, said] of [
    ["a request's head", request("GET / HTTP/1.1\r\n"), request("A: b\r\n")],
    ["a refused body", request("GET / HTTP/1.1\r\n\r\n"), request("a")],
  ] as const
) {
  Deno.test(`UnprovedTransport: others have a turn beside ${name} in single bytes`, async () => {
    const peer = new Endless(said, 1, start);
    const unproved = new UnprovedTransport(peer, "The client");
    await assertRejects(() => acceptWebSocket(unproved), ChannelError);
    assert(peer.reads < MAX_UNPROVED);
    assert(peer.readsBeforeTurn! <= MAX_READS, `${peer.readsBeforeTurn}`);
  });
}

Deno.test("UnprovedTransport: its bound counts bytes, −1, 0 and +1, until the proof", async () => {
  for (const extra of [-1, 0, 1]) {
    const peer = new Endless(Uint8Array.of(1), 2048);
    const unproved = new UnprovedTransport(peer, "The client");
    const take = async (total: number) => {
      for (let left = total; left > 0;) {
        const p = new Uint8Array(Math.min(left, 1024));
        left -= await unproved.read(p) ?? left;
      }
    };
    const taking = take(MAX_UNPROVED + extra);
    if (extra <= 0) await taking;
    else await assertRejects(() => taking, ChannelError, "had not proved");
    const next = take(2048);
    // Whoever has proved it in this turn may go on.
    unproved.proved();
    await next;
    assertEquals(peer.bytes, MAX_UNPROVED + Math.min(extra, 0) + 2048);
  }
});
