/**
 * Makes what the two locks need: a TLS key and certificate, by way of openssl,
 * and the key file of the inner lock.
 *
 * ```sh
 * deno task certs --host server.example --identity alice
 * ```
 *
 * @module
 */

import { promptSecret } from "@std/cli/prompt-secret";
import {
  type NewFile,
  readIfThere,
  readPrivateKey,
  replaceFiles,
  whyNot,
} from "./cli/files.ts";
import { canonical } from "./cli/addresses.ts";
import {
  type CertificateInfo,
  isKeyOf,
  parseCertificate,
  subjectAltName,
} from "./cli/certificates.ts";
import {
  encryptKey,
  makeCertificate,
  makeKey,
  makeRequest,
} from "./cli/openssl.ts";
import { type Args, messageOf, run, UsageError } from "./cli/main.ts";
import { stdout } from "./cli/output.ts";
import { keepOnly } from "./cli/permissions.ts";
import { isIdentity, parsePsk, type PskMap } from "./lib/psk.ts";

const USAGE = `
Usage: deno task certs [flags]

Makes key.pem, cert.pem (by openssl) and psk.txt. What is there and valid stays,
but for a certificate of this machine alone that --host is to add to.

  --out DIR          where to (certs)
  --host NAME|IP     a name or address of the server; may repeat; localhost,
                     127.0.0.1, ::1 and those of a replaced cert.pem are always in
  --days N           how long the certificate is valid (365)
  --rsa              RSA 4096 instead of EC P-256
  --identity NAME    an identity to make a key for in psk.txt; may repeat (default)
  --revoke NAME      only take an identity out of psk.txt; may repeat
  --passphrase       encrypt key.pem; asks for the passphrase twice
  --csr              write cert.csr as well, for those who have a CA
  --force            replace key.pem, cert.pem and the key of each --identity
  --help, --version

Exit codes: 1 openssl failed, 2 usage or configuration.
`;

const FLAGS = {
  string: ["out", "days"],
  collect: ["host", "identity", "revoke"],
  boolean: ["rsa", "passphrase", "csr", "force"],
  default: { out: "certs", days: "365" },
};

const LOCAL_NAMES = ["localhost", "127.0.0.1", "::1"];
const PSK_LENGTH = 32;
const MAX_DAYS = 36_500;

/** What a run is to write, and what it may say once that is written. */
interface Work {
  files: NewFile[];
  notes: string[];
}

async function main(args: Args): Promise<void> {
  const out = args.text("out")!;
  keepOnly("read", [out]);
  keepOnly("write", [out]);
  const identities = args.texts("identity");
  for (const identity of identities) {
    if (isIdentity(identity)) continue;
    throw new UsageError(
      `--identity takes 1 to 64 letters, digits, '.', '_', '@', '-', not ${identity}`,
    );
  }
  const hosts = args.texts("host");
  for (const host of hosts) {
    if (subjectAltName(host) !== undefined) continue;
    throw new UsageError(
      `--host takes a name or an IP address, nothing around it, not ${host}`,
    );
  }
  args.integer("days", 1, MAX_DAYS);
  const revoked = args.texts("revoke");
  if (revoked.length > 0) {
    refuseAllButRevoke(args);
    return await revoke(`${out}/psk.txt`, revoked);
  }
  await makeFolder(out);
  const keys = await keyWork(`${out}/psk.txt`, identities, args.is("force"));
  const tls = await tlsWork(args, out, hosts.map(canonical));
  const files = [...tls.files, ...keys.files];
  if (files.length > 0) await replaceFiles(files);
  for (const note of [...tls.notes, ...keys.notes]) stdout.line(note);
  stdout.line(`a client needs ${out}/cert.pem and its lines of ${out}/psk.txt`);
}

function refuseAllButRevoke(args: Args): void {
  const other = ["host", "identity", "days"]
    .find((name) => args.texts(name).length > 0) ??
    FLAGS.boolean.find(args.is);
  if (other === undefined) return;
  throw new UsageError(
    `--revoke does not go with --${other}: run one after the other`,
  );
}

