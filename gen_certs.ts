/**
 * Makes what the two locks need: a TLS key and certificate, with openssl, and the
 * key file of the inner lock. Invites clients, and joins a server.
 *
 * ```sh
 * deno task certs --host server.example --invite alice
 * deno task certs --join
 * ```
 *
 * @module
 */

import { canonical } from "./cli/addresses.ts";
import { certificateWork, MAX_DAYS } from "./cli/keys/certificate_files.ts";
import { subjectAltName } from "./cli/keys/certificates.ts";
import { UsageError } from "./cli/advice/errors.ts";
import { readIfThere } from "./cli/files.ts";
import {
  isThere,
  notHere,
  serverFolder,
  takeVariables,
} from "./cli/folders.ts";
import { checkHosts, invite, join, named } from "./cli/keys/invite.ts";
import { KeyFile } from "./cli/keys/key_file.ts";
import { type Args, run } from "./cli/main.ts";
import { acceptMounts } from "./cli/secrets.ts";
import { stderr, stdout } from "./cli/terminal/output.ts";
import { IDENTITY_FORM, isIdentity, serviceOf } from "./lib/lock/psk.ts";
import { keepOnly } from "./cli/permissions.ts";
import {
  foldersOf,
  makeFolder,
  replaceFiles,
  withFiles,
} from "./cli/keys/replace.ts";

/** People read it, and so does the parser: `listed` of cli/main.ts says how. */
const USAGE = `
Usage: deno task certs [flags]

Makes key.pem and cert.pem with openssl, and psk.txt. Valid files stay as they
are, except that --host adds names to the certificate.

  --out DIR          the folder for the files (INNERLOCK_DIR; else certs, or
                     with --join the user's own, ~/.config/innerlock)
  --host NAME|IP     a name or address of the server; may repeat; localhost,
                     127.0.0.1, ::1 and the old certificate's names are always
                     included
  --invite NAME      print the line for a client
  --service NAME     with --invite or --identity: for this service alone; the
                     same as NAME@SERVICE there
  --port PORT        the server's port, for --invite (5001)
  --join             on a client: ask for that line, and write its files
  --as NAME          with --join: the name to keep the server under, for
                     client --server NAME
  --invite-file FILE write the line to this file, or --join from it
  --list             list the identities, and the service that each opens
  --identity NAME    make a key for this identity; may repeat (default)
  --rekey NAME       give an identity another key; may repeat
  --revoke NAME      remove an identity, and do nothing else; may repeat
  --renew            make a new certificate for the same key: clients need
                     nothing new
  --new-key          with --renew: for another key, if this one has leaked;
                     every client must then join again
  --days N           how long the certificate is valid (365)
  --rsa              RSA 4096 instead of EC P-256
  --passphrase       encrypt key.pem; asks for the passphrase twice
  --passphrase-file FILE
                     do not ask for the passphrase of key.pem: read it here;
                     a new key is encrypted with it
  --csr              also write cert.csr, for a CA to sign
  --help, --version

Exit codes: 1 openssl failed, or what was asked for could not be written to
stdout; 2 wrong usage or configuration.
`;

const FLAGS = {
  default: { days: "365", port: "5001" },
};

async function main(args: Args): Promise<void> {
  const variables = takeVariables();
  if (args.is("join")) {
    refuseOthers(args, "join", ["out", "as", "invite-file"]);
    return await join(args, variables);
  }
  const out = serverFolder(args.text("out"), variables);
  if (args.is("list")) {
    refuseOthers(args, "list", ["out"]);
    return await list(`${out}/psk.txt`);
  }
  checkIdentities(args);
  const isOld = ["renew", "rekey", "revoke"].some(args.is);
  if (isOld && !isThere(out)) throw notHere(out);
  if (args.is("revoke")) {
    refuseOthers(args, "revoke", ["out"]);
    return await inFolder(args, out, () => revoke(args, `${out}/psk.txt`));
  }
  checkNames(args);
  await makeFolder(out);
  await inFolder(args, out, async () => {
    const notes = await make(args, out);
    // Under the same lock: nobody has taken the key out again.
    const [identity] = named(args, "invite");
    if (identity !== undefined) {
      return await invite(args, out, identity, notes);
    }
    notes.forEach((note) => stdout.line(note));
    // Nobody needs anything of a renewed one, or the notes say so.
    if (!args.is("renew")) tellClients(out);
  });
}

function tellClients(out: string): void {
  stdout.line(`a client needs ${out}/cert.pem and its line of ${out}/psk.txt:`);
  stdout.line(
    "'deno task certs --invite NAME' makes of both one line to paste",
  );
}

/** Refuses what no key file can have. */
function checkIdentities(args: Args): void {
  const given = {
    identity: named(args, "identity"),
    rekey: args.texts("rekey"),
    invite: named(args, "invite"),
    revoke: args.texts("revoke"),
  };
  for (const [flag, identities] of Object.entries(given)) {
    const wrong = identities.find((identity) => !isIdentity(identity));
    if (wrong === undefined) continue;
    throw new UsageError(`--${flag} takes ${IDENTITY_FORM}, not ${wrong}`);
  }
}

