/** Each layer alone, in memory. */

import { type Engine, TAG_LENGTH, webCrypto } from "../lib/lock/aes_gcm.ts";
import { encodeFrames, FrameReader } from "../lib/lock/frame.ts";
import { EMPTY, HandshakeState } from "../lib/lock/noise.ts";
import { milliseconds } from "./measure.ts";

const MB = 1e6;

/**
 * An engine's ceiling: messages of so many bytes encrypted and decrypted, so many
 * in flight, nothing else. MB/s.
 */
export async function aesGcm(
  length: number,
  inFlight: number,
  bytes: number,
  engine: Engine = webCrypto,
): Promise<number> {
  const aead = engine.createAead(new Uint8Array(32));
  const total = Math.ceil(bytes / length);
  let count = 0;
  const work = async () => {
    const message = new Uint8Array(length + TAG_LENGTH);
    while (count < total) {
      const nonce = new Uint8Array(12);
      new DataView(nonce.buffer).setUint32(8, count++);
      await aead.seal(nonce, EMPTY, message);
      await aead.open(nonce, EMPTY, message);
    }
  };
  const ms = await milliseconds(() =>
    Promise.all(Array.from({ length: inFlight }, work))
  );
  aead.close();
  return total * length / MB / ms * 1000;
}

/** Noise handshakes, both sides, one after another. Handshakes a second. */
export async function noise(count: number): Promise<number> {
  const psk = new Uint8Array(32);
  const prologue = new TextEncoder().encode("innerlock/1 default");
  const ms = await milliseconds(async () => {
    for (let i = 0; i < count; i++) {
      const initiator = await HandshakeState.initialize({ prologue, psk });
      const responder = await HandshakeState.initialize({ prologue, psk });
      await responder.readMessage1(await initiator.writeMessage1());
      await initiator.readMessage2(await responder.writeMessage2());
      await Promise.all([initiator.split(), responder.split()]);
    }
  });
  return count / ms * 1000;
}

/** Frames of so many bytes put together and taken apart again. MB/s. */
export async function frames(length: number, bytes: number): Promise<number> {
  const batch = encodeFrames(Array(16).fill(new Uint8Array(length)));
  const rounds = Math.ceil(bytes / batch.length);
  let left = rounds;
  let rest = batch;
  const reader = new FrameReader({
    read(p) {
      if (rest.length === 0) {
        if (--left === 0) return Promise.resolve(null);
        rest = encodeFrames(Array(16).fill(new Uint8Array(length)));
      }
      const part = rest.subarray(0, Math.min(16_384, p.length));
      p.set(part);
      rest = rest.subarray(part.length);
      return Promise.resolve(part.length);
    },
  });
  const ms = await milliseconds(async () => {
    while (await reader.next(0));
  });
  return rounds * batch.length / MB / ms * 1000;
}