/** Takes identities out of the key file. */
async function revoke(path: string, identities: string[]): Promise<void> {
  const old = await readIfThere(path) ?? "";
  const keys = new Set(readKeys(path, old).keys());
  for (const identity of identities) {
    if (keys.delete(identity)) continue;
    throw new UsageError(`There is no identity ${identity} in ${path}`);
  }
  if (keys.size === 0) {
    throw new UsageError(
      `Nobody would be left in ${path}: add another with --identity first`,
    );
  }
  const text = identities.reduce(withoutKey, old);
  await replaceFiles([{ path, text, mode: 0o600 }]);
  stdout.line(`${path}: took out ${identities.join(", ")}`);
  stdout.line("a running server reads it again at SIGHUP");
}

function withoutKey(text: string, identity: string): string {
  return text.split("\n")
    .filter((line) => !line.trimStart().startsWith(`${identity}:`))
    .join("\n");
}

function readKeys(path: string, text: string): PskMap {
  try {
    return text.trim() === "" ? new Map() : parsePsk(text);
  } catch (error) {
    throw new UsageError(`${messageOf(error)} (${path}); mend or remove it`);
  }
}

/** Adds the identities that are not there yet. */
async function keyWork(
  path: string,
  asked: string[],
  force: boolean,
): Promise<Work> {
  const old = await readIfThere(path);
  const keys = readKeys(path, old ?? "");
  const wanted = asked.length > 0 ? asked : keys.size > 0 ? [] : ["default"];
  const notes: string[] = [];
  let text = old ?? "# identity:key, a line each; keep it secret\n";
  if (text !== "" && !text.endsWith("\n")) text += "\n";
  for (const identity of new Set(wanted)) {
    if (keys.has(identity)) {
      if (!force) {
        notes.push(`${path}: ${identity} has a key, kept`);
        continue;
      }
      text = withoutKey(text, identity);
    }
    const key = crypto.getRandomValues(new Uint8Array(PSK_LENGTH));
    text += `${identity}:${key.toHex()}\n`;
    notes.push(`${path}: made a key for ${identity}`);
  }
  return { files: text === old ? [] : [{ path, text, mode: 0o600 }], notes };
}

/** The files of the outer lock in a folder, and what they hold. */
interface Pair {
  keyPath: string;
  certPath: string;
  key: string | undefined;
  cert: string | undefined;
}

/** Keeps key and certificate, or makes both. */
async function tlsWork(
  args: Args,
  out: string,
  asked: string[],
): Promise<Work> {
  const [keyPath, certPath] = [`${out}/key.pem`, `${out}/cert.pem`];
  const [key, cert] = [await readIfThere(keyPath), await readIfThere(certPath)];
  const pair = { keyPath, certPath, key, cert };
  const kept = args.is("force")
    ? undefined
    : keptCertificate(args, pair, asked);
  const old = parseCertificate(cert ?? "");
  const hosts = [...new Set([...LOCAL_NAMES, ...old?.names ?? [], ...asked])];
  if (kept === undefined) return await makePair(args, out, pair, hosts);
  return {
    files: args.is("csr")
      ? [await requestFile(out, await readPrivateKey(keyPath, {}), hosts)]
      : [],
    notes: [`${certPath}, ${keyPath}: ${validity(kept)}, kept`, nameOf(kept)],
  };
}

