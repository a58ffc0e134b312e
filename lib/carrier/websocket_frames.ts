/**
 * The frames of WebSocket (RFC 6455), version 13, both roles, over any
 * {@linkcode Transport}.
 *
 * | section | what is implemented |
 * | --- | --- |
 * | 5.2, 5.3 | the frame: lengths of 7, 16 and 64 bits, masks of the client |
 * | 5.4 | fragments, of any number and length, control frames between them |
 * | 5.5 | Close and Ping are answered, of several Pings the latest; Pong is ignored |
 * | 5.6 | binary messages; a text message is an error |
 * | 7 | the closing handshake, and the codes of errors |
 *
 * The bytes of all messages form one stream. Messages are not assembled, so they
 * may have any length and cost no memory. Reads are unpacked in the caller's own
 * buffer. A slow reader or writer slows the peer down, as without WebSocket.
 *
 * @module
 */

import type { Bytes } from "../lock/aes_gcm.ts";
import { closedFor } from "./close_codes.ts";
import { ChannelError } from "../lock/errors.ts";
import { Layer } from "./layer.ts";
import { nextTurn } from "../lock/runtime.ts";
import { type Transport, writeAll } from "../lock/transport.ts";

/** What a frame is (5.2). */
const Opcode = {
  continuation: 0x0,
  text: 0x1,
  binary: 0x2,
  close: 0x8,
  ping: 0x9,
  pong: 0xa,
} as const;

/** Why a WebSocket closes (7.4.1). */
const CloseCode = {
  normal: 1000,
  protocolError: 1002,
  unsupportedData: 1003,
  invalidText: 1007,
  tooBig: 1009,
} as const;

const FIN = 0x80;
const RSV = 0x70;
const OPCODE = 0x0f;
const CONTROL = 0x08;
const MASKED = 0x80;
const LENGTH = 0x7f;

/** Stand for a length of 16 and 64 bits that follows. */
const LENGTH_16 = 126;
const LENGTH_64 = 127;

const START_LENGTH = 2;
const KEY_LENGTH = 4;
const MAX_HEADER_LENGTH = START_LENGTH + 8 + KEY_LENGTH;
const MAX_CONTROL_LENGTH = 125;

/**
 * A frame that is sent has its payload here, on a word's boundary, and its
 * header just before.
 */
const PAYLOAD_START = 16;

/** The longest payload that we send, in bytes. */
const MAX_PAYLOAD = 65_536;

// As in frame.ts: a connection that says little keeps a small buffer only.
const IDLE_BUFFER = 2 * 1024;
const BUSY_BUFFER = PAYLOAD_START + MAX_PAYLOAD;

/** What comes next from the peer. */
type State =
  /** The two bytes that say what a frame is. */
  | "start"
  /** The rest of its header: a longer length, and the mask. */
  | "header"
  /** The payload of a message, or of a part of one. */
  | "data"
  /** The payload of a control frame. */
  | "control"
  /** Nothing that counts: its Close has come, or it broke the rules. */
  | "closed";

/**
 * The stream of a WebSocket's binary messages, after the opening handshake.
 *
 * One `read` and one `write` may be under way at a time, as with a `Deno.Conn`.
 */
export class WebSocketTransport extends Layer {
  readonly #role: "client" | "server";

  // Receiving.
  #state: State = "start";
  readonly #header = new Uint8Array(MAX_HEADER_LENGTH);
  #headerLength = 0;
  /** How long the header is, as far as that is known. */
  #headerEnd = START_LENGTH;
  #opcode = 0;
  /** So much of the frame's payload is yet to come, in bytes. */
  #left = 0;
  /** Its mask, if there is one. */
  #key: Bytes | undefined;
  /** So much of the payload has come, modulo the key's length. */
  #phase = 0;
  /** Whether a message is under way whose last fragment has not begun. */
  #isInMessage = false;
  readonly #control = new Uint8Array(MAX_CONTROL_LENGTH);
  #controlLength = 0;
  /** Why it closed, unless that was meant. */
  #failure: ChannelError | undefined;

  // Sending: one frame after the other, and none after one that failed.
  #sent: Promise<void> = Promise.resolve();
  #buffer = new Uint8Array(0);
  /** The payload of a pong that waits to be sent. */
  #pong: Bytes | undefined;
  /** Whether our Close is on its way. */
  #isClosing = false;
  /** Whether the transport ends once the peer has closed as well. */
  #isEnding = false;

