/**
 * The little of HTTP/1.1 that a carrier needs: the head of a message, over a
 * {@linkcode Transport} (RFC 9112, sections 2 to 5).
 *
 * @module
 */

import type { Bytes } from "../lock/aes_gcm.ts";
import { ChannelError, type ChannelErrorCode, shown } from "../lock/errors.ts";
import { replay } from "./sniff.ts";
import type { Transport } from "../lock/transport.ts";

/** The longest head that is accepted, in bytes. */
export const MAX_HEAD_LENGTH = 8192;

const TAB = 0x09;
const LF = 0x0a;
const CR = 0x0d;

/**
 * What went wrong with an HTTP message.
 *
 * | reason | what happened |
 * | --- | --- |
 * | `closed` | the connection closed before the end of the head |
 * | `too-long` | the head has no end within its bound |
 * | `not-http` | what came is not HTTP/1.x |
 * | `credentials-missing` | a proxy asks for credentials, but got none (407) |
 * | `credentials-refused` | a proxy rejects the credentials that it got (407) |
 * | `forbidden` | a proxy does not allow this target, or this port (403) |
 * | `unreachable` | a proxy cannot reach the target (502, 503, 504) |
 * | `status` | an unexpected answer |
 * | `no-upgrade` | a request that asks for no WebSocket, or an answer that does not open one |
 * | `unasked` | HTTP came where frames should be, without a request |
 */
export type HttpErrorReason =
  | "closed"
  | "too-long"
  | "not-http"
  | "credentials-missing"
  | "credentials-refused"
  | "forbidden"
  | "unreachable"
  | "status"
  | "no-upgrade"
  | "unasked";

/**
 * HTTP led to no connection: a forward proxy or an HTTP server is in the way, or
 * a client sent another request. The properties let a program give its own
 * advice.
 */
export class HttpError extends ChannelError {
  /** The class's name. */
  override readonly name = "HttpError";

  /** What went wrong. */
  readonly reason: HttpErrorReason;
  /** The status code of the answer, if there was one. */
  readonly status?: number;
  /** The first line that came, fit for a log. */
  readonly startLine?: string;
  /** The header fields that came. */
  readonly headers?: Headers;

  /**
   * Makes the error.
   *
   * @param code Why the channel failed.
   * @param message What failed: a sentence without period.
   * @param reason What went wrong.
   * @param head The head that came, if one came whole.
   */
  constructor(
    code: ChannelErrorCode,
    message: string,
    reason: HttpErrorReason,
    head?: Head,
  ) {
    super(code, message);
    this.reason = reason;
    if (!head) return;
    const status = statusOf(head);
    if (status !== undefined) this.status = status;
    this.startLine = shown(head.startLine);
    this.headers = head.headers;
  }
}

/** The head of an HTTP message. */
export interface Head {
  /** The request line or the status line, without its line break. */
  startLine: string;
  /** The header fields; those of one name are joined by `, `. */
  headers: Headers;
}

/** Who sends an HTTP message, and what an error about it is called. */
export interface Speaker {
  /** The subject of an error's message, such as `The proxy`. */
  name: string;
  /** The code of an error. */
  code: ChannelErrorCode;
  /** What the message must begin with, such as `HTTP/1.` */
  start: string;
}

/**
 * Reads the head of a message.
 *
 * A bare line feed is taken for a line break, as RFC 9112 (2.2) allows.
 *
 * @param speaker Who sends it.
 * @param isExact Whether nothing beyond the head may be read: it is then read
 * byte by byte.
 * @returns The head, and the transport from the first byte after it on.
 * @throws {HttpError} `closed`, `too-long`, or `not-http` as soon as that is
 * certain.
 */
export async function readHead(
  transport: Transport,
  speaker: Speaker,
  isExact = false,
): Promise<{ head: Head; rest: Transport }> {
  const buffer = new Uint8Array(MAX_HEAD_LENGTH);
  let length = 0;
  while (length < buffer.length) {
    const space = buffer.subarray(length, isExact ? length + 1 : undefined);
    const count = await transport.read(space);
    if (count === null) throw closed(speaker, length);
    // The break that ends the head may have begun in the read before.
    const from = Math.max(0, length - 2);
    length += count;
    const end = endOfHead(buffer.subarray(0, length), from);
    const text = buffer.subarray(0, end ?? length);
    if (!mayBeHead(text, from, speaker.start)) throw notHttp(speaker, text);
    if (end === undefined) continue;
    const head = parseHead(toLatin1(text));
    if (!head) throw notHttp(speaker, text);
    return { head, rest: replay(buffer.slice(end, length), transport) };
  }
  const what = `an HTTP head of more than ${MAX_HEAD_LENGTH} bytes`;
  throw new HttpError(speaker.code, `${speaker.name} sent ${what}`, "too-long");
}

/** The index after the empty line; undefined where there is none yet. */
function endOfHead(bytes: Bytes, from: number): number | undefined {
  for (let i = bytes.indexOf(LF, from); i >= 0; i = bytes.indexOf(LF, i + 1)) {
    if (bytes[i + 1] === LF) return i + 2;
    if (bytes[i + 1] === CR && bytes[i + 2] === LF) return i + 3;
  }
}

/** Whether it begins as it must, and has no control characters from there on. */
function mayBeHead(bytes: Bytes, from: number, start: string): boolean {
  for (let i = 0; i < Math.min(start.length, bytes.length); i++) {
    if (bytes[i] !== start.charCodeAt(i)) return false;
  }
  return !bytes.subarray(from).some((byte) =>
    byte < 0x20 && byte !== LF && byte !== CR && byte !== TAB
  );
}

/** Undefined if it is malformed. */
function parseHead(text: string): Head | undefined {
  const [startLine, ...lines] = text.split(/\r?\n/).slice(0, -2);
  if (!startLine) return undefined;
  const headers = new Headers();
  for (const line of lines) {
    const colon = line.indexOf(":");
    try {
      // It takes nothing that is no name or no value, as an empty name is none.
      headers.append(line.slice(0, Math.max(0, colon)), line.slice(colon + 1));
    } catch {
      return undefined;
    }
  }
  return { startLine, headers };
}

/** The status code of an answer. */
export function statusOf({ startLine }: Head): number | undefined {
  const match = /^HTTP\/1\.\d (\d{3})(?: |$)/.exec(startLine);
  return match ? Number(match[1]) : undefined;
}

/** The members of a header field that is a list, in lower case. */
export function listOf(headers: Headers, name: string): string[] {
  return (headers.get(name) ?? "").toLowerCase().split(",")
    .map((member) => member.trim());
}

function closed({ code, name }: Speaker, length: number): HttpError {
  const where = length === 0
    ? "and said nothing"
    : "in the middle of an HTTP head";
  const message = `${name} closed the connection ${where}`;
  return new HttpError(code, message, "closed");
}

function notHttp({ code, name }: Speaker, bytes: Bytes): HttpError {
  const message = `${name} did not speak HTTP: it sent "${shown(bytes)}"`;
  return new HttpError(code, message, "not-http");
}

/** One character for each byte. */
function toLatin1(bytes: Bytes): string {
  return String.fromCharCode(...bytes);
}