/** The certificate that is there and stays, if it does. */
function keptCertificate(
  args: Args,
  { keyPath, certPath, key, cert }: Pair,
  asked: string[],
): CertificateInfo | undefined {
  if (key === undefined && cert === undefined) return undefined;
  if (key === undefined || cert === undefined) {
    const [there, missing] = key === undefined
      ? [certPath, keyPath]
      : [keyPath, certPath];
    throw new UsageError(
      `There is ${there} but no ${missing}: --force replaces both`,
    );
  }
  const old = parseCertificate(cert);
  if (old === undefined) {
    throw new UsageError(
      `${certPath} is no certificate: --force replaces it and ${keyPath}, ` +
        "for the names that --host gives",
    );
  }
  if (!isKeyOf(key, cert)) {
    throw new UsageError(
      `${keyPath} is not the key of ${certPath}: --force replaces both`,
    );
  }
  const missing = asked.filter((host) => !isMadeOutTo(old, host));
  if (mayReplace(old, missing)) {
    if (!key.includes("ENCRYPTED") || args.is("passphrase")) return undefined;
    throw new UsageError(
      `${keyPath} is encrypted and has to be replaced: ` +
        "--passphrase encrypts the new one, --force leaves it plain",
    );
  }
  if (missing.length > 0) {
    throw new UsageError(
      `${certPath} is not made out to ${
        missing.join(", ")
      }: --force adds it, ` +
        "and every client then needs the new one" +
        (args.texts("identity").length > 0
          ? "; without --host the keys are made"
          : ""),
    );
  }
  if (args.is("passphrase") || args.is("rsa")) {
    throw new UsageError(
      `${keyPath} is there and stays as it is: --force replaces it`,
    );
  }
  return old;
}

/**
 * Whether a certificate is replaced unasked: one of ours that has expired, or
 * that lacks a name and is of use on this machine only. A CA's never is.
 */
function mayReplace(old: CertificateInfo, missing: string[]): boolean {
  const isLocal = old.names.every((name) => LOCAL_NAMES.includes(name));
  return old.isSelfSigned &&
    (!old.isCurrent || (isLocal && missing.length > 0));
}

function isMadeOutTo({ names }: CertificateInfo, host: string): boolean {
  return names.includes(host) || names.includes(host.replace(/^[^.]+/, "*"));
}

async function makePair(
  args: Args,
  out: string,
  { keyPath, certPath, cert: oldCert }: Pair,
  hosts: string[],
): Promise<Work> {
  const key = await makeKey(args.is("rsa"));
  const passphrase = args.is("passphrase") ? askPassphrase() : undefined;
  const text = passphrase ? await encryptKey(key, passphrase) : key;
  const days = args.integer("days", 1, MAX_DAYS);
  const cert = await makeCertificate(key, hosts, days);
  const files = [
    { path: keyPath, text, mode: 0o600 },
    { path: certPath, text: cert, mode: 0o644 },
  ];
  if (args.is("csr")) files.push(await requestFile(out, key, hosts));
  const notes = [
    `${keyPath}, ${certPath}: made, for ${hosts.join(", ")}`,
    nameOf(parseCertificate(cert)!),
  ];
  if (oldCert !== undefined) {
    const old = parseCertificate(oldCert);
    if (old?.isCurrent === false) {
      notes.unshift(`${certPath}: ${validity(old)}, replaced`);
    }
    notes.push(
      `every client needs the new ${certPath}; ` +
        "a running server reads it at SIGHUP",
    );
  }
  return { files, notes };
}

function nameOf(certificate: CertificateInfo): string {
  return `certificate ${certificate.fingerprint}, ${validity(certificate)}`;
}

function validity({ isCurrent, isSelfSigned, expires }: CertificateInfo) {
  if (isCurrent) return `valid until ${expires}`;
  return `expired ${expires}` +
    (isSelfSigned ? "" : ", its CA has to renew it");
}

async function requestFile(
  out: string,
  key: string,
  hosts: string[],
): Promise<NewFile> {
  const text = await makeRequest(key, hosts);
  return { path: `${out}/cert.csr`, text, mode: 0o644 };
}

function askPassphrase(): string {
  const passphrase = promptSecret("Passphrase for key.pem:");
  if (!passphrase) throw new UsageError("A passphrase may not be empty");
  if (promptSecret("Once more:") !== passphrase) {
    throw new UsageError("The two passphrases differ");
  }
  return passphrase;
}

async function makeFolder(path: string): Promise<void> {
  try {
    await Deno.mkdir(path, { recursive: true });
  } catch (error) {
    throw new UsageError(`Cannot make ${path}: ${whyNot(error)}`);
  }
}

if (import.meta.main) await run("gen_certs", USAGE, FLAGS, main);
