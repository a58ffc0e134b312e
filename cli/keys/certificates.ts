/**
 * Checks certificates before they are used: Deno's errors come late and do not
 * name the file.
 *
 * @module
 */

import { createHash, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { dirname } from "node:path";
import { canonical, isName } from "../addresses.ts";
import { UsageError } from "../advice/errors.ts";
import { parsePem } from "./pem.ts";

const DAY = 86_400_000;

/** A certificate that expires within this time is worth a warning, in ms. */
const WARNING_TIME = 30 * DAY;

/** The certificates of a PEM text, with nothing around them. */
export function certificatesOf(path: string, text: string): string {
  const certificates = parsePem(path, text, "CERTIFICATE");
  try {
    // Some can be parsed, but not read.
    for (const certificate of certificates) describeCertificate(certificate);
  } catch {
    throw new UsageError(`Cannot use ${path}: it is damaged; copy it again`);
  }
  return certificates.join("");
}

/** Whether the first of these certificates is signed by itself or by another. */
export function hasIssuer(cert: string): boolean {
  const { issuer } = new X509Certificate(cert);
  return parsePem("", cert, "CERTIFICATE")
    .some((one) => new X509Certificate(one).subject === issuer);
}

/**
 * A warning about a certificate's dates, if there is one, with what mends it.
 *
 * @param now The time, as `Date.now` gives it.
 */
export function timeWarning(
  path: string,
  cert: string,
  now = Date.now(),
): string | undefined {
  const { validFromDate: start, validToDate: end } = new X509Certificate(cert);
  const left = end.getTime() - now;
  const at = (time: Date) =>
    time.toISOString().replace("T", " at ").replace(/\.\d+Z/, " UTC");
  if (start.getTime() > now) {
    return `${path} is not valid until ${at(start)}: clients refuse it; set ` +
      "the clock, or wait";
  }
  const renewal = renewalOf(path, cert);
  if (left < 0) {
    return `${path} expired on ${at(end)}: clients refuse it; set the ` +
      `clock, or ${renewal}`;
  }
  if (left >= WARNING_TIME) return undefined;
  return `${path} expires on ${at(end)}; ${renewal}`;
}

/** How a certificate is renewed: by us, or by the CA that has signed it. */
function renewalOf(path: string, cert: string): string {
  if (!describeCertificate(cert).isSelfSigned) {
    return "get a new one from its CA";
  }
  const folder = dirname(path);
  const out = folder === "certs" ? "" : ` --out ${folder}`;
  return `renew it with 'deno task certs --renew${out}'`;
}

/** `DNS:` a name, `IP:` an address; undefined if a host is neither. */
export function subjectAltName(host: string): string | undefined {
  // A zone, as in fe80::1%eth0, means something on one machine only.
  if (isIP(host)) return host.includes("%") ? undefined : `IP:${host}`;
  const isListed = host.length <= 253 && !host.endsWith(".") &&
    isName(host.replace(/^\*\./, ""));
  return isListed ? `DNS:${host}` : undefined;
}

/**
 * `SHA-256 AA:BB:…` of the public key. That of the certificate would change with
 * each renewal.
 */
export function keyFingerprint({ publicKey }: X509Certificate): string {
  const der = publicKey.export({ type: "spki", format: "der" });
  const hex = createHash("sha256").update(der).digest("hex").toUpperCase();
  return `SHA-256 ${hex.match(/../g)!.join(":")}`;
}

/** What a certificate says. */
export interface CertificateInfo {
  /** Of its key, which stays when it is renewed: `SHA-256 AA:BB:…`. */
  keyFingerprint: string;
  /** Whose it is: `CN=…`. */
  subject: string;
  /** The day it expires. */
  expires: string;
  /** For how many whole days it is valid in all. */
  days: number;
  /** Whether it has not expired. */
  isCurrent: boolean;
  /** Whether no CA has signed it. */
  isSelfSigned: boolean;
  /** The names and addresses that it is for. */
  names: string[];
}

/** Reads the first of the certificates that {@linkcode certificatesOf} gave. */
export function describeCertificate(cert: string): CertificateInfo {
  const x509 = new X509Certificate(cert);
  const { validFromDate: start, validToDate: end } = x509;
  const listed = (x509.subjectAltName ?? "").matchAll(
    /(?:DNS|IP Address):([^,\s]+)/g,
  );
  return {
    keyFingerprint: keyFingerprint(x509),
    subject: x509.subject,
    expires: dayOf(end),
    days: Math.floor((end.getTime() - start.getTime()) / DAY),
    isCurrent: end.getTime() > Date.now(),
    isSelfSigned: x509.issuer === x509.subject,
    names: Array.from(listed, ([, host]) => canonical(host!))
      .filter((host) => subjectAltName(host) !== undefined),
  };
}

/** The day of a time, in UTC. */
export function dayOf(time: Date): string {
  return time.toISOString().slice(0, 10);
}
