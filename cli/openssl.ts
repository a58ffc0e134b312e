/**
 * What `gen_certs.ts` asks of openssl.
 *
 * @module
 */

import { subjectAltName } from "./certificates.ts";
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
