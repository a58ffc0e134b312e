/**
 * The receiving half of a session: frames are read in order, several are opened
 * at once, and they are delivered in order.
 *
 * @module
 */

import type { Bytes } from "./aes_gcm.ts";
import { ChannelError } from "./errors.ts";
import type { FrameReader } from "./frame.ts";
import {
  messageType,
  MIN_MESSAGE_LENGTH,
  rekeyIfDue,
  Type,
  TYPE_LENGTH,
} from "./message.ts";
import { type CipherState, EMPTY } from "./noise.ts";
import type { Tracer } from "./trace.ts";

/** How many frames may be opened ahead of the one that is being delivered. */
const READ_AHEAD = 8;

/** Takes what the peer sent, in order, only ever what was authentic. */
export interface Sink {
  /** Bytes of the stream. What it returns is awaited before the next call. */
  data(body: Bytes): Promise<void>;
  /** The peer has ended its direction. */
  end(): void;
  /** The peer wants a pong. */
  ping(): void | Promise<void>;
  /** The peer has answered a ping. */
  pong(): void;
  /** A frame was not authentic, or could not be delivered. */
  fail(error: unknown): void;
}

/**
 * Receives until the connection ends.
 *
 * Resolves if the peer had ended its direction before.
 *
 * @throws {ChannelError} `cut` if the peer had not; `protocol` if a frame does
 * not open, is malformed or is out of order: at once, though frames before it
 * may still wait to be delivered.
 */
export async function receive(
  frames: FrameReader,
  cipher: CipherState,
  tracer: Tracer,
  sink: Sink,
): Promise<void> {
  let ended = false;
  const deliver = (plaintext: Bytes, ciphertext: Bytes) => {
    const type = messageType(plaintext);
    // The sink may give the plaintext's memory away.
    const shown = tracer.active ? plaintext.slice() : plaintext;
    tracer.message("received", shown, ciphertext);
    switch (type) {
      case Type.data:
        if (ended) throw afterEnd();
        return sink.data(plaintext.subarray(TYPE_LENGTH));
      case Type.end:
        if (ended) throw afterEnd();
        ended = true;
        return sink.end();
      case Type.ping:
        return sink.ping();
      case Type.pong:
        return sink.pong();
    }
  };
  const ahead: Promise<void>[] = [];
  let delivered = Promise.resolve();
  const openAndDeliver = async (frame: Bytes, before: Promise<void>) => {
    const ciphertext = tracer.active ? frame.slice() : frame;
    const [plaintext] = await Promise.all([open(cipher, ciphertext), before]);
    await deliver(plaintext, ciphertext);
  };
  while (true) {
    const frame = await nextFrame(frames);
    if (frame === null) break;
    delivered = openAndDeliver(frame, delivered);
    delivered.catch((error) => sink.fail(error));
    ahead.push(delivered);
    await rekeyIfDue(cipher);
    if (ahead.length === READ_AHEAD) await ahead.shift();
  }
  await delivered;
  if (!ended) throw new ChannelError("cut", "The peer cut the connection");
}

/** Null too if the connection breaks: a cut is a cut. */
async function nextFrame(frames: FrameReader): Promise<Bytes | null> {
  try {
    return await frames.next(MIN_MESSAGE_LENGTH);
  } catch (error) {
    if (error instanceof ChannelError) throw error;
    return null;
  }
}

async function open(cipher: CipherState, ciphertext: Bytes): Promise<Bytes> {
  try {
    return await cipher.decryptWithAd(EMPTY, ciphertext);
  } catch (cause) {
    throw new ChannelError("protocol", "A frame was forged or damaged", {
      cause,
    });
  }
}

function afterEnd(): ChannelError {
  return new ChannelError("protocol", "The peer went on after its end");
}
