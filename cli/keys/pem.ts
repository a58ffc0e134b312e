/**
 * Takes PEM apart (RFC 7468): the one place that does. Around the blocks there
 * may be anything: a byte order mark, comments, other blocks, blank lines,
 * spaces.
 *
 * @module
 */

import { UsageError } from "../advice/errors.ts";

const BLOCK =
  /-----BEGIN ([A-Z0-9 ]+)-----((?:(?!-----)[^])*)-----END \1-----/g;
/** The lines that old encrypted keys have before their data (RFC 1421). */
const HEADERS = /^\s*(?:[\w-]+:[^\r\n]*[\r\n]+)+/;

/**
 * The blocks of a file whose labels end so, each with nothing around it and in
 * lines of 64 characters: at least one.
 *
 * @throws {UsageError} If there is none, or if one is cut off or damaged.
 */
export function parsePem(
  path: string,
  text: string,
  kind: "CERTIFICATE" | "PRIVATE KEY",
): string[] {
  const fail = (why: string): never => {
    throw new UsageError(`Cannot use ${path}: ${why}`);
  };
  const isPartOf = (kind: string, text: string) =>
    new RegExp(`-----(BEGIN|END) ([A-Z0-9 ]+ )?${kind}-----`).test(text);
  if (isPartOf(kind, text.replace(BLOCK, ""))) {
    fail("it is cut off; copy it again");
  }
  const blocks = [...text.matchAll(BLOCK)]
    .filter(([_, label]) => label!.endsWith(kind));
  if (blocks.length === 0) {
    const other = kind === "CERTIFICATE" ? "PRIVATE KEY" : "CERTIFICATE";
    fail(
      `it contains no ${kind.toLowerCase()}` +
        (isPartOf(other, text) ? `, but a ${other.toLowerCase()}` : ""),
    );
  }
  try {
    return blocks.map(([_, label, body]) => clean(label!, body!));
  } catch {
    return fail("it is damaged; copy it again");
  }
}

/** @throws {SyntaxError} If its data is no base64. */
function clean(label: string, body: string): string {
  const [headers = ""] = HEADERS.exec(body) ?? [];
  const lines = headers.split(/[\r\n]/).map((line) => line.trim());
  const der = Uint8Array.fromBase64(body.slice(headers.length));
  return [
    `-----BEGIN ${label}-----`,
    ...lines.filter(Boolean),
    ...(headers === "" ? [] : [""]),
    ...(der.toBase64().match(/.{1,64}/g) ?? []),
    `-----END ${label}-----`,
    "",
  ].join("\n");
}

/** The data of a block that has no headers. */
export function derOf(pem: string): Uint8Array {
  return Uint8Array.fromBase64(pem.replaceAll(/-----.*-----/g, ""));
}
