/**
 * WebSocket over any {@linkcode Transport}: RFC 6455, version 13, both roles.
 *
 * | section | what is implemented |
 * | --- | --- |
 * | 4.1, 4.2 | the opening handshake, without subprotocols and extensions |
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
import { ChannelError, shown } from "../lock/errors.ts";
import { type Head, HttpError, listOf, readHead, statusOf } from "./http.ts";
import { orClose } from "../lock/deadline.ts";
import { nextTurn } from "../lock/runtime.ts";
import { type Addr, type Transport, writeAll } from "../lock/transport.ts";

/** What follows the key in the hash that a server answers (1.3). */
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** The version of the protocol, and the only one (4.1). */
const VERSION = "13";

/** The path that a client asks for, unless told otherwise. */
const DEFAULT_PATH = "/innerlock";

/** How much of a refused client's data is still read, in bytes. */
const MAX_REFUSED = 16_384;

/** What {@linkcode connectWebSocket} takes. */
export interface WebSocketOptions {
  /** The server's name, with `:` and its port if that is not the usual one. */
  host: string;
  /** The path to ask for. @default {"/innerlock"} */
  path?: string;
  /** Gives the attempt up. */
  signal?: AbortSignal;
}

/**
 * Opens a WebSocket as the client.
 *
 * The transport now belongs to the WebSocket. If this fails, it is closed.
 *
 * @returns The stream of the binary messages.
 * @throws {HttpError} `protocol` if the server opens no WebSocket. `reason` and
 * `status` say what it answered; with the reason `closed`, it did not answer.
 * @throws {TypeError} If host or path is not allowed in a request.
 */
export async function connectWebSocket(
  transport: Transport,
  { host, path = DEFAULT_PATH, signal }: WebSocketOptions,
): Promise<WebSocketTransport> {
  return await orClose(transport, signal, async () => {
    const key = toBase64(crypto.getRandomValues(new Uint8Array(16)));
    await writeAll(transport, encodeRequest(host, path, key));
    const server = {
      name: "The server",
      code: "protocol" as const,
      start: "HTTP/1.",
    };
    const { head, rest } = await readHead(transport, server);
    await checkAnswer(head, key);
    return new WebSocketTransport(rest, "client");
  });
}

/** What {@linkcode acceptWebSocket} gives. */
export interface AcceptedWebSocket {
  /** The stream of the binary messages. */
  transport: WebSocketTransport;
  /**
   * The header fields of the client's request, where a reverse proxy may have
   * written `X-Forwarded-For`.
   */
  headers: Headers;
}

/**
 * Opens a WebSocket as the server, at any path.
 *
 * A request for no WebSocket, or for another version, is answered with 426; what
 * is not a request gets no answer. The transport now belongs to the WebSocket.
 * If this fails, it is closed. The client may take its time to send the request,
 * of at most {@linkcode MAX_HEAD_LENGTH} bytes; the signal sets a limit.
 *
 * @throws {HttpError} `protocol`, with the reasons `no-upgrade`, `not-http`,
 * `too-long` or `closed`.
 */
export async function acceptWebSocket(
  transport: Transport,
  { signal }: { signal?: AbortSignal } = {},
): Promise<AcceptedWebSocket> {
  return await orClose(transport, signal, async () => {
    const client = { name: "The client", code: "protocol" as const, start: "" };
    const { head, rest } = await readHead(transport, client);
    const fault = faultOfRequest(head);
    if (fault !== undefined) {
      // Even if the answer does not arrive, the fault is what to report.
      if (REQUEST_LINE.test(head.startLine)) await refuse(rest).catch(() => {});
      throw new HttpError(
        "protocol",
        `The client sent an HTTP request, but ${fault}: ${
          shown(head.startLine)
        }`,
        "no-upgrade",
        head,
      );
    }
    const { headers } = head;
    const accept = await acceptOf(headers.get("sec-websocket-key")!);
    await writeAll(
      rest,
      encodeHead([
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        `Sec-WebSocket-Accept: ${accept}`,
      ]),
    );
    return { transport: new WebSocketTransport(rest, "server"), headers };
  });
}

