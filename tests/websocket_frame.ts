/** WebSocket frames as a peer of our own writes and reads them: plainly. */

import { assertEquals } from "@std/assert";
import { type Bytes, concat } from "./scripted.ts";

export const Opcode = {
  continuation: 0,
  text: 1,
  binary: 2,
  close: 8,
  ping: 9,
  pong: 10,
} as const;

export interface Frame {
  opcode: number;
  payload: Uint8Array;
  isFinal?: boolean;
  /** The mask. */
  key?: Uint8Array | undefined;
  /** How many bytes the length takes beside the seven bits. */
  extra?: 0 | 2 | 8;
}

/** A mask whose bytes all differ. */
export const KEY = new Uint8Array([0x37, 0xfa, 0x21, 0x3d]);

export function encodeFrame(frame: Frame): Bytes {
  const { opcode, payload, isFinal = true, key } = frame;
  const { length } = payload;
  const extra = frame.extra ?? (length < 126 ? 0 : length < 65_536 ? 2 : 8);
  const size = new Uint8Array(extra);
  if (extra === 2) new DataView(size.buffer).setUint16(0, length);
  if (extra === 8) new DataView(size.buffer).setBigUint64(0, BigInt(length));
  const short = extra === 0 ? length : extra === 2 ? 126 : 127;
  return concat([
    new Uint8Array([(isFinal ? 0x80 : 0) | opcode, (key ? 0x80 : 0) | short]),
    size,
    key ?? new Uint8Array(0),
    key ? payload.map((byte, i) => byte ^ key[i % 4]!) : payload,
  ]);
}

/** Takes apart what the other side sent. */
export function decodeFrames(bytes: Bytes): Required<Frame>[] {
  const frames: Required<Frame>[] = [];
  for (let at = 0; at < bytes.length;) {
    const short = bytes[at + 1]! & 0x7f;
    const extra = short === 127 ? 8 : short === 126 ? 2 : 0;
    const view = new DataView(bytes.buffer, at + 2);
    const length = extra === 8
      ? Number(view.getBigUint64(0))
      : extra === 2
      ? view.getUint16(0)
      : short;
    const isMasked = (bytes[at + 1]! & 0x80) !== 0;
    const start = at + 2 + extra + (isMasked ? 4 : 0);
    const key = isMasked ? bytes.slice(start - 4, start) : undefined;
    const payload = bytes.slice(start, start + length);
    assertEquals(payload.length, length, "a frame that is not whole");
    frames.push({
      opcode: bytes[at]! & 0x0f,
      isFinal: (bytes[at]! & 0x80) !== 0,
      key,
      extra,
      payload: key ? payload.map((byte, i) => byte ^ key[i % 4]!) : payload,
    });
    at = start + length;
  }
  return frames;
}
