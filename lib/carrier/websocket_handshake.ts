/**
 * The opening handshake of WebSocket (RFC 6455, section 4), version 13, both
 * roles: without subprotocols and extensions.
 *
 * A server also tells whoever asks how it is: load balancers and probes.
 *
 * @module
 */

import type { Bytes } from "../lock/aes_gcm.ts";
import { shown } from "../lock/errors.ts";
import { type Head, HttpError, listOf, readHead, statusOf } from "./http.ts";
import { type Transport, writeAll } from "../lock/transport.ts";
import { WebSocketTransport } from "./websocket_frames.ts";

/** What follows the key in the hash that a server answers (1.3). */
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** The version of the protocol, and the only one (4.1). */
const VERSION = "13";

/** The path that a client asks for, unless told otherwise. */
const DEFAULT_PATH = "/innerlock";

/** Who speaks. */
const CLIENT = { name: "The client", code: "protocol", start: "" } as const;
const SERVER = { ...CLIENT, name: "The server", start: "HTTP/1." };

/** How much of a refused client's data is still read, in bytes. */
const MAX_REFUSED = 16_384;

/** What {@linkcode connectWebSocket} takes. */
export interface WebSocketOptions {
  /** The server's name, with `:` and its port if that is not the usual one. */
  host: string;
  /** The path to ask for. @default {"/innerlock"} */
  path?: string;
}

/**
 * Opens a WebSocket as the client.
 *
 * The transport now belongs to the WebSocket. If this fails, the caller closes it.
 *
 * @returns The stream of the binary messages.
 * @throws {HttpError} `protocol` if the server opens no WebSocket. `reason` and
 * `status` say what it answered; with the reason `closed`, it did not answer.
 * @throws {TypeError} If host or path is not allowed in a request.
 */
export async function connectWebSocket(
  transport: Transport,
  { host, path = DEFAULT_PATH }: WebSocketOptions,
): Promise<WebSocketTransport> {
  const key = toBase64(crypto.getRandomValues(new Uint8Array(16)));
  await writeAll(transport, encodeRequest(host, path, key));
  const { head, rest } = await readHead(transport, SERVER);
  await checkAnswer(head, key);
  return new WebSocketTransport(rest, "client");
}

/** Where a server says how it is. */
const HEALTH_PATH = "/healthz";

/**
 * The client asked only how the server is, and has its answer: no fault of its,
 * and nothing to report.
 */
export class HealthCheck extends Error {}

/** What {@linkcode acceptWebSocket} takes. */
export interface AcceptOptions {
  /** Whether the server takes more clients. @default {true} */
  isHealthy?: () => boolean;
}

/**
 * Opens a WebSocket as the server, at any path.
 *
 * A request for no WebSocket, or for another version, is answered with 426; what
 * is not a request gets no answer. `GET /healthz`, and any HEAD or OPTIONS, as load
 * balancers send them, is answered with 200, or 503 if the server is not healthy.
 * The transport now belongs to the WebSocket. If this fails, the caller closes it.
 * The request has at most {@linkcode MAX_HEAD_LENGTH} bytes. The client may take
 * its time to send it: the caller ends the wait by closing the transport.
 *
 * @returns The stream of the binary messages; and the header fields of the
 * client's request, where a reverse proxy may have written `X-Forwarded-For`.
 * @throws {HttpError} `protocol`, with the reasons `no-upgrade`, `not-http`,
 * `too-long` or `closed`.
 * @throws {HealthCheck} If it was one.
 */
export async function acceptWebSocket(
  transport: Transport,
  { isHealthy = () => true }: AcceptOptions = {},
): Promise<{ transport: WebSocketTransport; headers: Headers }> {
  const { head, rest } = await readHead(transport, CLIENT);
  if (isHealthCheck(head)) {
    const status = isHealthy() ? "200 OK" : "503 Service Unavailable";
    const lines = [`HTTP/1.1 ${status}`, "Connection: close"];
    await answer(rest, lines).catch(() => {});
    throw new HealthCheck("The client asked only how the server is");
  }
  const fault = faultOfRequest(head);
  if (fault !== undefined) {
    // Even if the answer does not arrive, the fault is what to report.
    if (REQUEST_LINE.test(head.startLine)) {
      await answer(rest, UPGRADE_REQUIRED).catch(() => {});
    }
    const request = `${fault}: ${shown(head.startLine)}`;
    const message = `The client sent an HTTP request, but ${request}`;
    throw new HttpError("protocol", message, "no-upgrade", head);
  }
  const { headers } = head;
  const accept = await acceptOf(headers.get("sec-websocket-key")!);
  const switching = encodeHead([
    "HTTP/1.1 101 Switching Protocols",
    "Upgrade: websocket",
    "Connection: Upgrade",
    `Sec-WebSocket-Accept: ${accept}`,
  ]);
  await writeAll(rest, switching);
  return { transport: new WebSocketTransport(rest, "server"), headers };
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
    const line = shown(head.startLine);
    throw fail(`opened no WebSocket, but answered ${line}`, "status");
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

function isHealthCheck({ startLine, headers }: Head): boolean {
  if (!REQUEST_LINE.test(startLine) || headers.has("upgrade")) return false;
  const [method, target] = startLine.split(" ");
  return method === "HEAD" || method === "OPTIONS" ||
    (method === "GET" && target!.split("?")[0] === HEALTH_PATH);
}

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

const UPGRADE_REQUIRED = [
  "HTTP/1.1 426 Upgrade Required",
  "Connection: close, Upgrade",
  "Upgrade: websocket",
  `Sec-WebSocket-Version: ${VERSION}`,
];

/**
 * Answers a request that opens no WebSocket, and reads on for a while: unread
 * data of the client would turn the close into a reset, and the answer would be
 * lost.
 */
async function answer(transport: Transport, lines: string[]): Promise<void> {
  await writeAll(transport, encodeHead([...lines, "Content-Length: 0"]));
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
