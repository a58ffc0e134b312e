/**
 * The handshake of `innerlock/1` over a transport: the hello, the two Noise
 * messages, and the client's first ping.
 *
 * ```text
 * C1  C→S  hello      "innerlock/1 IDENTITY"
 * C2  C→S  Noise -> psk, e
 * S1  S→C  Noise <- e, ee
 * C3  C→S  the first transport message: a ping
 * ```
 *
 * C1 and C2 leave in one write. After S1, the client knows that the server holds
 * the key. The server knows it of the client only after C3, because C2 could be
 * a replay.
 *
 * @module
 */

import type { Bytes } from "./aes_gcm.ts";
import { ChannelError, shown } from "./errors.ts";
import { encodeFrames, FrameReader } from "./frame.ts";
import {
  MessageSeal,
  messageType,
  MIN_MESSAGE_LENGTH,
  type Seal,
  Type,
} from "./message.ts";
import {
  HANDSHAKE_MESSAGE_LENGTH,
  type HandshakeOptions,
  HandshakeState,
  PSK_LENGTH,
} from "./noise.ts";
import {
  findPsk,
  isIdentity,
  MAX_IDENTITY_LENGTH,
  type TakenPsks,
} from "./psk.ts";
import type { Tracer } from "./trace.ts";
import { type Transport, writeAll } from "./transport.ts";

const HELLO = "innerlock/1 ";

/**
 * The server, or a box in between that ends TLS, gave the client no answer. The
 * code says how: `refused` or `cut` if it closed the connection, `timeout` if it
 * was silent.
 */
export class UnansweredError extends ChannelError {
  /** The class's name. */
  override readonly name = "UnansweredError";
}

/** What encrypts, and for tests the ephemeral keys. @internal */
export type EngineOptions = Pick<HandshakeOptions, "engine" | "e">;

/** What a handshake leaves behind. @internal */
export interface HandshakeResult {
  /** The identity in the hello, with the service if it asks for one. */
  identity: string;
  /** The hash of all that the handshake said, the same on both sides. */
  handshakeHash: Bytes;
  /** Seals what this side sends. */
  sending: Seal;
  /** Opens what the peer sends. */
  receiving: Seal;
  /** Where the peer's frames come from. */
  frames: FrameReader;
}

/**
 * Does the client's part up to S1. The session must begin with a ping.
 *
 * @throws {UnansweredError} `refused` if the server closes instead of answering.
 * @throws {ChannelError} `refused` if it answers without holding the key;
 * `protocol` if it answers something else; what the transport says, if that is a
 * {@linkcode ChannelError}.
 *
 * @internal
 */
export async function initiate(
  transport: Transport,
  psk: Bytes,
  identity: string,
  tracer: Tracer,
  options: EngineOptions = {},
): Promise<HandshakeResult> {
  const hello = new TextEncoder().encode(HELLO + identity);
  const start = { prologue: hello, psk, ...options };
  const handshake = await HandshakeState.initialize(start);
  const message1 = await handshake.writeMessage1();
  tracer.hello("sent", hello);
  tracer.noise("sent", message1);
  const frames = new FrameReader(transport);
  let message2: Bytes | null;
  try {
    await writeAll(transport, encodeFrames([hello, message1]));
    message2 = await nextAnswer(frames);
  } catch (error) {
    // What carries the frames may know better why there is no answer.
    if (error instanceof ChannelError) throw error;
    throw refusedByServer(identity, error);
  }
  if (message2 === null) throw refusedByServer(identity);
  tracer.noise("received", message2.slice());
  try {
    await handshake.readMessage2(message2);
  } catch (cause) {
    throw new ChannelError(
      "refused",
      `The server does not hold the key of ${identity}`,
      { cause },
    );
  }
  const [up, down] = await handshake.split();
  return {
    identity,
    handshakeHash: handshake.handshakeHash,
    sending: tracer.messages("sent", new MessageSeal(up)),
    receiving: tracer.messages("received", new MessageSeal(down)),
    frames,
  };
}

