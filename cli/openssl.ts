/**
 * What `gen_certs.ts` asks of openssl, and what it reads in a certificate.
 *
 * @module
 */

import { createPrivateKey, X509Certificate } from "node:crypto";
import { isIP, isIPv6 } from "node:net";
import { UsageError } from "./main.ts";

/** Labels of letters, digits, `-` and `_`; the last not a number, as in 1.2. */
const NAME =
  /^(?=.{1,253}$)(\*\.)?(\w([\w-]{0,61}\w)?\.)*(?!\d+$)\w([\w-]{0,61}\w)?$/;

/** `DNS:` a name, `IP:` an address; undefined if a host is neither. */
export function subjectAltName(host: string): string | undefined {
  // A zone, as in fe80::1%eth0, means something on one machine only.
  if (isIP(host) && !host.includes("%")) return `IP:${host}`;
  return NAME.test(host) ? `DNS:${host}` : undefined;
}

/** The one way to write a host of the many that an IPv6 address has. */
export function canonical(host: string): string {
  if (!isIPv6(host)) return host.toLowerCase();
  return new URL(`http://[${host}]`).hostname.slice(1, -1);
}

/** A new private key, PEM: EC P-256, or RSA 4096. */
export async function makeKey(rsa: boolean): Promise<string> {
  const algorithm = rsa
    ? ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"]
    : ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
  return await openssl(["genpkey", ...algorithm]);
}

/** A self-signed certificate of a key for names and addresses, PEM. */
export async function makeCertificate(
  key: string,
  hosts: string[],
  days: number,
): Promise<string> {
  return await openssl(
    [...request(hosts), "-x509", "-days", String(days)],
    key,
  );
}

/** A request to sign such a certificate, PEM. */
export async function makeRequest(
  key: string,
  hosts: string[],
): Promise<string> {
  return await openssl(request(hosts), key);
}

function request(hosts: string[]): string[] {
  const names = hosts.map(subjectAltName);
  // The key passes through a pipe: in the clear it is never in a file.
  return [
    ...["req", "-new", "-key", "/dev/stdin", "-subj", `/CN=${hosts[0]}`],
    ...["-addext", `subjectAltName=${names.join(",")}`],
    // Deno refuses a self-signed leaf that calls itself a CA.
    ...["-addext", "basicConstraints=critical,CA:FALSE"],
    ...["-addext", "keyUsage=critical,digitalSignature"],
    ...["-addext", "extendedKeyUsage=serverAuth"],
  ];
}

/** The key, encrypted with a passphrase, PEM. */
export async function encryptKey(
  key: string,
  passphrase: string,
): Promise<string> {
  // The passphrase is the first line of stdin, the key is the rest.
  return await openssl(
    ["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "stdin"],
    `${passphrase}\n${key}`,
  );
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
  const x509 = firstCertificate(pem);
  if (x509 === undefined) return undefined;
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
  const pem = firstBlock(key, "(?:[A-Z]+ )?PRIVATE KEY");
  if (pem.includes("ENCRYPTED")) return true;
  try {
    return firstCertificate(cert)!.checkPrivateKey(createPrivateKey(pem));
  } catch {
    return false;
  }
}

function firstCertificate(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(firstBlock(pem, "CERTIFICATE"));
  } catch {
    return undefined;
  }
}

/** Of a PEM text, which may have others before it. */
function firstBlock(pem: string, label: string): string {
  const block = `-----BEGIN (${label})-----.*?-----END \\1-----`;
  return new RegExp(block, "s").exec(pem)?.[0] ?? "";
}

async function openssl(args: string[], input = ""): Promise<string> {
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command("openssl", {
      args,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new UsageError(
      "Cannot find openssl: install it (Debian: apt install openssl)",
    );
  }
  const [output] = await Promise.all([
    child.output(),
    // A child that has left without reading says why on stderr.
    ReadableStream.from([new TextEncoder().encode(input)])
      .pipeTo(child.stdin).catch(() => {}),
  ]);
  const decoder = new TextDecoder();
  if (output.success) return decoder.decode(output.stdout);
  const why = decoder.decode(output.stderr).trim().split("\n").at(-1);
  throw new Error(`openssl ${args[0]} failed: ${why}`);
}
