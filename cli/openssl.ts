/**
 * What `gen_certs.ts` asks of openssl.
 *
 * @module
 */

import { UsageError } from "./main.ts";

/** What a certificate is made from. */
export interface CertificateRequest {
  /** Names and addresses, the first of which is the subject's. */
  hosts: string[];
  /** RSA 4096 instead of EC P-256. */
  rsa: boolean;
  /** Validity from now on. */
  days: number;
  /** Encrypts the private key. */
  passphrase: string | undefined;
  /** Whether a signing request is wanted too. */
  csr: boolean;
}

/** A private key, its self-signed certificate, perhaps a signing request: PEM. */
export async function makeCertificate(
  request: CertificateRequest,
): Promise<{ key: string; cert: string; csr: string | undefined }> {
  const { hosts, rsa, days, passphrase } = request;
  const algorithm = rsa
    ? ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"]
    : ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
  const key = await openssl(["genpkey", ...algorithm]);
  const names = hosts.map((host) =>
    `${/^[\d.]+$|:/.test(host) ? "IP" : "DNS"}:${host}`
  );
  // The key passes through a pipe: in the clear it is never in a file.
  const about = [
    "req",
    "-new",
    "-key",
    "/dev/stdin",
    "-subj",
    `/CN=${hosts[0]}`,
    "-addext",
    `subjectAltName=${names.join(",")}`,
    // Deno refuses a self-signed leaf that calls itself a CA.
    "-addext",
    "basicConstraints=critical,CA:FALSE",
    "-addext",
    "keyUsage=critical,digitalSignature",
    "-addext",
    "extendedKeyUsage=serverAuth",
  ];
  const cert = await openssl([...about, "-x509", "-days", String(days)], key);
  const csr = request.csr ? await openssl(about, key) : undefined;
  return {
    // The passphrase is the first line of stdin, the key is the rest.
    key: passphrase === undefined ? key : await openssl([
      "pkcs8",
      "-topk8",
      "-v2",
      "aes-256-cbc",
      "-passout",
      "stdin",
    ], `${passphrase}\n${key}`),
    cert,
    csr,
  };
}

/** What a certificate says. */
export interface CertificateInfo {
  /** `SHA-256 AA:BB:…`. */
  fingerprint: string;
  /** The day it expires. */
  expires: string;
  /** Whether it has not expired. */
  isCurrent: boolean;
  /** Those of the hosts asked for to which it is made out. */
  names: string[];
}

/** Reads a certificate file. */
export async function certificateInfo(
  path: string,
  hosts: string[] = [],
): Promise<CertificateInfo> {
  const text = await openssl([
    "x509",
    "-in",
    path,
    "-noout",
    "-fingerprint",
    "-sha256",
    "-enddate",
    "-ext",
    "subjectAltName",
  ]);
  const fingerprint = /Fingerprint=(.*)/.exec(text)?.[1] ?? "";
  const end = new Date(/notAfter=(.*)/.exec(text)?.[1] ?? NaN);
  const listed = (text.match(/(?:DNS|IP Address):[^,\s]+/g) ?? [])
    .map((name) => canonical(name.slice(name.indexOf(":") + 1)));
  return {
    fingerprint: `SHA-256 ${fingerprint}`,
    expires: end.toISOString().slice(0, 10),
    isCurrent: end.getTime() > Date.now(),
    names: hosts.filter((host) => listed.includes(canonical(host))),
  };
}

/** openssl writes IPv6 addresses out; a URL's host is one way to write each. */
function canonical(host: string): string {
  if (!host.includes(":")) return host.toLowerCase();
  return URL.parse(`http://[${host}]`)?.hostname ?? host;
}

/** Fails, before anything is written, where there is no openssl. */
export async function checkOpenssl(): Promise<void> {
  await openssl(["version"]);
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
