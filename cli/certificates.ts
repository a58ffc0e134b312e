/**
 * Reads certificates and private keys, and looks at them before they are used:
 * Deno's errors come late and name no file.
 *
 * @module
 */

import { createPrivateKey, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { canonical, isName } from "./addresses.ts";
import { UsageError } from "./main.ts";

/** A certificate that expires within this time is worth a warning, in ms. */
const WARNING_TIME = 30 * 86_400_000;

const BEGIN = "-----BEGIN ";
const CERTIFICATE =
  /-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g;
const PRIVATE_KEY = /-----BEGIN ([A-Z ]*PRIVATE KEY)-----[^]*?-----END \1-----/;

/** Refuses a text that is not one or more certificates. */
export function checkCertificates(path: string, text: string): void {
  const blocks = text.match(CERTIFICATE) ?? [];
  if (blocks.length < text.split(`${BEGIN}CERTIFICATE-----`).length - 1) {
    throw new UsageError(`Cannot use ${path}: it is cut off; copy it again`);
  }
  if (blocks.length === 0) {
    const isKey = text.includes("PRIVATE KEY-----");
    throw new UsageError(
      `Cannot use ${path}: it has no certificate in it` +
        (isKey ? " but a private key" : ""),
    );
  }
  try {
    for (const block of blocks) new X509Certificate(block);
  } catch {
    throw new UsageError(`Cannot use ${path}: it is damaged; copy it again`);
  }
}

/** Whether a private key is encrypted; refuses a text that is not one. */
export function isEncryptedKey(path: string, text: string): boolean {
  const [key] = PRIVATE_KEY.exec(text) ?? [];
  if (key !== undefined) return key.includes("ENCRYPTED");
  const why = text.includes("PRIVATE KEY-----")
    ? "it is cut off; copy it again"
    : "it has no private key in it" +
      (text.includes(`${BEGIN}CERTIFICATE-----`) ? " but a certificate" : "");
  throw new UsageError(`Cannot use ${path}: ${why}`);
}

/** A certificate's file and its key's. */
export interface Pair {
  certPath: string;
  cert: string;
  keyPath: string;
  /** Not encrypted. */
  key: string;
}

/** Refuses a key that is not the one of the first certificate. */
export function checkPair({ certPath, cert, keyPath, key }: Pair): void {
  let fits: boolean;
  try {
    fits = isKeyOfFirst(key, cert);
  } catch {
    throw new UsageError(`Cannot use ${keyPath}: it is damaged; copy it again`);
  }
  if (!fits) {
    throw new UsageError(
      `Cannot use ${keyPath}: it is not the key of ${certPath}`,
    );
  }
}

/** What people should know of a certificate's time, if anything. */
export function timeWarning(path: string, cert: string): string | undefined {
  const { validFrom, validTo } = firstOf(cert);
  const [start, end] = [new Date(validFrom), new Date(validTo)];
  const now = Date.now();
  const left = end.getTime() - now;
  const at = (time: Date) => time.toISOString().slice(0, 16) + "Z";
  if (start.getTime() > now) {
    return `${path} is not valid until ${at(start)}: clients refuse it; set ` +
      "the clock, or wait";
  }
  if (left < 0) {
    return `${path} has expired at ${at(end)}: clients refuse it; set the ` +
      "clock, or make a new one with 'deno task certs'";
  }
  if (left >= WARNING_TIME) return undefined;
  return `${path} expires at ${at(end)}; renew it ('deno task certs --force' ` +
    "makes a new one, which every client then needs)";
}

/** `DNS:` a name, `IP:` an address; undefined if a host is neither. */
export function subjectAltName(host: string): string | undefined {
  // A zone, as in fe80::1%eth0, means something on one machine only.
  if (isIP(host)) return host.includes("%") ? undefined : `IP:${host}`;
  const isListed = host.length <= 253 && !host.endsWith(".") &&
    isName(host.replace(/^\*\./, ""));
  return isListed ? `DNS:${host}` : undefined;
}

/** What a certificate says. */
export interface CertificateInfo {
  /** `SHA-256 AA:BB:…`. */
  fingerprint: string;
  /** The day it expires. */
  expires: string;
  /** Whether it has not expired. */
  isCurrent: boolean;
  /** Whether no CA has signed it. */
  isSelfSigned: boolean;
  /** The names and addresses to which it is made out. */
  names: string[];
}

/** Reads the first certificate of a PEM text; undefined if there is none. */
export function parseCertificate(pem: string): CertificateInfo | undefined {
  let x509: X509Certificate;
  try {
    x509 = firstOf(pem);
  } catch {
    return undefined;
  }
  const end = new Date(x509.validTo);
  const listed = (x509.subjectAltName ?? "").matchAll(
    /(?:DNS|IP Address):([^,\s]+)/g,
  );
  return {
    fingerprint: `SHA-256 ${x509.fingerprint256}`,
    expires: end.toISOString().slice(0, 10),
    isCurrent: end.getTime() > Date.now(),
    isSelfSigned: x509.issuer === x509.subject,
    names: Array.from(listed, ([, host]) => canonical(host!))
      .filter((host) => subjectAltName(host) !== undefined),
  };
}

/** Whether a key is a certificate's; one that is encrypted may be. */
export function isKeyOf(key: string, cert: string): boolean {
  const [pem = ""] = PRIVATE_KEY.exec(key) ?? [];
  if (pem.includes("ENCRYPTED")) return true;
  try {
    return isKeyOfFirst(pem, cert);
  } catch {
    return false;
  }
}

/** Throws if either cannot be read. */
function isKeyOfFirst(key: string, cert: string): boolean {
  return firstOf(cert).checkPrivateKey(createPrivateKey(key));
}

function firstOf(cert: string): X509Certificate {
  return new X509Certificate(cert.match(CERTIFICATE)?.[0] ?? "");
}