function checkNames(args: Args): void {
  args.integer("days", 1, MAX_DAYS);
  args.integer("port", 1, 65_535);
  for (const host of args.texts("host")) {
    if (host === "0.0.0.0" || canonical(host) === "::") {
      throw new UsageError(
        `--host takes the name or address by which clients reach the server, ` +
          `not ${host}`,
      );
    }
    if (subjectAltName(host) !== undefined) continue;
    throw new UsageError(
      `--host takes a name or an IP address alone, not ${host}`,
    );
  }
  if (args.is("new-key") && !args.is("renew")) {
    throw new UsageError("--new-key goes with --renew");
  }
  if (args.is("as")) throw new UsageError("--as goes with --join");
  if (args.is("invite")) return checkHosts(args.texts("host"));
  if (args.is("service") && !args.is("identity")) {
    throw new UsageError("--service goes with --invite or --identity");
  }
  const unused = ["port", "invite-file"].find(args.is);
  if (unused) throw new UsageError(`--${unused} goes with --invite`);
}

/** Keeps what is there, makes what is missing, and says what it did. */
async function make(args: Args, out: string): Promise<string[]> {
  const path = `${out}/psk.txt`;
  const old = await readIfThere(path);
  const file = args.is("rekey")
    ? await readKeyFile(path)
    : new KeyFile(path, old);
  const notes: string[] = [];
  const asked = [...named(args, "identity"), ...named(args, "invite")];
  const isFirst = file.keys().size === 0 && asked.length === 0;
  for (const identity of new Set(isFirst ? ["default"] : asked)) {
    if (file.keys().has(identity)) {
      notes.push(`${path}: kept the key of ${identity}`);
      continue;
    }
    file.setKey(identity);
    notes.push(`${path}: made a key for ${identity}`);
  }
  for (const identity of args.texts("rekey")) {
    if (!file.keys().has(identity)) throw unknown(identity, path);
    file.setKey(identity);
    notes.push(`${path}: made another key for ${identity}, who now needs it`);
    notes.push(...remaining(file, identity, path));
  }
  const hosts = args.texts("host").map(canonical);
  const tls = await certificateWork(args, out, hosts);
  const { text } = file;
  const keys = text === old ? [] : [{ path, text, mode: 0o600 }];
  const files = [...tls.files, ...keys];
  if (files.length > 0) await replaceFiles(files);
  return [...tls.notes, ...notes];
}

/** The key file of a server that has one already. */
async function readKeyFile(path: string): Promise<KeyFile> {
  const text = await readIfThere(path);
  if (text === undefined) throw notHere(path);
  return new KeyFile(path, text);
}

/** Prints who has a key, and for what. */
async function list(path: string): Promise<void> {
  const identities = [...(await readKeyFile(path)).keys().keys()];
  stdout.result(identities.map((identity) => {
    const service = serviceOf(identity);
    return `${identity}: ` +
      (service === undefined ? "every service" : `the service ${service}`);
  }));
}

/** Removes identities from the key file. */
async function revoke(args: Args, path: string): Promise<void> {
  const file = await readKeyFile(path);
  const revoked = args.texts("revoke");
  for (const identity of revoked) {
    if (!file.remove(identity)) throw unknown(identity, path);
  }
  if (file.keys().size === 0) {
    throw new UsageError(
      `${path} would have no key left; add another with --identity first`,
    );
  }
  await replaceFiles([{ path, text: file.text, mode: 0o600 }]);
  stdout.line(`${path}: removed ${revoked.join(", ")}`);
  const left = revoked.flatMap((identity) => remaining(file, identity, path));
  for (const note of new Set(left)) stdout.line(note);
  stdout.line("a running server notices, and cuts their connections");
}

/** What else the holder of an identity's old key may have, for people. */
function remaining(file: KeyFile, identity: string, path: string): string[] {
  const others = file.related(identity);
  if (others.length === 0) return [];
  const is = others.length === 1 ? "is" : "are";
  return [
    `${path}: ${others.join(", ")} ${is} still there, with ` +
    (others.length === 1 ? "a key of its own" : "keys of their own"),
  ];
}

function unknown(identity: string, path: string): UsageError {
  return new UsageError(`There is no identity ${identity} in ${path}`);
}

function refuseOthers(args: Args, flag: string, allowed: string[]): void {
  const isOther = (name: string) => !allowed.includes(name);
  args.refuse(flag, isOther, ": run one after the other");
}

/** What a run makes in its folder: the last for its own use. */
const FILES = ["key.pem", "cert.pem", "psk.txt", "cert.csr", ".openssl"];

/** Works while nobody else does so there, and gives up all other folders. */
async function inFolder<T>(
  args: Args,
  out: string,
  work: () => Promise<T>,
): Promise<T> {
  const paths = [
    ...FILES.map((name) => `${out}/${name}`),
    ...args.texts("invite-file"),
  ];
  const secret = args.texts("passphrase-file");
  const folders = [out, ...await foldersOf(paths)];
  for (const warning of await acceptMounts([...paths, ...secret])) {
    stderr.line(`certs: ${warning}`);
  }
  keepOnly({ read: [...folders, ...secret], write: folders });
  return await withFiles(paths, work);
}

if (import.meta.main) await run("certs", USAGE, FLAGS, main);
