/**
 * Takes PEM apart (RFC 7468): the one place that does. Around the blocks there
 * may be anything: a byte order mark, comments, other blocks, blank lines,
 * spaces.
 *
 * @module
 */

import { UsageError } from "../advice/errors.ts";

/** A block of a PEM text. */
export interface PemBlock {
  /** What it is, such as `CERTIFICATE`. */
  label: string;
  /** The lines that old encrypted keys have before their data (RFC 1421). */
  headers: string[];
  /** The data. */
  der: Uint8Array<ArrayBuffer>;
}

const KINDS = {
  CERTIFICATE: "certificate",
  "PRIVATE KEY": "private key",
} as const;

const BLOCK =
  /-----BEGIN ([A-Z0-9 ]+)-----((?:(?!-----)[^])*)-----END \1-----/g;
const HEADERS = /^\s*(?:[\w-]+:[^\r\n]*[\r\n]+)+/;

/**
 * The blocks of a file whose labels end so: at least one.
 *
 * @throws {UsageError} If there is none, or if one is cut off or damaged.
 */
export function parsePem(
  path: string,
  text: string,
  kind: keyof typeof KINDS,
): [PemBlock, ...PemBlock[]] {
  const fail = (why: string) => {
    throw new UsageError(`Cannot use ${path}: ${why}`);
  };
  const isPartOf = (kind: string, text: string) =>
    new RegExp(`-----(BEGIN|END) ([A-Z0-9 ]+ )?${kind}-----`).test(text);
  if (isPartOf(kind, text.replace(BLOCK, ""))) {
    fail("it is cut off; copy it again");
  }
  const blocks = Array.from(text.matchAll(BLOCK), ([_, label, body]) => ({
    label: label!,
    body: body!,
  })).filter(({ label }) => label.endsWith(kind));
  if (blocks.length === 0) {
    const other = kind === "CERTIFICATE" ? "PRIVATE KEY" : "CERTIFICATE";
    fail(
      `it contains no ${KINDS[kind]}` +
        (isPartOf(other, text) ? `, but a ${KINDS[other]}` : ""),
    );
  }
  try {
    return blocks.map(parseBlock) as [PemBlock, ...PemBlock[]];
  } catch {
    return fail("it is damaged; copy it again");
  }
}

/** @throws {SyntaxError} If its data is no base64. */
function parseBlock(
  { label, body }: { label: string; body: string },
): PemBlock {
  const [headers = ""] = HEADERS.exec(body) ?? [];
  return {
    label,
    headers: headers.split(/[\r\n]/).map((line) => line.trim()).filter(Boolean),
    der: Uint8Array.fromBase64(body.slice(headers.length)),
  };
}

/** A block with nothing around it, in lines of 64 characters. */
export function formatPem({ label, headers, der }: PemBlock): string {
  return [
    `-----BEGIN ${label}-----`,
    ...headers,
    ...(headers.length > 0 ? [""] : []),
    ...(der.toBase64().match(/.{1,64}/g) ?? []),
    `-----END ${label}-----`,
    "",
  ].join("\n");
}
