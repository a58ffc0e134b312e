/**
 * An invitation: everything that a client needs to know of a server, in one
 * line.
 *
 * ```text
 * innerlock-1.PAYLOAD.CHECKSUM
 *
 * PAYLOAD   base64url of JSON: host, port, identity, key (hex), cert (PEM)
 * CHECKSUM  the first 8 hex digits of its SHA-256
 * ```
 *
 * It contains the key: whoever reads it can speak as either side.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { isIdentity } from "../../lib/lock/psk.ts";
import { isHost } from "../addresses.ts";
import { UsageError } from "../advice/errors.ts";

const NAME = "innerlock-";
const VERSION = "1";

/** What an invitation says. */
export interface Invitation {
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

/** Whether a text has the end of an invitation, wrapped or not. */
export function isWhole(text: string): boolean {
  return /\.[0-9a-f]{8}$/.test(text.replaceAll(/\s/g, ""));
}

/** The line that says it. */
export function formatInvitation(invitation: Invitation): string {
  const payload = new TextEncoder().encode(JSON.stringify(invitation))
    .toBase64({ alphabet: "base64url", omitPadding: true });
  return `${NAME}${VERSION}.${payload}.${checksum(payload)}`;
}

/**
 * What a line says.
 *
 * @throws {UsageError} If it is none, of another version, or damaged.
 */
export function parseInvitation(line: string): Invitation {
  const text = line.replaceAll(/\s/g, "");
  const [head = "", payload = "", ...rest] = text.split(".");
  if (!head.startsWith(NAME)) {
    throw new UsageError(
      "This is not an invitation; make one with 'deno task certs --invite NAME' " +
        "on the server, and copy the whole line",
    );
  }
  const version = head.slice(NAME.length);
  if (version !== VERSION) {
    throw new UsageError(
      `This invitation has version ${version}, but this program knows only ` +
        `version ${VERSION}; use the same release of innerlock on both machines`,
    );
  }
  const invitation = rest.join(".") === checksum(payload)
    ? decode(payload)
    : undefined;
  if (invitation) return invitation;
  throw new UsageError("This invitation is damaged; copy the whole line again");
}

function decode(payload: string): Invitation | undefined {
  try {
    const bytes = Uint8Array.fromBase64(payload, { alphabet: "base64url" });
    const said = JSON.parse(new TextDecoder().decode(bytes));
    const { host, port, identity, key, cert } = said;
    const isValid = isHost(host) && isIdentity(identity) &&
      Number.isInteger(port) && port > 0 && port < 65_536 &&
      /^[0-9a-f]{64}$/i.test(key) && typeof cert === "string";
    return isValid ? { host, port, identity, key, cert } : undefined;
  } catch {
    return undefined;
  }
}

function checksum(payload: string): string {
  return createHash("sha256").update(payload).digest("hex").slice(0, 8);
}