/** The client's part of the opening handshake (4.1). */
function encodeRequest(host: string, path: string, key: string): Bytes {
  if (!/^[\x21-\x7e]+$/.test(host)) {
    throw new TypeError(`Cannot ask the host ${shown(host)} for a WebSocket`);
  }
  if (!/^\/[\x21-\x7e]*$/.test(path) || path.includes("#")) {
    throw new TypeError(
      `Cannot ask for the path ${shown(path)}: it must begin with / and ` +
        "contain only ASCII, without blanks or #",
    );
  }
  return encodeHead([
    `GET ${path} HTTP/1.1`,
    `Host: ${host}`,
    "Upgrade: websocket",
    "Connection: Upgrade",
    `Sec-WebSocket-Key: ${key}`,
    `Sec-WebSocket-Version: ${VERSION}`,
  ]);
}

/** Whether a server's answer opens the WebSocket (4.1, "the client MUST"). */
async function checkAnswer(head: Head, key: string): Promise<void> {
  const { headers } = head;
  const status = statusOf(head);
  const fail = (what: string, reason: "status" | "no-upgrade") =>
    new HttpError("protocol", `The server ${what}`, reason, head);
  if (status !== 101) {
    throw fail(
      `opened no WebSocket, but answered ${shown(head.startLine)}`,
      "status",
    );
  }
  if (
    !listOf(headers, "upgrade").includes("websocket") ||
    !listOf(headers, "connection").includes("upgrade")
  ) {
    throw fail("switched to a protocol other than WebSocket", "no-upgrade");
  }
  if (headers.get("sec-websocket-accept") !== await acceptOf(key)) {
    throw fail(
      "opened a WebSocket that is not the one asked for: its " +
        "Sec-WebSocket-Accept does not match",
      "no-upgrade",
    );
  }
  for (const name of ["sec-websocket-extensions", "sec-websocket-protocol"]) {
    if (headers.has(name)) {
      throw fail(`chose a ${name}, but was offered none`, "no-upgrade");
    }
  }
}

