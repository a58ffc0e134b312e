/**
 * What holds for any messages that are sealed right: the rules of their order,
 * written down once more.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Type } from "../lib/lock/message.ts";
import { shakeHands } from "../lib/lock/channel.ts";
import {
  type Channel,
  ChannelError,
  type ChannelErrorCode,
  connectChannel,
} from "../lib/mod.ts";
import { toTransport } from "../lib/lock/transport.ts";
import { duplex, PSK, type Wire } from "./duplex.ts";
import { ping, pong, RawPeer } from "./raw_peer.ts";
import {
  type Bytes,
  bytes,
  concat,
  cuts,
  equal,
  type Property,
  within,
} from "./scripted.ts";

const message = (type: Type, ...body: number[]): Bytes =>
  new Uint8Array([type, ...body]);

/** A plaintext: mostly one that may be said somewhere, sometimes any bytes. */
const plaintext: fc.Arbitrary<Bytes> = fc.oneof(
  { weight: 6, arbitrary: bytes(300).map((b) => concat([message(0), b])) },
  { weight: 3, arbitrary: fc.constantFrom(ping, pong) },
  {
    weight: 4,
    arbitrary: fc.constantFrom(Type.end, Type.open, Type.offer).map(message),
  },
  {
    weight: 1,
    arbitrary: fc.nat(255).map((code) => message(Type.bye, code)),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(fc.nat(9), bytes(3))
      .map(([type, body]) => concat([new Uint8Array([type]), body])),
  },
);

/** The codes of a bye, from 1; any other is the sixth. */
const CODES: ChannelErrorCode[] = [
  "service",
  "backend",
  "limit",
  "revoked",
  "stopping",
  "aborted",
  "timeout",
];

/** What a session came to. */
interface Outcome {
  text: Bytes;
  code: ChannelErrorCode;
  /** Whether only the beginning of the text may have been read. */
  isShort?: boolean;
}

/** Who says the messages: a client, or the server of a client that calls or offers. */
type By = "client" | "called" | "calling";

/** What the rules say that messages come to, if the connection ends then. */
function byTheRules(messages: Bytes[], by: By): Outcome {
  const data: Bytes[] = [];
  // Our client has begun its stream, or has offered it.
  let isOpen = by === "called";
  let isOffered = by === "calling";
  let hasEnded = false;
  const outcome = (code: ChannelErrorCode) => ({
    text: concat(data),
    code,
    // Whoever breaks the rules, or does not wait for our end, is not heard out.
    isShort: code === "protocol" || code === "cut" && hasEnded,
  });
  for (const [type, ...body] of messages) {
    const length = type === Type.bye ? 1 : 0;
    const isMalformed = type === undefined || type > Type.offer ||
      (type === Type.data ? body.length === 0 : body.length !== length);
    if (isMalformed) return outcome("protocol");
    switch (type) {
      case Type.data:
      case Type.end:
        if (!isOpen || hasEnded) return outcome("protocol");
        if (type === Type.data) data.push(new Uint8Array(body));
        else hasEnded = true;
        break;
      case Type.open:
        if (isOpen || isOffered !== (by === "calling")) {
          return outcome("protocol");
        }
        isOpen = true;
        break;
      case Type.bye:
        return outcome(CODES[body[0]! - 1] ?? "aborted");
      case Type.offer:
        if (isOpen || isOffered || by !== "client") return outcome("protocol");
        isOffered = true;
        break;
    }
  }
  // Ours has not said its end.
  return outcome("cut");
}

/** What a channel reads, and how it ends. */
async function read(opening: Promise<Channel>): Promise<Outcome> {
  const parts: Bytes[] = [];
  try {
    const channel = await opening;
    for await (const part of channel.readable) parts.push(part);
    await channel.closed;
  } catch (error) {
    assert(error instanceof ChannelError, String(error));
    return { text: concat(parts), code: error.code };
  }
  throw new Error("It ended as if all had been said");
}

/** A session with a peer that says these, its frames cut up so. */
async function talk(
  by: By,
  messages: Bytes[],
  cuts: number[],
): Promise<Outcome> {
  let count = 0;
  const wire: Wire = function* (chunk) {
    while (chunk.length > 0) {
      const cut = cuts[count++ % cuts.length]!;
      yield chunk.subarray(0, cut).slice();
      chunk = chunk.subarray(cut);
    }
  };
  const [near, far] = duplex(wire, wire);
  const options = { psk: PSK, idleTimeout: 0 };
  const [ours, theirs] = by === "client" ? [far, near] : [near, far];
  const peer = new RawPeer(theirs);
  const reading = read(
    by === "client"
      ? shakeHands(toTransport(ours), "server", options)
      : connectChannel(ours, { ...options, offer: by === "calling" }),
  );
  if (by === "client") await peer.initiate();
  else {
    await peer.respond();
    await peer.hearUntil(by === "calling" ? Type.offer : Type.open);
  }
  const listening = (async () => {
    while (await peer.readFrame());
  })();
  const first = by === "client" ? [ping] : [];
  try {
    await peer.say(...first, ...messages);
    await peer.close();
  } catch {
    // Ours has closed: it has heard enough.
  }
  const outcome = await reading;
  await listening;
  return outcome;
}

/** By what they are of. */
export const MESSAGE_PROPERTIES: Record<string, Property> = {
  "Channel: any messages come to what the rules say": fc.asyncProperty(
    fc.constantFrom<By>("client", "called", "calling"),
    fc.constantFrom([], [Type.open], [Type.offer], [Type.offer, Type.offer]),
    fc.array(plaintext, { maxLength: 12 }),
    cuts,
    (by, first, rest, cuts) =>
      within((async () => {
        const messages = [...first.map((type) => message(type)), ...rest];
        const expected = byTheRules(messages, by);
        const actual = await talk(by, messages, cuts);
        assertEquals(actual.code, expected.code);
        const { text, isShort } = expected;
        const length = isShort ? actual.text.length : text.length;
        assert(equal(actual.text, text.subarray(0, length)));
      })()),
  ) as Property,
};
