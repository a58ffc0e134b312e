/**
 * The PROXY protocol of HAProxy, versions 1 and 2: with a header ahead of
 * everything else, a box that ends TLS says from which address a connection came
 * (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt).
 *
 * ```text
 * 1  "PROXY TCP4 192.0.2.1 203.0.113.7 51000 443\r\n", 107 bytes at most
 * 2  signature 12 bytes │ version, command │ family │ length u16 │ addresses, …
 * ```
 *
 * Anybody who can reach the port can send such a header. Believe it only if the
 * connection comes from a known box.
 *
 * @module
 */

import type { Bytes } from "../lock/aes_gcm.ts";
import { ChannelError } from "../lock/errors.ts";
import { canonicalAddress } from "./ip_address.ts";
import type { Transport } from "../lock/transport.ts";

/** The longest header of version 1, with its line break, in bytes. */
const MAX_V1_LENGTH = 107;

/** The longest header of version 2 that is taken, less the first 16 bytes. */
const MAX_V2_LENGTH = 4096;

const SIGNATURE = new TextEncoder().encode("\r\n\r\n\0\r\nQUIT\n");
const V2_START_LENGTH = 16;

/** Of version 2, in the four bits of each. */
const VERSION_2 = 0x2;
const Command = { local: 0x0, proxy: 0x1 } as const;
const Family = { ipv4: 0x1, ipv6: 0x2, unix: 0x3 } as const;
const Protocol = { stream: 0x1, datagram: 0x2 } as const;

const LF = 0x0a;

/**
 * Reads the header, and not a byte more. The caller sets the time limit.
 *
 * @returns From where the connection came; undefined if the header does not say,
 * as in a box's health checks.
 * @throws {ChannelError} `protocol` if there is no header, or it is malformed;
 * `cut` if the connection ends within it. The transport stays open.
 */
export async function readProxyHeader(
  transport: Transport,
): Promise<Deno.NetAddr | undefined> {
  const [first] = await readExactly(transport, 1);
  if (first === SIGNATURE[0]) return await readVersion2(transport);
  if (first === "P".charCodeAt(0)) return await readVersion1(transport);
  throw new ChannelError(
    "protocol",
    "The connection does not begin with a header of the PROXY protocol",
  );
}

/** The rest of a header that began with `P`. */
async function readVersion1(
  transport: Transport,
): Promise<Deno.NetAddr | undefined> {
  let line = "P";
  while (!line.endsWith("\r\n")) {
    if (line.length === MAX_V1_LENGTH) throw malformed("is too long");
    const [byte] = await readExactly(transport, 1);
    line += String.fromCharCode(byte!);
    if (byte === LF && !line.endsWith("\r\n")) throw malformed("has no CR");
  }
  const [name, family, ...fields] = line.slice(0, -2).split(" ");
  if (name !== "PROXY") throw malformed("does not begin with PROXY");
  // Whatever follows it, to the end of the line, is to be ignored.
  if (family === "UNKNOWN") return undefined;
  const isIpv6 = family === "TCP6";
  const [source, target, ...ports] = fields;
  const isOfFamily = (text = "") =>
    text.includes(":") === isIpv6 && canonicalAddress(text) !== undefined;
  const isSound = (isIpv6 || family === "TCP4") &&
    isOfFamily(source) && isOfFamily(target) &&
    ports.length === 2 && ports.every(isPort);
  if (!isSound) throw malformed("names no addresses");
  return sourceAddress(source!, Number(ports[0]));
}

function isPort(text: string): boolean {
  return /^(?:0|[1-9]\d{0,4})$/.test(text) && Number(text) < 65_536;
}

/** The rest of a header that began with the signature's first byte. */
async function readVersion2(
  transport: Transport,
): Promise<Deno.NetAddr | undefined> {
  const start = await readExactly(transport, V2_START_LENGTH - 1);
  if (SIGNATURE.subarray(1).some((byte, i) => byte !== start[i])) {
    throw malformed("has another signature");
  }
  const view = new DataView(start.buffer, SIGNATURE.length - 1);
  const [version, command] = nibbles(view.getUint8(0));
  const [family, protocol] = nibbles(view.getUint8(1));
  const length = view.getUint16(2);
  if (version !== VERSION_2) throw malformed("is of another version");
  if (command !== Command.local && command !== Command.proxy) {
    throw malformed("has an unknown command");
  }
  if (length > MAX_V2_LENGTH) throw malformed("is too long");
  const body = await readExactly(transport, length);
  if (command === Command.local) return undefined;
  if (family > Family.unix || protocol > Protocol.datagram) {
    throw malformed("has an unknown family");
  }
  // Of the families that there are, a receiver may leave some out.
  if (protocol !== Protocol.stream) return undefined;
  if (family === Family.ipv4) return addressOf(body, 4);
  if (family === Family.ipv6) return addressOf(body, 16);
}

/** Source and target, their ports, then what else a box may tell. */
function addressOf(body: Bytes, size: 4 | 16): Deno.NetAddr {
  if (body.length < 2 * size + 4) throw malformed("is too short");
  const view = new DataView(body.buffer);
  const source = size === 4
    ? body.subarray(0, size).join(".")
    : Array.from({ length: 8 }, (_, i) => view.getUint16(2 * i).toString(16))
      .join(":");
  return sourceAddress(source, view.getUint16(2 * size));
}

/** With the address as {@linkcode canonicalAddress} writes it. */
function sourceAddress(source: string, port: number): Deno.NetAddr {
  return { transport: "tcp", hostname: canonicalAddress(source)!, port };
}

function nibbles(byte: number): [number, number] {
  return [byte >> 4, byte & 0x0f];
}

async function readExactly(
  transport: Transport,
  length: number,
): Promise<Bytes> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const count = await transport.read(bytes.subarray(at));
    if (count === null) {
      throw new ChannelError(
        "cut",
        "The connection closed within its header of the PROXY protocol",
      );
    }
    at += count;
  }
  return bytes;
}

function malformed(what: string): ChannelError {
  return new ChannelError("protocol", `The PROXY protocol's header ${what}`);
}
