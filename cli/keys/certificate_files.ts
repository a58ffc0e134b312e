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

/** The names that a certificate always has: clients on this machine. */
const LOCAL_NAMES = ["localhost", "127.0.0.1", "::1"];

/** How long a certificate may be valid, in days. */
export const MAX_DAYS = 36_500;

/** What is asked of the files, and what is there. */
interface Job {
  args: Args;
  out: string;
  /** The names and addresses given with `--host`. */
  asked: string[];
  keyPath: string;
  certPath: string;
  key: string | undefined;
  hasCert: boolean;
  /** The certificates, if they are sound, and what the first of them says. */
  cert: string | undefined;
  old: CertificateInfo | undefined;
}

/**
 * Keeps key and certificate, or makes what is missing or asked for. A new
 * certificate is for the key that is there, unless `--new-key` is given, so a
 * client that trusts the old one trusts the new one, too.
 *
 * @param asked The names and addresses given with `--host`.
 * @returns What is to be written, and what may be said once it is.
 */
export async function certificateWork(
  args: Args,
  out: string,
  asked: string[],
): Promise<{ files: NewFile[]; notes: string[] }> {
  const [keyPath, certPath] = [`${out}/key.pem`, `${out}/cert.pem`];
  const key = await readIfThere(keyPath);
  const text = await readIfThere(certPath);
  const cert = text === undefined ? undefined : soundOf(certPath, text);
  const old = cert === undefined ? undefined : describeCertificate(cert);
  const hasCert = text !== undefined;
  const job = { args, out, asked, keyPath, certPath, key, hasCert, cert, old };
  return isKept(job) ? await keep(job, old!) : await make(job);
}

function soundOf(path: string, text: string): string | undefined {
  try {
    return certificatesOf(path, text);
  } catch {
    return undefined;
  }
}

/** Whether the certificate that is there stays. */
function isKept(job: Job): boolean {
  const { args, asked, keyPath, certPath, key, hasCert, cert, old } = job;
  if (key === undefined && !hasCert) {
    if (args.is("renew")) throw notHere(certPath);
    return false;
  }
  if (args.is("new-key")) {
    if (key === undefined || !isEncrypted(key) || encrypts(args)) {
      return false;
    }
    throw new UsageError(
      `${keyPath} is encrypted; say --passphrase to encrypt the new key, too`,
    );
  }
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
  if (!hasCert) return false;
  if (!cert || !old) {
    throw new UsageError(
      `${certPath} is not a certificate; --renew makes another for ` +
        `${keyPath}, and for the names given with --host`,
    );
  }
  const keys = parsePem(keyPath, key, "PRIVATE KEY");
  // Of one that is encrypted, only its passphrase can tell whether it fits.
  if (!keys.some(isEncrypted) && !findPrivateKey(keyPath, keys, cert)) {
    throw new UsageError(
      `${keyPath} is not the key of ${certPath}; --renew makes a certificate ` +
        "for it, and every client must then join again",
    );
  }
  const missing = asked.filter((host) => !isMadeOutTo(old, host));
  const lacksName = old.subject === SUBJECT && missing.length > 0;
  // Replaced unasked: one that has expired, or one of ours that lacks a name;
  // never one of a CA.
  if (old.isSelfSigned && (!old.isCurrent || lacksName)) return false;
  if (missing.length === 0) {
    checkDays(job, old);
    return true;
  }
  throw new UsageError(
    `${certPath} is not for ${missing.join(", ")}; ` +
      (old.isSelfSigned
        ? "--renew adds it, and every client must then join again"
        : "ask its CA for one that is"),
  );
}

/** Refuses `--days` where a certificate of other days is kept. */
function checkDays({ args, certPath }: Job, old: CertificateInfo): void {
  if (!args.is("days") || args.integer("days", 1, MAX_DAYS) === old.days) {
    return;
  }
  throw new UsageError(
    `${certPath} is kept, ${validity(old)}; ` +
      (old.isSelfSigned
        ? `--renew --days ${args.text("days")} makes another`
        : "its CA decides on its days"),
  );
}

/** Whether a new key is to be encrypted. */
function encrypts(args: Args): boolean {
  return args.is("passphrase") || args.is("passphrase-file");
}

function isMadeOutTo({ names }: CertificateInfo, host: string): boolean {
  return names.includes(host) || names.includes(host.replace(/^[^.]+/, "*"));
}

async function keep(job: Job, old: CertificateInfo) {
  const files = job.args.is("csr")
    ? [await requestFile(job, await readKey(job))]
    : [];
  const what = `${job.certPath}, ${job.keyPath}`;
  return { files, notes: [`${what}: ${validity(old)}, kept`, nameOf(old)] };
}

async function make(job: Job) {
  const { args, out, keyPath, certPath, key: oldKey, hasCert, old } = job;
  const isNew = oldKey === undefined || args.is("new-key");
  const key = isNew ? await makeKey(args.is("rsa")) : await readKey(job);
  const hosts = hostsOf(job);
  const days = args.integer("days", 1, MAX_DAYS);
  const cert = await makeCertificate(key, hosts, days, `${out}/.openssl`);
  const files = [{ path: certPath, text: cert, mode: 0o644 }];
  if (isNew) {
    const text = encrypts(args)
      ? await encryptKey(key, await newPassphrase(args))
      : key;
    const keyFile = (text: string) => ({ path: keyPath, text, mode: 0o600 });
    // Even if this run is killed, key.pem holds the key of cert.pem.
    if (oldKey !== undefined && hasCert) {
      files.unshift(keyFile(`${text}\n${oldKey}`));
      files.push(keyFile(text));
    } else files.unshift(keyFile(text));
  }
  if (args.is("csr")) files.push(await requestFile(job, key));
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

/** The names and addresses that a certificate is to be for. */
function hostsOf({ asked, old }: Job): string[] {
  return [...new Set([...LOCAL_NAMES, ...old?.names ?? [], ...asked])];
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
async function readKey({ args, keyPath, cert }: Job): Promise<string> {
  const options = {
    file: args.text("passphrase-file"),
    advice: "give --passphrase-file FILE",
  };
  const key = cert && await readPrivateKey(keyPath, cert, options);
  return key || (await readPrivateKey(keyPath, undefined, options))!;
}

function nameOf(certificate: CertificateInfo): string {
  const { keyFingerprint } = certificate;
  return `key ${keyFingerprint}, certificate ${validity(certificate)}`;
}

function validity({ isCurrent, isSelfSigned, expires }: CertificateInfo) {
  if (isCurrent) return `valid until ${expires}`;
  return `expired on ${expires}` +
    (isSelfSigned ? "" : ", and its CA has to renew it");
}

async function requestFile(job: Job, key: string): Promise<NewFile> {
  const text = await makeRequest(key, hostsOf(job));
  return { path: `${job.out}/cert.csr`, text, mode: 0o644 };
}

async function newPassphrase(args: Args): Promise<string> {
  const file = args.text("passphrase-file");
  const passphrase = file === undefined
    ? promptHidden("Passphrase for key.pem:")
    : await readSecret(file);
  if (!passphrase) throw new UsageError("The passphrase must not be empty");
  if (file === undefined && promptHidden("Again:") !== passphrase) {
    throw new UsageError("The two passphrases differ");
  }
  return passphrase;
}
