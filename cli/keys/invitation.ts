/**
 * An invitation: everything that a client needs to know of a server, in one
 * line.
 *
 * ```text
 * innerlock-1.PAYLOAD.CHECKSUM
 *
 * PAYLOAD   base64url of
 *             port          2 bytes
 *             key          32 bytes
 *             host          1 byte for its length, then as many
 *             identity      1 byte for its length, then as many
 *             certificates  DER, one after the other
 * CHECKSUM  the first 8 hex digits of the SHA-256 of PAYLOAD, as it is written
 * ```
 *
 * It contains the key: whoever reads it can speak as either side.
 *
 * @module
 */

import { createHash, X509Certificate } from "node:crypto";
import { PSK_LENGTH } from "../../lib/lock/noise.ts";
import { isIdentity } from "../../lib/lock/psk.ts";
import { isHost } from "../addresses.ts";
import { UsageError } from "../advice/errors.ts";
import { certificatesOf } from "./certificates.ts";
import { derOf, parsePem } from "./pem.ts";

const VERSION = "1";

/** What an invitation says. */
interface Invitation {
  /** The server's name or address. */
  host: string;
  /** Its port. */
  port: number;
  /** Whose key it is. */
  identity: string;
  /** The key, 64 hex digits. */
  key: string;
  /** The certificates to trust, PEM. */
  cert: string;
}

/** The length of a text that may hold an invitation, in characters. */
export const MAX_TEXT = 1_048_576;

/** The length of what one says, in bytes: there is room for a long chain. */
const MAX_LENGTH = 32_768;

/** The line that says it. */
export function formatInvitation(invitation: Invitation): string {
  const { host, port, identity, key, cert } = invitation;
  const text = (
    text: string,
  ) => [text.length, ...new TextEncoder().encode(text)];
  const bytes = new Uint8Array([
    ...[port >> 8, port & 0xff],
    ...Uint8Array.fromHex(key),
    ...text(host),
    ...text(identity),
    ...parsePem("", cert, "CERTIFICATE").flatMap((pem) => [...derOf(pem)]),
  ]);
  if (bytes.length > MAX_LENGTH) {
    throw new UsageError(
      "There are too many certificates in cert.pem for an invitation; leave " +
        "the server's own and those of its CA",
    );
  }
  const payload = bytes.toBase64({ alphabet: "base64url", omitPadding: true });
  return `innerlock-${VERSION}.${payload}.${checksum(payload)}`;
}

/** Something that looks like an invitation, with or without its end. */
const CANDIDATE =
  /innerlock-\s*(\w{1,16})\s*\.((?:(?!innerlock-)[\w\s-])*)(?:\.((?:\s*[0-9a-f]){8}))?/g;

/** What has fewer characters and no checksum is no payload, as in `innerlock-0.1.0.tgz`. */
const MIN_PAYLOAD = 8;

/** What is found in a text: as it looks, whether or not it holds. */
function candidates(text: string) {
  const squeeze = (text = "") => text.replaceAll(/\s/g, "");
  return Array.from(
    plain(text).matchAll(CANDIDATE),
    ([, version, payload, sum]) => ({
      version: version!,
      payload: squeeze(payload),
      sum: squeeze(sum),
    }),
  ).filter(({ payload, sum }) => sum !== "" || payload.length >= MIN_PAYLOAD);
}

/**
 * A text without what a mail program adds: quoted-printable, marks of what is
 * quoted, characters that nobody sees.
 */
function plain(text: string): string {
  return text
    .replaceAll(/=[ \t]*\r?\n/g, "")
    .replaceAll(
      /=([2-7][0-9A-F])/g,
      (_, hex) => String.fromCharCode(parseInt(hex, 16)),
    )
    .replaceAll(/^[ \t]*(?:[>|][ \t]*)+/gm, "")
    .replaceAll(/[\u00ad\u200b-\u200d\u2060\ufeff]/g, "");
}

/** Whether a text has an invitation to its end, sound or not. */
export function isWhole(text: string): boolean {
  return candidates(text).some(({ sum }) => sum !== "");
}

/** Whether a text has at least the beginning of one. */
export function isBegun(text: string): boolean {
  return candidates(text).length > 0;
}

/**
 * What an invitation says, wherever in a text it stands.
 *
 * @throws {UsageError} If there is none, more than one, or one of another version
 * or damaged.
 */
export function parseInvitation(text: string): Invitation {
  if (text.length > MAX_TEXT) {
    throw new UsageError(
      `This is too long for an invitation, ${MAX_TEXT} characters at most; ` +
        "copy the line alone",
    );
  }
  const found = candidates(text);
  const payloads = new Set(
    found.filter(({ version, payload, sum }) =>
      version === VERSION && sum === checksum(payload)
    ).map(({ payload }) => payload),
  );
  if (payloads.size > 1) {
    throw new UsageError(
      "There are several invitations here; copy one of them",
    );
  }
  const [payload] = payloads;
  const invitation = payload === undefined ? undefined : decode(payload);
  if (invitation !== undefined) return invitation;
  const other = found.find(({ version }) => version !== VERSION);
  if (payload === undefined && other !== undefined) {
    throw new UsageError(
      `This invitation has version ${other.version}, but this program knows ` +
        `only version ${VERSION}; use the same release of innerlock on both ` +
        "machines",
    );
  }
  throw new UsageError(
    found.length > 0
      ? "This invitation is damaged; copy the whole line again"
      : "This is not an invitation; make one with 'deno task certs --invite " +
        "NAME' on the server, and copy the whole line",
  );
}

/** What a payload says; undefined if it makes no sense. */
function decode(payload: string): Invitation | undefined {
  try {
    const bytes = Uint8Array.fromBase64(payload, { alphabet: "base64url" });
    if (bytes.length > MAX_LENGTH) return undefined;
    let at = 0;
    const take = (length: number) => {
      if (at + length > bytes.length) throw new RangeError();
      return bytes.subarray(at, at += length);
    };
    const text = () =>
      new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
        .decode(take(take(1)[0]!));
    const [high, low] = take(2);
    const port = high! << 8 | low!;
    const key = take(PSK_LENGTH).toHex();
    const [host, identity] = [text(), text()];
    const certificates = splitDer(bytes.subarray(at));
    const isValid = port > 0 && isHost(host) && isIdentity(identity) &&
      certificates.length > 0;
    if (!isValid) return undefined;
    const pem = certificates.map((der) => new X509Certificate(der).toString());
    const cert = certificatesOf("the invitation", pem.join(""));
    return { host, port, identity, key, cert };
  } catch {
    return undefined;
  }
}

/**
 * The DER sequences that follow one another.
 *
 * @throws {RangeError} If there is anything else.
 */
function splitDer(bytes: Uint8Array): Uint8Array[] {
  const all = [];
  for (let rest = bytes; rest.length > 0;) {
    const [tag, form, high = 0, low = 0] = rest;
    // The length takes one byte or two: so long is every certificate.
    const end = form === 0x81 ? 3 + high : 4 + (high << 8 | low);
    const isSequence = tag === 0x30 && (form === 0x81 || form === 0x82);
    if (!isSequence || end > rest.length) throw new RangeError();
    all.push(rest.subarray(0, end));
    rest = rest.subarray(end);
  }
  return all;
}

function checksum(payload: string): string {
  return createHash("sha256").update(payload).digest("hex").slice(0, 8);
}
