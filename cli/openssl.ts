/**
 * What `gen_certs.ts` asks of openssl.
 *
 * @module
 */

import { UsageError } from "./main.ts";

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
  const names = hosts.map((host) =>
    `${/^[\d.]+$|:/.test(host) ? "IP" : "DNS"}:${host}`
  );
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
