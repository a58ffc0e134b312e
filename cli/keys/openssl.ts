/**
 * What `gen_certs.ts` uses openssl for.
 *
 * @module
 */

import { subjectAltName } from "./certificates.ts";
import { UsageError } from "../advice/errors.ts";
import { ifThere } from "../files.ts";

/** A new private key, PEM: EC P-256, or RSA 4096. */
export async function makeKey(rsa: boolean): Promise<string> {
  const algorithm = rsa
    ? ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"]
    : ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
  return await openssl(["genpkey", ...algorithm]);
}

/**
 * Clocks differ: how long ago a certificate's validity begins, in milliseconds.
 */
const BACKDATE = 3_600_000;

/**
 * A self-signed certificate of a key for names and addresses, PEM.
 *
 * `openssl ca` makes it: before version 3.4, no other command can set the start
 * of its validity. All that is asked of openssl here, LibreSSL's can do too.
 *
 * @param dir Where openssl keeps its books while it works: a folder that is made
 * anew, and removed. The key passes through a pipe and is in no file.
 */
export async function makeCertificate(
  key: string,
  hosts: string[],
  days: number,
  dir: string,
): Promise<string> {
  // A killed run may have left it.
  await ifThere(Deno.remove(dir, { recursive: true }));
  await Deno.mkdir(dir, { mode: 0o700 });
  try {
    const put = (name: string, text: string) =>
      Deno.writeTextFile(`${dir}/${name}`, text);
    await put("index", "");
    // By chance, as if it were a CA's, but short: an invitation holds it.
    await put("serial", crypto.getRandomValues(new Uint8Array(8)).toHex());
    await put("config", configOf(hosts));
    const request = ["req", "-new", "-key", "/dev/stdin", "-config", "config"];
    await put("request", await openssl(request, key, dir));
    const now = Date.now();
    const args = [
      ...["ca", "-batch", "-notext", "-selfsign", "-keyfile", "/dev/stdin"],
      ...["-config", "config", "-in", "request"],
      ...["-startdate", asn1Time(now - BACKDATE)],
      ...["-enddate", asn1Time(now + days * 86_400_000)],
    ];
    return await openssl(args, key, dir);
  } finally {
    await ifThere(Deno.remove(dir, { recursive: true }));
  }
}

/** `20260101000000Z`. */
function asn1Time(time: number): string {
  return new Date(time).toISOString().replace(/\.\d+|[-:T]/g, "");
}

const NAME = "innerlock";

/**
 * Whose each certificate is. A client finds the root of a certificate by this
 * name, in its very encoding, and by its key, so it never changes.
 */
export const SUBJECT = `CN=${NAME}`;

/** What a certificate says in addition to its names. */
const EXTENSIONS = [
  // Deno refuses a self-signed leaf that calls itself a CA.
  "basicConstraints=critical,CA:FALSE",
  "keyUsage=critical,digitalSignature",
  "extendedKeyUsage=serverAuth",
];

function extensionsOf(hosts: string[]): string[] {
  const names = hosts.map(subjectAltName);
  return [`subjectAltName=${names.join(",")}`, ...EXTENSIONS];
}

function configOf(hosts: string[]): string {
  return [
    "[req]",
    "prompt=no",
    "string_mask=utf8only",
    "distinguished_name=subject",
    "[subject]",
    `commonName=${NAME}`,
    "[ca]",
    "default_ca=innerlock",
    "[innerlock]",
    "database=index",
    "new_certs_dir=.",
    "serial=serial",
    "default_md=sha256",
    "policy=policy",
    "x509_extensions=extensions",
    "[policy]",
    "commonName=supplied",
    "[extensions]",
    ...extensionsOf(hosts),
    "",
  ].join("\n");
}

/** A request that a CA sign a certificate for a key and these names, PEM. */
export async function makeRequest(
  key: string,
  hosts: string[],
): Promise<string> {
  const extensions = extensionsOf(hosts).flatMap((line) => ["-addext", line]);
  return await openssl([
    // The key passes through a pipe: in the clear it is never in a file.
    ...["req", "-new", "-key", "/dev/stdin", "-subj", `/CN=${hosts[0]}`],
    ...extensions,
  ], key);
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

async function openssl(
  args: string[],
  input = "",
  cwd = ".",
): Promise<string> {
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command("openssl", {
      args,
      cwd,
      // Nothing of the caller's, such as LD_LIBRARY_PATH, is openssl's business.
      clearEnv: true,
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
    new Blob([input]).stream().pipeTo(child.stdin).catch(() => {}),
  ]);
  const decoder = new TextDecoder();
  if (output.success) return decoder.decode(output.stdout);
  const why = decoder.decode(output.stderr).trim().split("\n").at(-1);
  throw new Error(`openssl ${args[0]} failed: ${why}`);
}
