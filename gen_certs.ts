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
import { type NewFile, readPrivateKey, replaceFiles } from "./cli/files.ts";
import {
  certificateInfo,
  checkOpenssl,
  encryptKey,
  makeCertificate,
  makeKey,
  makeRequest,
} from "./cli/openssl.ts";
import { type Args, messageOf, run, UsageError } from "./cli/main.ts";
import { isIdentity, parsePsk, type PskMap } from "./lib/mod.ts";

const USAGE = `
Usage: deno task certs [flags]

Makes key.pem, cert.pem (by openssl) and psk.txt. What is there and valid stays.

  --out DIR          where to (certs)
  --host NAME|IP     a name or address of the server; may repeat; localhost,
                     127.0.0.1 and ::1 are always in
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
const NAME = /^(?!-)[A-Za-z0-9.*-]{1,253}$/;
const ADDRESS = /^(\d{1,3}(\.\d{1,3}){3}|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*)$/;

async function main(args: Args): Promise<void> {
  const out = args.text("out")!;
  const identities = args.texts("identity");
  for (const identity of identities) {
    if (isIdentity(identity)) continue;
    throw new UsageError(
      `--identity takes 1 to 64 letters, digits, '.', '_', '@', '-', not ${identity}`,
    );
  }
  const hosts = [...new Set([...LOCAL_NAMES, ...args.texts("host")])];
  for (const host of hosts) {
    if (!NAME.test(host) && !ADDRESS.test(host)) {
      throw new UsageError(`--host takes a name or an address, not ${host}`);
    }
  }
  args.integer("days", 1, MAX_DAYS);
  const revoked = args.texts("revoke");
  if (revoked.length > 0) return await revoke(`${out}/psk.txt`, revoked);
  await checkOpenssl();
  await Deno.mkdir(out, { recursive: true });
  const force = args.is("force");
  await makeTlsFiles(args, out, hosts, force);
  await makeKeyFile(`${out}/psk.txt`, identities, force);
  const { fingerprint, expires } = await certificateInfo(`${out}/cert.pem`);
  console.log(`certificate ${fingerprint}, valid until ${expires}`);
  console.log(`a client needs ${out}/cert.pem and its lines of ${out}/psk.txt`);
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
  console.log(`${path}: took out ${identities.join(", ")}`);
  console.log("a running server reads it again at SIGHUP");
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
async function makeKeyFile(
  path: string,
  asked: string[],
  force: boolean,
): Promise<void> {
  const old = await readIfThere(path);
  const keys = readKeys(path, old ?? "");
  const wanted = asked.length > 0 ? asked : keys.size > 0 ? [] : ["default"];
  let text = old ?? "# identity:key, a line each; keep it secret\n";
  if (text !== "" && !text.endsWith("\n")) text += "\n";
  for (const identity of new Set(wanted)) {
    if (keys.has(identity)) {
      if (!force) {
        console.log(`${path}: ${identity} has a key, kept`);
        continue;
      }
      text = withoutKey(text, identity);
    }
    const key = crypto.getRandomValues(new Uint8Array(PSK_LENGTH));
    text += `${identity}:${key.toHex()}\n`;
    console.log(`${path}: made a key for ${identity}`);
  }
  if (text !== old) await replaceFiles([{ path, text, mode: 0o600 }]);
}

async function makeTlsFiles(
  args: Args,
  out: string,
  hosts: string[],
  force: boolean,
): Promise<void> {
  const [keyPath, certPath] = [`${out}/key.pem`, `${out}/cert.pem`];
  const oldKey = await readIfThere(keyPath);
  const oldCert = await readIfThere(certPath);
  if (!force && oldKey !== undefined && oldCert !== undefined) {
    const { expires, isCurrent, names } = await certificateInfo(
      certPath,
      hosts,
    );
    const missing = hosts.filter((host) => !names.includes(host));
    if (isCurrent && missing.length > 0) {
      throw new UsageError(
        `${certPath} is not made out to ${missing.join(", ")}: ` +
          "--force replaces it, and every client then needs the new one",
      );
    }
    if (isCurrent && (args.is("passphrase") || args.is("rsa"))) {
      throw new UsageError(
        `${keyPath} is there and stays as it is: --force replaces it`,
      );
    }
    if (isCurrent) {
      console.log(`${certPath}, ${keyPath}: valid until ${expires}, kept`);
      if (args.is("csr")) {
        const key = await readPrivateKey(keyPath, {});
        await replaceFiles([await requestFile(out, key, hosts)]);
      }
      return;
    }
    console.log(`${certPath}: expired ${expires}, replaced`);
  } else if (!force && (oldKey ?? oldCert) !== undefined) {
    const [there, missing] = oldKey === undefined
      ? [certPath, keyPath]
      : [keyPath, certPath];
    throw new UsageError(
      `There is ${there} but no ${missing}: --force replaces both`,
    );
  }
  const passphrase = args.is("passphrase") ? askPassphrase() : undefined;
  const key = await makeKey(args.is("rsa"));
  const days = args.integer("days", 1, MAX_DAYS);
  await replaceFiles([
    {
      path: keyPath,
      text: passphrase ? await encryptKey(key, passphrase) : key,
      mode: 0o600,
    },
    {
      path: certPath,
      text: await makeCertificate(key, hosts, days),
      mode: 0o644,
    },
    ...(args.is("csr") ? [await requestFile(out, key, hosts)] : []),
  ]);
  console.log(`${keyPath}, ${certPath}: made, for ${hosts.join(", ")}`);
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

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new UsageError(`Cannot read ${path}: ${messageOf(error)}`);
  }
}

if (import.meta.main) await run("gen_certs", USAGE, FLAGS, main);
