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
import { notHere } from "../folders.ts";
import { readIfThere, readPrivateKey, readSecret } from "../files.ts";
import type { Args } from "../main.ts";
import {
  encryptKey,
  makeCertificate,
  makeKey,
  makeRequest,
  SUBJECT,
} from "./openssl.ts";
import { parsePem } from "./pem.ts";
import { findPrivateKey, isEncrypted } from "./private_keys.ts";
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
 * Keeps key and certificate, or makes what is missing or asked for. A new
 * certificate is for the key that is there, unless `--new-key` is given, so a
 * client that trusts the old one trusts the new one, too.
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
  const hosts = [...new Set([...LOCAL_NAMES, ...old?.names ?? [], ...asked])];
  if (!isKept(args, pair, old, asked)) {
    return await makePair(args, out, pair, hosts, old);
  }
  return {
    files: args.is("csr")
      ? [await requestFile(out, await readKey(args, pair), hosts)]
      : [],
    notes: [`${certPath}, ${keyPath}: ${validity(old)}, kept`, nameOf(old)],
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

/** Whether the certificate that is there stays. */
function isKept(
  args: Args,
  pair: Pair,
  old: CertificateInfo | undefined,
  asked: string[],
): old is CertificateInfo {
  const { keyPath, certPath, key, cert } = pair;
  if (key === undefined && cert === undefined) {
    if (args.is("renew")) throw notHere(certPath);
    return false;
  }
  if (args.is("new-key")) return false;
  if (key === undefined) {
    throw new UsageError(
      `There is ${certPath} but no ${keyPath}, as on a client; for a server, ` +
        "--renew --new-key makes both",
    );
  }
  if (args.is("passphrase") || args.is("rsa")) {
    throw new UsageError(
      `${keyPath} exists and stays as it is; --renew --new-key replaces it`,
    );
  }
  if (args.is("renew")) {
    if (old?.isSelfSigned !== false) return false;
    throw new UsageError(
      `${certPath} is from a CA, which has to renew it; --renew --new-key ` +
        "replaces it by one without a CA",
    );
  }
  if (cert === undefined) return false;
  if (old === undefined) {
    throw new UsageError(
      `${certPath} is not a certificate; --renew makes another for ` +
        `${keyPath}, and for the names given with --host`,
    );
  }
  if (!mayFit(pair)) {
    throw new UsageError(
      `${keyPath} is not the key of ${certPath}; --renew makes a certificate ` +
        "for it, and every client must then join again",
    );
  }
  const missing = asked.filter((host) => !isMadeOutTo(old, host));
  if (mayReplace(old, missing)) return false;
  if (missing.length === 0) return true;
  throw new UsageError(
    `${certPath} is not for ${missing.join(", ")}; ` +
      (old.isSelfSigned
        ? "--renew adds it, and every client must then join again"
        : "ask its CA for one that is"),
  );
}

/** Whether the key is the certificate's, as far as can be told. */
function mayFit({ keyPath, certPath, key, cert }: Pair): boolean {
  const keys = parsePem(keyPath, key!, "PRIVATE KEY");
  const certificates = certificatesOf(certPath, cert!);
  // Of one that is encrypted, only its passphrase can tell.
  return keys.some(isEncrypted) ||
    findPrivateKey(keyPath, keys, certificates) !== undefined;
}

/**
 * Whether a certificate is replaced unasked: one that has expired, or one of ours
 * that lacks a name; never one of a CA.
 */
function mayReplace(old: CertificateInfo, missing: string[]): boolean {
  return old.isSelfSigned &&
    (!old.isCurrent || (old.subject === SUBJECT && missing.length > 0));
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
  const isNew = pair.key === undefined || args.is("new-key");
  const key = isNew ? await makeKey(args.is("rsa")) : await readKey(args, pair);
  const days = args.integer("days", 1, MAX_DAYS);
  const cert = await makeCertificate(key, hosts, days, `${out}/.openssl`);
  const files = [{ path: certPath, text: cert, mode: 0o644 }];
  if (isNew) {
    const text = await encrypted(args, key);
    const keyFile = (text: string) => ({ path: keyPath, text, mode: 0o600 });
    // Even if this run is killed, key.pem holds the key of cert.pem.
    if (pair.key !== undefined && pair.cert !== undefined) {
      files.unshift(keyFile(`${text}\n${pair.key}`));
      files.push(keyFile(text));
    } else files.unshift(keyFile(text));
  }
  if (args.is("csr")) files.push(await requestFile(out, key, hosts));
  const made = describeCertificate(cert);
  const what = isNew ? `${certPath}, ${keyPath}` : certPath;
  const notes = [`${what}: made for ${hosts.join(", ")}`, nameOf(made)];
  if (old?.isCurrent === false) {
    notes.unshift(`${certPath}: ${validity(old)}, replaced`);
  }
  if (old !== undefined) {
    notes.push(
      isTrustedAs(old, made)
        ? "its key is the same, so clients need nothing new"
        : "every client must join again: invite each with --invite NAME",
    );
  }
  return { files, notes };
}

/** Whether whoever trusts the one certificate trusts the other. */
function isTrustedAs(old: CertificateInfo, made: CertificateInfo): boolean {
  return old.isSelfSigned && old.subject === made.subject &&
    old.keyFingerprint === made.keyFingerprint;
}

/**
 * The key that is there, in the clear: of several the certificate's, which a run
 * that was killed may have left beside another.
 */
async function readKey(args: Args, pair: Pair): Promise<string> {
  const options = {
    file: args.text("passphrase-file"),
    advice: "give --passphrase-file FILE",
  };
  const { keyPath, certPath, cert } = pair;
  const key = infoOf(pair) &&
    await readPrivateKey(keyPath, certificatesOf(certPath, cert!), options);
  return key ?? (await readPrivateKey(keyPath, undefined, options))!;
}

/** A new key as it is kept: encrypted, if that is asked for. */
async function encrypted(args: Args, key: string): Promise<string> {
  if (!args.is("passphrase")) return key;
  const file = args.text("passphrase-file");
  const passphrase = file === undefined
    ? askPassphrase()
    : await readSecret(file);
  return await encryptKey(key, passphrase);
}

function nameOf({ keyFingerprint, ...certificate }: CertificateInfo): string {
  return `key ${keyFingerprint}, certificate ${validity(certificate)}`;
}

function validity(
  { isCurrent, isSelfSigned, expires }: Omit<
    CertificateInfo,
    "keyFingerprint"
  >,
) {
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