  /**
   * @param transport What carries it, from the first frame on.
   * @param role Which side this is.
   */
  constructor(transport: Transport, role: "client" | "server") {
    super(transport);
    this.#role = role;
  }

  /**
   * Reads up to `p.length` bytes of the messages into `p`. It may use all of `p`
   * to unpack them.
   *
   * @returns Their number; null after the peer's Close, or at the end of the
   * transport.
   * @throws {ChannelError} `protocol` if the peer breaks the rules, which a Close
   * tells it; `cut` if its Close tells of a fault. Messages before that are read
   * first.
   */
  override async read(p: Uint8Array): Promise<number | null> {
    if (p.length === 0) return 0;
    while (true) {
      if (this.#failure) throw this.#failure;
      if (this.#state === "closed") break;
      const count = await this.beneath.read(p);
      if (count === null) break;
      const length = this.#unpack(p.subarray(0, count));
      if (length > 0) return length;
      // Over TLS, a read of what has come already takes no turn of the event
      // loop: a peer that says nothing without pause would hold up all others.
      await nextTurn();
    }
    if (this.#isEnding) await this.beneath.closeWrite().catch(() => {});
    return null;
  }

  /**
   * Sends up to 64 KiB of `p` as one binary message.
   *
   * @returns How many bytes it took.
   * @throws {ChannelError} `cut` if either side has sent its Close.
   */
  override async write(p: Uint8Array): Promise<number> {
    if (this.#isClosing) {
      throw new ChannelError("cut", "The WebSocket is closed already");
    }
    const payload = p.subarray(0, MAX_PAYLOAD);
    if (payload.length === 0) return 0;
    await this.#send(() => this.#encode(Opcode.binary, payload));
    return payload.length;
  }

  /**
   * Sends a Close. The transport's direction ends when the peer's Close, or the
   * transport's end, has been read (7.1.1).
   */
  override async closeWrite(): Promise<void> {
    await this.#close(CloseCode.normal);
    this.#isEnding = true;
    if (this.#state === "closed") await this.beneath.closeWrite();
  }

  /**
   * Frees what has come of its frames, in place, and acts on control frames.
   *
   * @returns How many bytes of messages there are now, at the beginning.
   */
  #unpack(bytes: Uint8Array): number {
    let length = 0;
    for (let at = 0; at < bytes.length;) {
      switch (this.#state) {
        case "start":
        case "header":
          this.#header[this.#headerLength++] = bytes[at++]!;
          if (this.#headerLength === this.#headerEnd) this.#headerHasCome();
          break;
        case "data": {
          const part = bytes.subarray(at, at + this.#left);
          if (this.#key) mask(part, this.#key, this.#phase);
          if (length !== at) bytes.copyWithin(length, at, at + part.length);
          this.#phase = (this.#phase + part.length) % KEY_LENGTH;
          length += part.length;
          at += part.length;
          this.#left -= part.length;
          if (this.#left === 0) this.#state = "start";
          break;
        }
        case "control": {
          const part = bytes.subarray(at, at + this.#left);
          this.#control.set(part, this.#controlLength);
          this.#controlLength += part.length;
          at += part.length;
          this.#left -= part.length;
          if (this.#left === 0) this.#controlHasCome();
          break;
        }
        case "closed":
          return length;
      }
    }
    return length;
  }

  /** So much of a header as {@linkcode #headerEnd} says. */
  #headerHasCome(): void {
    const first = this.#header[0]!;
    const second = this.#header[1]!;
    if (this.#state === "start") {
      // Refuse it at once, not after more bytes.
      const fault = this.#faultOfHeader(first, second);
      if (fault) return this.#fail(...fault);
      this.#headerEnd += extraOf(second) + (second & MASKED ? KEY_LENGTH : 0);
      this.#state = "header";
      if (this.#headerEnd > START_LENGTH) return;
    }
    const extra = extraOf(second);
    const view = new DataView(this.#header.buffer);
    const left = extra === 8
      ? Number(view.getBigUint64(START_LENGTH))
      : extra === 2
      ? view.getUint16(START_LENGTH)
      : second & LENGTH;
    if (left > Number.MAX_SAFE_INTEGER) {
      return this.#fail(CloseCode.tooBig, "a message without bound");
    }
    if (extra === 8 && left < 2 ** 16 || extra === 2 && left < LENGTH_16) {
      return this.#fail(CloseCode.protocolError, "a length in too many bytes");
    }
    this.#opcode = first & OPCODE;
    this.#left = left;
    this.#key = second & MASKED
      ? this.#header.slice(this.#headerEnd - KEY_LENGTH, this.#headerEnd)
      : undefined;
    this.#phase = 0;
    this.#headerLength = 0;
    this.#headerEnd = START_LENGTH;
    if (first & CONTROL) {
      this.#state = "control";
      if (left === 0) this.#controlHasCome();
    } else this.#state = left === 0 ? "start" : "data";
  }

  /** What may not be (5.1 to 5.5); it also keeps count of fragments. */
  #faultOfHeader(first: number, second: number): [number, string] | undefined {
    const fault = (what: string): [number, string] => [
      CloseCode.protocolError,
      what,
    ];
    const opcode = first & OPCODE;
    const isFinal = (first & FIN) !== 0;
    if (first & RSV) return fault("a frame of an extension");
    const isMasked = (second & MASKED) !== 0;
    if (isMasked !== (this.#role === "server")) {
      return fault(isMasked ? "a masked frame" : "a frame without mask");
    }
    switch (opcode) {
      case Opcode.continuation:
        if (!this.#isInMessage) return fault("a fragment of no message");
        this.#isInMessage = !isFinal;
        break;
      case Opcode.text:
        return [CloseCode.unsupportedData, "a text message"];
      case Opcode.binary:
        if (this.#isInMessage) return fault("a message inside another");
        this.#isInMessage = !isFinal;
        break;
      case Opcode.close:
      case Opcode.ping:
      case Opcode.pong:
        if (!isFinal) return fault("a control frame in fragments");
        if ((second & LENGTH) > MAX_CONTROL_LENGTH) {
          return fault("a control frame that is too long");
        }
        break;
      default:
        return fault(`a frame of the unknown kind ${opcode}`);
    }
  }

  /** The payload of a control frame, whole. */
  #controlHasCome(): void {
    this.#state = "start";
    const payload = this.#control.slice(0, this.#controlLength);
    this.#controlLength = 0;
    if (this.#key) mask(payload, this.#key, 0);
    if (this.#opcode === Opcode.ping) this.#answer(payload);
    else if (this.#opcode === Opcode.close) this.#closeHasCome(payload);
  }

  /** A Close, which is answered with its code, if it has one (5.5.1, 7.4). */
  #closeHasCome(payload: Bytes): void {
    if (payload.length === 0) return this.#closed(undefined);
    const code = payload.length > 1 ? payload[0]! << 8 | payload[1]! : 0;
    const isOfStandard = code >= 1000 && code <= 1014 &&
      ![1004, 1005, 1006].includes(code);
    if (!isOfStandard && !(code >= 3000 && code <= 4999)) {
      return this.#fail(CloseCode.protocolError, "a malformed Close");
    }
    const text = payload.subarray(2);
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(text);
    } catch {
      return this.#fail(
        CloseCode.invalidText,
        "a Close without proper text",
      );
    }
    if (code === CloseCode.normal) return this.#closed(code);
    this.#failure = closedFor(code, text);
    this.#closed(code);
  }

  #closed(code: number | undefined): void {
    this.#state = "closed";
    this.#close(code).catch(() => {});
  }

  /** The peer broke the rules. */
  #fail(code: number, what: string): void {
    const peer = this.#role === "client" ? "server" : "client";
    this.#failure = new ChannelError(
      "protocol",
      `The ${peer} broke the rules of WebSocket: it sent ${what}`,
    );
    this.#closed(code);
  }

  /**
   * Answers a Ping. It is not awaited: reading must not wait for a peer that
   * does not read. While a pong waits, another Ping only replaces its payload
   * (5.5.3).
   */
  #answer(payload: Bytes): void {
    const isWaiting = this.#pong !== undefined;
    this.#pong = payload;
    if (isWaiting || this.#isClosing) return;
    this.#send(() => {
      const latest = this.#pong!;
      this.#pong = undefined;
      return this.#encode(Opcode.pong, latest);
    }).catch(() => {});
  }

  /** Sends our Close, unless it has been sent. */
  #close(code: number | undefined): Promise<void> {
    if (this.#isClosing) return this.#sent;
    this.#isClosing = true;
    const payload = new Uint8Array(code === undefined ? 0 : 2);
    if (code !== undefined) new DataView(payload.buffer).setUint16(0, code);
    return this.#send(() => this.#encode(Opcode.close, payload));
  }

  /** @param encode Is called when those before have been sent. */
  #send(encode: () => Bytes): Promise<void> {
    const sent = this.#sent.then(() => writeAll(this.beneath, encode()));
    sent.catch(() => {});
    this.#sent = sent;
    return sent;
  }

  /** A frame as it is sent, in a buffer that the next one uses again. */
  #encode(opcode: number, payload: Uint8Array): Bytes {
    const { length } = payload;
    const end = PAYLOAD_START + length;
    const size = end > IDLE_BUFFER ? BUSY_BUFFER : IDLE_BUFFER;
    if (this.#buffer.length !== size) this.#buffer = new Uint8Array(size);
    const buffer = this.#buffer;
    buffer.set(payload, PAYLOAD_START);
    const isMasked = this.#role === "client";
    const extra = length < LENGTH_16 ? 0 : length < 2 ** 16 ? 2 : 8;
    const start = PAYLOAD_START - 2 - extra - (isMasked ? KEY_LENGTH : 0);
    const view = new DataView(buffer.buffer);
    buffer[start] = FIN | opcode;
    buffer[start + 1] = (isMasked ? MASKED : 0) |
      (extra === 0 ? length : extra === 2 ? LENGTH_16 : LENGTH_64);
    if (extra === 2) view.setUint16(start + 2, length);
    else if (extra === 8) view.setBigUint64(start + 2, BigInt(length));
    if (isMasked) {
      // A fresh one each time, which nobody can foresee (10.3).
      const key = buffer.subarray(PAYLOAD_START - KEY_LENGTH, PAYLOAD_START);
      crypto.getRandomValues(key);
      mask(buffer.subarray(PAYLOAD_START, end), key, 0);
    }
    return buffer.subarray(start, end);
  }
}

/** How many bytes of a length follow the second byte. */
function extraOf(second: number): 0 | 2 | 8 {
  const short = second & LENGTH;
  return short === LENGTH_64 ? 8 : short === LENGTH_16 ? 2 : 0;
}

/**
 * Masks or unmasks bytes in place (5.3): four at a time where they lie on a
 * word's boundary, and eight words a turn, which is five times as fast as one.
 *
 * @param phase Where in the key the first byte is.
 */
export function mask(bytes: Uint8Array, key: Uint8Array, phase: number): void {
  const { length } = bytes;
  const start = Math.min(-bytes.byteOffset & 3, length);
  const count = (length - start) >>> 2;
  const end = start + 4 * count;
  maskBytes(bytes, 0, start, key, phase);
  if (count > 0) {
    const words = new Int32Array(bytes.buffer, bytes.byteOffset + start, count);
    maskWords(words, key, phase + start);
  }
  maskBytes(bytes, end, length, key, phase);
}

function maskBytes(
  bytes: Uint8Array,
  from: number,
  to: number,
  key: Uint8Array,
  phase: number,
): void {
  for (let i = from; i < to; i++) bytes[i]! ^= key[(phase + i) % KEY_LENGTH]!;
}

/** The key as a word, in the order of this machine's bytes. */
const WORD = new Int32Array(1);
const WORD_BYTES = new Uint8Array(WORD.buffer);

function maskWords(words: Int32Array, key: Uint8Array, phase: number): void {
  for (let i = 0; i < KEY_LENGTH; i++) {
    WORD_BYTES[i] = key[(phase + i) % KEY_LENGTH]!;
  }
  const word = WORD[0]!;
  const eighths = words.length & ~7;
  for (let i = 0; i < eighths; i += 8) {
    words[i]! ^= word;
    words[i + 1]! ^= word;
    words[i + 2]! ^= word;
    words[i + 3]! ^= word;
    words[i + 4]! ^= word;
    words[i + 5]! ^= word;
    words[i + 6]! ^= word;
    words[i + 7]! ^= word;
  }
  for (let i = eighths; i < words.length; i++) words[i]! ^= word;
}