/** What the server answers; null if it closes instead. */
async function nextAnswer(frames: FrameReader): Promise<Bytes | null> {
  while (true) {
    let frame: Bytes | undefined;
    try {
      frame = frames.take(HANDSHAKE_MESSAGE_LENGTH, HANDSHAKE_MESSAGE_LENGTH);
    } catch {
      throw new ChannelError(
        "protocol",
        `The server does not speak innerlock: it sent "${
          shown(frames.unread)
        }"`,
      );
    }
    if (frame || !await frames.fill()) return frame ?? null;
  }
}

// A server says nothing when it refuses, so this is what a refusal looks like.
function refusedByServer(identity: string, cause?: unknown): ChannelError {
  return new UnansweredError(
    "refused",
    `The server closed the connection when it saw the identity ${identity}: ` +
      "it does not know this identity, or has another key for it; copy its " +
      "line of the key file from the server again",
    { cause },
  );
}

/**
 * Does the server's part up to the client's ping, which it checks.
 *
 * An unknown identity, or what is none, looks like a wrong key: the server uses
 * a random key for it, so message 1 does not open.
 *
 * @throws {ChannelError} `refused` if the client does not prove the key;
 * `protocol` if it sends something else; `cut` if it leaves before the proof.
 *
 * @internal
 */
export async function respond(
  transport: Transport,
  psks: TakenPsks,
  tracer: Tracer,
  options: EngineOptions = {},
): Promise<HandshakeResult> {
  const frames = new FrameReader(transport);
  const longest = HELLO.length + MAX_IDENTITY_LENGTH;
  const hello = (await nextFrame(frames, HELLO.length, longest)).slice();
  tracer.hello("received", hello);
  const identity = parseHello(hello);
  const known = findPsk(identity, psks);
  const psk = known ?? crypto.getRandomValues(new Uint8Array(PSK_LENGTH));
  const message1 = await nextFrame(frames, HANDSHAKE_MESSAGE_LENGTH);
  tracer.noise("received", message1.slice());
  const start = { prologue: hello, psk, ...options };
  const handshake = await HandshakeState.initialize(start);
  let message2: Bytes;
  try {
    await handshake.readMessage1(message1);
    message2 = await handshake.writeMessage2();
  } catch (cause) {
    throw new ChannelError("refused", whyRefused(identity, known), { cause });
  }
  tracer.noise("sent", message2);
  try {
    await writeAll(transport, encodeFrames([message2]));
  } catch (cause) {
    throw goneInHandshake(cause);
  }
  const [up, down] = await handshake.split();
  const receiving = tracer.messages("received", new MessageSeal(up));
  const ping = await nextFrame(frames, MIN_MESSAGE_LENGTH);
  let plaintext: Bytes;
  try {
    plaintext = await receiving.open(ping);
  } catch (cause) {
    throw new ChannelError(
      "refused",
      `The client does not hold the key of ${identity} now: ` +
        "its handshake was a replay, or was forged",
      { cause },
    );
  }
  if (messageType(plaintext) !== Type.ping) {
    throw new ChannelError("protocol", "The client did not begin with a ping");
  }
  return {
    identity,
    handshakeHash: handshake.handshakeHash,
    sending: tracer.messages("sent", new MessageSeal(down)),
    receiving,
    frames,
  };
}

function whyRefused(identity: string, psk: Bytes | undefined): string {
  if (psk) return `The client does not hold the key of ${identity}`;
  return isIdentity(identity)
    ? `There is no identity ${identity}`
    : `The client's identity is malformed: "${shown(identity)}"`;
}

/** What a hello says of the identity, which may be none. */
function parseHello(hello: Bytes): string {
  const text = String.fromCharCode(...hello);
  if (!text.startsWith(HELLO)) {
    throw new ChannelError(
      "protocol",
      "The client did not begin with an innerlock/1 hello",
    );
  }
  return text.slice(HELLO.length);
}

async function nextFrame(
  frames: FrameReader,
  min: number,
  max = min,
): Promise<Bytes> {
  const frame = await frames.next(min, max).catch((error) => {
    throw error instanceof ChannelError ? error : goneInHandshake(error);
  });
  if (frame === null) throw goneInHandshake();
  return frame;
}

function goneInHandshake(cause?: unknown): ChannelError {
  const message = "The client left during the handshake";
  return new ChannelError("cut", message, { cause });
}