const REQUEST_LINE = /^[!#$%&'*+.^_`|~\w-]+ \S+ HTTP\/1\.\d$/;

/** Why a request opens no WebSocket; undefined if it does (4.2.1). */
function faultOfRequest({ startLine, headers }: Head): string | undefined {
  if (!REQUEST_LINE.test(startLine)) return "with a malformed request line";
  if (!startLine.startsWith("GET ")) return "with a method other than GET";
  if (!listOf(headers, "upgrade").includes("websocket")) {
    return "asked for no WebSocket";
  }
  if (!listOf(headers, "connection").includes("upgrade")) {
    return "asked for no WebSocket in its Connection";
  }
  if (startLine.endsWith("HTTP/1.0")) {
    return "asked for a WebSocket in HTTP/1.0, which has none";
  }
  if (headers.get("sec-websocket-version") !== VERSION) {
    return "asked for a version of WebSocket other than 13";
  }
  // 16 bytes in base64.
  if (!/^[\w+/]{22}==$/.test(headers.get("sec-websocket-key") ?? "")) {
    return "asked for a WebSocket without a proper key";
  }
}

/**
 * Answers a request that opens no WebSocket, and reads on for a while: unread
 * data of the client would turn the close into a reset, and the answer would be
 * lost.
 */
async function refuse(transport: Transport): Promise<void> {
  await writeAll(
    transport,
    encodeHead([
      "HTTP/1.1 426 Upgrade Required",
      "Connection: close, Upgrade",
      "Upgrade: websocket",
      `Sec-WebSocket-Version: ${VERSION}`,
      "Content-Length: 0",
    ]),
  );
  await transport.closeWrite();
  const ignored = new Uint8Array(1024);
  for (let total = 0; total < MAX_REFUSED;) {
    const count = await transport.read(ignored).catch(() => null);
    if (count === null) return;
    total += count;
  }
}

function encodeHead(lines: string[]): Bytes {
  return new TextEncoder().encode(lines.join("\r\n") + "\r\n\r\n");
}

async function acceptOf(key: string): Promise<string> {
  const text = new TextEncoder().encode(key + GUID);
  return toBase64(new Uint8Array(await crypto.subtle.digest("SHA-1", text)));
}

function toBase64(bytes: Bytes): string {
  return btoa(String.fromCharCode(...bytes));
}

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

const KEY_LENGTH = 4;
const MAX_HEADER_LENGTH = 2 + 8 + KEY_LENGTH;
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

/** A frame that is being received. */
interface Frame {
  opcode: number;
  isFinal: boolean;
  /** So much of its payload is yet to come, in bytes. */
  left: number;
  /** The mask, if there is one. */
  key: Bytes | undefined;
  /** So much of the payload has come, modulo the key's length. */
  phase: number;
}

/**
 * The stream of a WebSocket's binary messages, after the opening handshake.
 *
 * One `read` and one `write` may be under way at a time, as with a `Deno.Conn`.
 */
export class WebSocketTransport implements Transport {
  /** The peer's address, if the transport beneath has one. */
  readonly remoteAddr?: Addr;
  /** This side's address, if the transport beneath has one. */
  readonly localAddr?: Addr;

  readonly #transport: Transport;
  readonly #role: "client" | "server";

  // Receiving.
  readonly #header = new Uint8Array(MAX_HEADER_LENGTH);
  #headerLength = 0;
  #frame: Frame | undefined;
  /** Whether a message is under way whose last fragment has not begun. */
  #isInMessage = false;
  readonly #control = new Uint8Array(MAX_CONTROL_LENGTH);
  #controlLength = 0;
  /** Whether the peer's Close has come. */
  #isEnded = false;
  #failure: ChannelError | undefined;

  // Sending: one frame after the other, and none after one that failed.
  #sent: Promise<void> = Promise.resolve();
  #buffer = new Uint8Array(0);
  /** The payload of a pong that waits to be sent. */
  #pong: Bytes | undefined;
  /** Whether our Close is on its way. */
  #isClosing = false;

  /**
   * @param transport What carries it, from the first frame on.
   * @param role Which side this is.
   */
  constructor(transport: Transport, role: "client" | "server") {
    this.#transport = transport;
    this.#role = role;
    const { remoteAddr, localAddr } = transport;
    if (remoteAddr) this.remoteAddr = remoteAddr;
    if (localAddr) this.localAddr = localAddr;
  }

  /**
   * Reads up to `p.length` bytes of the messages into `p`. It may use all of `p`
   * to unpack them.
   *
   * @returns Their number; null after the peer's Close, or at the end of the
   * transport.
   * @throws {ChannelError} `protocol` if the peer breaks the rules. The peer
   * gets a Close with the code.
   */
  async read(p: Uint8Array): Promise<number | null> {
    if (this.#failure) throw this.#failure;
    if (p.length === 0) return 0;
    while (!this.#isEnded) {
      const count = await this.#transport.read(p);
      if (count === null) return null;
      const length = this.#unpack(p.subarray(0, count));
      if (length > 0) return length;
      // Over TLS, a read of what has come already takes no turn of the event
      // loop: a peer that says nothing without pause would hold up all others.
      await nextTurn();
    }
    return null;
  }

  /**
   * Sends up to 64 KiB of `p` as one binary message.
   *
   * @returns How many bytes it took.
   * @throws {ChannelError} `cut` if either side has sent its Close.
   */
  async write(p: Uint8Array): Promise<number> {
    if (this.#isClosing) {
      throw new ChannelError("cut", "The WebSocket is closed already");
    }
    const payload = p.subarray(0, MAX_PAYLOAD);
    if (payload.length === 0) return 0;
    await this.#send(() => this.#encode(Opcode.binary, payload));
    return payload.length;
  }

  /** Sends a Close, then ends this direction of the transport. */
  async closeWrite(): Promise<void> {
    await this.#close(CloseCode.normal);
    await this.#transport.closeWrite();
  }

  /** Closes the transport at once, without a word. */
  close(): void {
    this.#transport.close();
  }

  /**
   * Frees what has come of its frames, in place, and acts on control frames.
   *
   * @returns How many bytes of messages there are now, at the beginning.
   */
  #unpack(bytes: Uint8Array): number {
    let length = 0;
    for (let at = 0; at < bytes.length && !this.#isEnded;) {
      if (!this.#frame) {
        this.#header[this.#headerLength++] = bytes[at++]!;
        this.#frame = this.#parseHeader();
      } else {
        const frame = this.#frame;
        const end = Math.min(at + frame.left, bytes.length);
        const part = bytes.subarray(at, end);
        if (frame.opcode & CONTROL) {
          this.#control.set(part, this.#controlLength);
          this.#controlLength += part.length;
        } else {
          if (frame.key) mask(part, frame.key, frame.phase);
          if (length !== at) bytes.copyWithin(length, at, end);
          frame.phase = (frame.phase + part.length) % KEY_LENGTH;
          length += part.length;
        }
        frame.left -= part.length;
        at = end;
      }
      if (this.#frame?.left === 0) this.#endFrame(this.#frame);
    }
    return length;
  }

  /** The frame that the header begins; undefined while more of it must come. */
  #parseHeader(): Frame | undefined {
    if (this.#headerLength < 2) return undefined;
    const first = this.#header[0]!;
    const second = this.#header[1]!;
    // Refuse it at once, not after more bytes.
    if (this.#headerLength === 2) this.#checkHeader(first, second);
    const short = second & LENGTH;
    const extra = short === LENGTH_64 ? 8 : short === LENGTH_16 ? 2 : 0;
    const keyLength = second & MASKED ? KEY_LENGTH : 0;
    if (this.#headerLength < 2 + extra + keyLength) return undefined;
    this.#headerLength = 0;
    const view = new DataView(this.#header.buffer);
    const left = extra === 8
      ? Number(view.getBigUint64(2))
      : extra === 2
      ? view.getUint16(2)
      : short;
    if (left > Number.MAX_SAFE_INTEGER) {
      throw this.#fail(CloseCode.tooBig, "a message without bound");
    }
    if (extra === 8 && left < 2 ** 16 || extra === 2 && left < LENGTH_16) {
      throw this.#fail(CloseCode.protocolError, "a length in too many bytes");
    }
    return {
      opcode: first & OPCODE,
      isFinal: (first & FIN) !== 0,
      left,
      key: keyLength
        ? this.#header.slice(2 + extra, 2 + extra + keyLength)
        : undefined,
      phase: 0,
    };
  }

  /** Refuses what may not be (5.1 to 5.5), and keeps count of fragments. */
  #checkHeader(first: number, second: number): void {
    const fail = (what: string) => this.#fail(CloseCode.protocolError, what);
    const opcode = first & OPCODE;
    const isFinal = (first & FIN) !== 0;
    if (first & RSV) throw fail("a frame of an extension");
    const isMasked = (second & MASKED) !== 0;
    if (isMasked !== (this.#role === "server")) {
      throw fail(isMasked ? "a masked frame" : "a frame without mask");
    }
    switch (opcode) {
      case Opcode.continuation:
        if (!this.#isInMessage) throw fail("a fragment of no message");
        this.#isInMessage = !isFinal;
        break;
      case Opcode.text:
        throw this.#fail(CloseCode.unsupportedData, "a text message");
      case Opcode.binary:
        if (this.#isInMessage) throw fail("a message inside another");
        this.#isInMessage = !isFinal;
        break;
      case Opcode.close:
      case Opcode.ping:
      case Opcode.pong:
        if (!isFinal) throw fail("a control frame in fragments");
        if ((second & LENGTH) > MAX_CONTROL_LENGTH) {
          throw fail("a control frame that is too long");
        }
        break;
      default:
        throw fail(`a frame of the unknown kind ${opcode}`);
    }
  }

  #endFrame({ opcode, key }: Frame): void {
    this.#frame = undefined;
    if (!(opcode & CONTROL)) return;
    const payload = this.#control.slice(0, this.#controlLength);
    this.#controlLength = 0;
    if (key) mask(payload, key, 0);
    if (opcode === Opcode.ping) this.#answer(payload);
    else if (opcode === Opcode.close) {
      this.#isEnded = true;
      this.#close(this.#parseClose(payload)).catch(() => {});
    }
  }

  /** The code of a Close, if it has one (5.5.1, 7.4). */
  #parseClose(payload: Bytes): number | undefined {
    if (payload.length === 0) return undefined;
    const code = payload.length > 1 ? payload[0]! << 8 | payload[1]! : 0;
    const isOfStandard = code >= 1000 && code <= 1014 &&
      ![1004, 1005, 1006].includes(code);
    if (!isOfStandard && !(code >= 3000 && code <= 4999)) {
      throw this.#fail(CloseCode.protocolError, "a malformed Close");
    }
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(payload.subarray(2));
    } catch {
      throw this.#fail(CloseCode.invalidText, "a Close without proper text");
    }
    return code;
  }

  #fail(code: number, what: string): ChannelError {
    const peer = this.#role === "client" ? "server" : "client";
    this.#failure = new ChannelError(
      "protocol",
      `The ${peer} broke the rules of WebSocket: it sent ${what}`,
    );
    this.#close(code).catch(() => {});
    return this.#failure;
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
    const sent = this.#sent.then(() => writeAll(this.#transport, encode()));
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

function maskWords(words: Int32Array, key: Uint8Array, phase: number): void {
  const turned = new Uint8Array(KEY_LENGTH);
  for (let i = 0; i < KEY_LENGTH; i++) {
    turned[i] = key[(phase + i) % KEY_LENGTH]!;
  }
  const word = new Int32Array(turned.buffer)[0]!;
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
