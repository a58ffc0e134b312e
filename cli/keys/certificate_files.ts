/**
 * Keeps or makes `key.pem` and `cert.pem`, the server's files of the outer lock.
 *
 * @module
 */

import {
  type CertificateInfo,
  certificatesOf,
  describeCertificate,
} from "./certificates.ts";
import { UsageError } from "../advice/errors.ts";
import { readIfThere, readPair, readPrivateKey } from "../files.ts";
import type { Args } from "../main.ts";
import {
  encryptKey,
  makeCertificate,
  makeKey,
  makeRequest,
} from "./openssl.ts";
import { findPrivateKey, isEncrypted, privateKeysOf } from "./private_keys.ts";
import { promptHidden } from "../terminal/prompt.ts";
import type { NewFile } from "./replace.ts";

/** What a run is to write, and what it may say once that is written. */
export interface Work {
  files: NewFile[];
  notes: string[];
}

/** The names that a certificate always has: clients on this machine. */
const LOCAL_NAMES = ["localhost", "127.0.0.1", "::1"];

/** How long a certificate may be valid, in days. */
export const MAX_DAYS = 36_500;

/** The two files in a folder. */
interface Pair {
  keyPath: string;
  certPath: string;
  key: string | undefined;
  cert: string | undefined;
}

/**
 * Keeps key and certificate, or makes both.
 *
 * @param asked The names and addresses given with `--host`.
 */
export async function certificateWork(
  args: Args,
  out: string,
  asked: string[],
): Promise<Work> {
  const [keyPath, certPath] = [`${out}/key.pem`, `${out}/cert.pem`];
  const [key, cert] = [await readIfThere(keyPath), await readIfThere(certPath)];
  const pair = { keyPath, certPath, key, cert };
  const old = infoOf(pair);
  const kept = args.is("renew") ? undefined : keptOf(args, pair, asked);
  const hosts = [...new Set([...LOCAL_NAMES, ...old?.names ?? [], ...asked])];
  if (kept === undefined) return await makePair(args, out, pair, hosts, old);
  return {
    files: args.is("csr")
      ? [
        await requestFile(
          out,
          (await readPair(certPath, keyPath, {})).key,
          hosts,
        ),
      ]
      : [],
    notes: [`${certPath}, ${keyPath}: ${validity(kept)}, kept`, nameOf(kept)],
  };
}

/** What the certificate says, if there is a sound one. */
function infoOf({ certPath, cert }: Pair): CertificateInfo | undefined {
  try {
    return cert === undefined
      ? undefined
      : describeCertificate(certificatesOf(certPath, cert));
  } catch {
    return undefined;
  }
}

/** The certificate that is there, if it may stay. */
function keptOf(
  args: Args,
  pair: Pair,
  asked: string[],
): CertificateInfo | undefined {
  const { keyPath, certPath, key, cert } = pair;
  if (key === undefined && cert === undefined) return undefined;
  if (key === undefined) {
    throw new UsageError(
      `There is ${certPath} but no ${keyPath}, as on a client; for a server, ` +
        "--renew makes both",
    );
  }
  const stays = () => {
    if (!args.is("passphrase") && !args.is("rsa")) return;
    throw new UsageError(
      `${keyPath} exists and stays as it is; --renew replaces it`,
    );
  };
  if (cert === undefined) {
    stays();
    return undefined;
  }
  const old = infoOf(pair);
  if (old === undefined) {
    throw new UsageError(
      `${certPath} is not a certificate; --renew replaces it and ${keyPath}, ` +
        "for the names given with --host",
    );
  }
  const blocks = privateKeysOf(keyPath, key);
  const plain = blocks.filter((block) => !isEncrypted(block));
  const certificates = certificatesOf(certPath, cert);
  const isPlain = findPrivateKey(keyPath, plain, certificates) !== undefined;
  // Whether an encrypted one fits cannot be told without the passphrase.
  const isLocked = !isPlain && plain.length < blocks.length;
  if (!isPlain && !isLocked) {
    throw new UsageError(
      `${keyPath} is not the key of ${certPath}; --renew replaces both`,
    );
  }
  const missing = asked.filter((host) => !isMadeOutTo(old, host));
  if (mayReplace(old, missing)) {
    if (!isLocked || args.is("passphrase")) return undefined;
    throw new UsageError(
      `${keyPath} is encrypted and must be replaced; --passphrase encrypts ` +
        "the new one, --renew leaves it unencrypted",
    );
  }
  if (missing.length > 0) {
    const some = missing.join(", ");
    throw new UsageError(
      `${certPath} is not for ${some}; --renew adds it, and every client then ` +
        "needs the new certificate",
    );
  }
  stays();
  return old;
}

/**
 * Whether a certificate is replaced unasked: one of ours that has expired, or
 * that lacks a name and is of use on this machine only; never one of a CA.
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
  pair: Pair,
  hosts: string[],
  old: CertificateInfo | undefined,
): Promise<Work> {
  const { keyPath, certPath } = pair;
  const { key, text } = await keyOf(args, pair);
  const days = args.integer("days", 1, MAX_DAYS);
  const cert = await makeCertificate(key, hosts, days, `${out}/.openssl`);
  const keyFile = (text: string) => ({ path: keyPath, text, mode: 0o600 });
  const certFile = { path: certPath, text: cert, mode: 0o644 };
  // Even if this run is killed, key.pem holds the key of cert.pem.
  const files = pair.key && pair.cert
    ? [keyFile(`${text}\n${pair.key}`), certFile, keyFile(text)]
    : [keyFile(text), certFile];
  if (args.is("csr")) files.push(await requestFile(out, key, hosts));
  const what = text === pair.key ? "made a certificate" : "made";
  const notes = [
    `${certPath}, ${keyPath}: ${what} for ${hosts.join(", ")}`,
    nameOf(describeCertificate(cert)),
  ];
  if (old?.isCurrent === false) {
    notes.unshift(`${certPath}: ${validity(old)}, replaced`);
  }
  if (old) notes.push(`every client needs the new ${certPath}`);
  return { files, notes };
}

/** A new key, or one that has no certificate yet: in the clear, and as kept. */
async function keyOf(
  args: Args,
  { keyPath, key, cert }: Pair,
): Promise<{ key: string; text: string }> {
  if (key !== undefined && cert === undefined && !args.is("renew")) {
    const kept = await readPrivateKey(keyPath, undefined, {});
    return { key: kept!, text: key };
  }
  const made = await makeKey(args.is("rsa"));
  const passphrase = args.is("passphrase") ? askPassphrase() : undefined;
  const text = passphrase ? await encryptKey(made, passphrase) : made;
  return { key: made, text };
}

function nameOf(certificate: CertificateInfo): string {
  return `certificate ${certificate.fingerprint}, ${validity(certificate)}`;
}

function validity({ isCurrent, isSelfSigned, expires }: CertificateInfo) {
  if (isCurrent) return `valid until ${expires}`;
  return `expired on ${expires}` +
    (isSelfSigned ? "" : ", and its CA has to renew it");
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
  const passphrase = promptHidden("Passphrase for key.pem:");
  if (!passphrase) throw new UsageError("The passphrase must not be empty");
  if (promptHidden("Again:") !== passphrase) {
    throw new UsageError("The two passphrases differ");
  }
  return passphrase;
}
