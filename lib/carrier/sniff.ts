/**
 * Looks at the first bytes of a connection, and puts them back.
 *
 * @module
 */

import type { Bytes } from "../lock/aes_gcm.ts";
import { ChannelError } from "../lock/errors.ts";
import { Layer } from "./layer.ts";
import type { Transport } from "../lock/transport.ts";

/** How requests in HTTP begin that are answered: GET, HEAD, OPTIONS. */
const HTTP_STARTS = "GHO";

/** The first byte of a TLS record that begins a handshake (RFC 8446, 5.1). */
const TLS_HANDSHAKE = 0x16;

/**
 * The same transport, whose reads give these bytes first.
 *
 * @param bytes They are not copied, and are released once read.
 */
export function replay(bytes: Bytes, transport: Transport): Transport {
  return bytes.length === 0 ? transport : new Replay(bytes, transport);
}

class Replay extends Layer {
  #bytes: Bytes | undefined;

  constructor(bytes: Bytes, transport: Transport) {
    super(transport);
    this.#bytes = bytes;
  }

  override read(p: Uint8Array): Promise<number | null> {
    if (!this.#bytes) return this.beneath.read(p);
    const part = this.#bytes.subarray(0, p.length);
    p.set(part);
    const isLast = part.length === this.#bytes.length;
    this.#bytes = isLast ? undefined : this.#bytes.subarray(part.length);
    return Promise.resolve(part.length);
  }
}

/**
 * Tells from a client's first byte what it speaks: `00` begins the length of a
 * hello, `47` (`G`) the `GET` of an HTTP request, `48` and `4f` the `HEAD` and
 * `OPTIONS` of a health check. Reads only that byte.
 *
 * @returns Whether it speaks frames of `innerlock/1` as they are, or HTTP, perhaps
 * a WebSocket; and the same connection, from its first byte on.
 * @throws {ChannelError} `protocol` if it is another byte, `cut` if none comes.
 * The transport stays open.
 */
export async function sniff(
  transport: Transport,
): Promise<{ carrier: "frames" | "http"; transport: Transport }> {
  const first = new Uint8Array(1);
  if (await transport.read(first) === null) {
    const message = "The client closed the connection and had said nothing";
    throw new ChannelError("cut", message);
  }
  const byte = first[0]!;
  const isHttp = HTTP_STARTS.includes(String.fromCharCode(byte));
  if (byte === 0x00 || isHttp) {
    const carrier = isHttp ? "http" : "frames";
    return { carrier, transport: replay(first, transport) };
  }
  const hex = byte.toString(16).padStart(2, "0");
  const message = byte === TLS_HANDSHAKE
    ? "The client speaks TLS where its frames should be"
    : `The client speaks neither innerlock nor HTTP: it began with byte ${hex}`;
  throw new ChannelError("protocol", message);
}
