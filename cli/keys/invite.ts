/**
 * The two sides of an invitation: the server's, which makes one, and the
 * client's, which keeps what it says.
 *
 * @module
 */

import { isIP } from "node:net";
import { resolve } from "node:path";
import { lacksZone } from "../addresses.ts";
import { describeCertificate, hasIssuer } from "./certificates.ts";
import { UsageError } from "../advice/errors.ts";
import {
  readAtMost,
  readCertificates,
  readIfThere,
  readPsk,
} from "../files.ts";
import { authority } from "../../lib/carrier/ip_address.ts";
import { linesOf } from "../../lib/lock/psk.ts";
import {
  formatInvitation,
  isBegun,
  isWhole,
  MAX_TEXT,
  parseInvitation,
} from "./invitation.ts";
import type { Args } from "../main.ts";
import { stderr, stdout } from "../terminal/output.ts";
import { keepOnly } from "../permissions.ts";
import { promptHidden } from "../terminal/prompt.ts";
import {
  foldersOf,
  makeFolder,
  type NewFile,
  replaceFiles,
  withFiles,
} from "./replace.ts";
import { settingsPath } from "../client/settings.ts";
import {
  clientFolders,
  findServer,
  folderOf,
  joinFolder,
  type Variables,
} from "../folders.ts";

/**
 * The identities that `--identity NAME` or `--invite NAME` means, for the service
 * that `--service` names.
 *
 * @throws {UsageError} If one looks like an e-mail address: a service is seldom
 * called so.
 */
export function named(args: Args, flag: "identity" | "invite"): string[] {
  const service = args.text("service");
  return args.texts(flag).map((name) => {
    if (service !== undefined) return `${name}@${service}`;
    const domain = /@(.+\.[a-z]{2,})$/i.exec(name)?.[1];
    if (domain === undefined) return name;
    const [person] = name.split("@");
    throw new UsageError(
      `Is ${domain} a service of yours? Then say --${flag} ${person} ` +
        `--service ${domain}; if ${name} is an e-mail address, say ` +
        `--${flag} ${person}`,
    );
  });
}

/** Whether a host means the same machine everywhere: clients can dial it. */
function isForAll(host: string): boolean {
  return !host.startsWith("*") && !lacksZone(host);
}

/** Refuses an invitation to hosts that no client can dial. */
export function checkHosts(hosts: string[]): void {
  const [first] = hosts;
  if (first === undefined || hosts.some(isForAll)) return;
  throw new UsageError(
    lacksZone(first)
      ? `No client can dial ${first} without a zone, which each machine has ` +
        "its own of; for --invite, give another --host as well"
      : `No client can dial ${first}; for --invite, give the server's own name ` +
        "or address as another --host",
  );
}

/**
 * Prints the line, or writes it into a file of mode 0600. To be called within
 * {@linkcode withFiles}, right after the key was made or kept.
 *
 * @param identity Whose key it is to hold.
 * @param notes What has been made for it.
 */
export async function invite(
  args: Args,
  out: string,
  identity: string,
  notes: string[],
): Promise<void> {
  const key = (await readPsk(`${out}/psk.txt`)).get(identity)?.toHex();
  if (key === undefined) {
    throw new UsageError(
      `${out}/psk.txt was changed by another program meanwhile; try again`,
    );
  }
  const cert = await readCertificates(`${out}/cert.pem`);
  if (!hasIssuer(cert)) {
    throw new UsageError(
      `${out}/cert.pem lacks the certificate of its CA, which clients need; ` +
        "append it to the file",
    );
  }
  const host = args.texts("host").find(isForAll) ?? hostOf(cert);
  const port = args.integer("port", 1, 65_535);
  const server = authority(host, port);
  const line = formatInvitation({ host, port, identity, key, cert });
  // Only the line goes to stdout, so that it can be piped.
  notes.forEach((note) => stderr.line(note));
  if (isLocal(host)) {
    stderr.line(
      `only this machine can use it: ${host} means each machine itself; give ` +
        "the server's name or address with --host",
    );
  }
  const file = args.text("invite-file");
  if (file === undefined) {
    stderr.line(
      `invitation for ${identity} to ${server}; whoever reads this line ` +
        `can speak as ${identity}, so keep it secret:`,
    );
    stdout.result([line]);
  } else {
    await replaceFiles([secret(file, line + "\n")]);
    stderr.line(
      `${file}: invitation for ${identity} to ${server}; keep it secret`,
    );
  }
}

/** A file that its owner alone may read, whoever might read the one before. */
function secret(path: string, text: string): NewFile {
  return { path, text, mode: 0o600, isPrivate: true };
}

function isLocal(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}

/** The first of its names that works from elsewhere, or else `localhost`. */
function hostOf(cert: string): string {
  const { names } = describeCertificate(cert);
  const others = names.filter((name) => !isLocal(name) && isForAll(name));
  return others.find((name) => !isIP(name)) ?? others[0] ?? "localhost";
}

/** Asks for the line, and writes what a client needs. */
export async function join(args: Args, variables: Variables): Promise<void> {
  const out = joinFolder(args.text("out"), variables);
  const { host, port, identity, key, cert } = parseInvitation(
    await readLine(args.text("invite-file")),
  );
  const name = args.text("as");
  const folder = folderOf(out, name);
  await refuseServers(folder);
  const settings = JSON.stringify({ host, port, identity }, undefined, 2);
  const files = [
    secret(`${folder}/cert.pem`, cert),
    secret(`${folder}/psk.txt`, `${identity}:${key}\n`),
    secret(settingsPath(folder), settings + "\n"),
  ];
  await makeFolder(folder);
  const place = resolve(folder);
  const found = findServer(clientFolders(undefined, variables), name, place);
  const paths = files.map(({ path }) => path);
  const folders = [folder, ...await foldersOf(paths)];
  keepOnly({ read: folders, write: folders });
  await withFiles(paths, async () => {
    // It may have become one meanwhile.
    await refuseServers(folder);
    await replaceFiles(files);
  });
  const flags = [
    ...found === place ? [] : ["--dir", resolve(out)],
    ...name === undefined ? [] : ["--server", name],
  ];
  stdout.line(`joined ${authority(host, port)} as ${identity}, in ${folder}`);
  const client = ["deno task client", ...flags, "--check"];
  stdout.line(`try it: ${client.join(" ")}`);
}

/** Refuses to join in a server's folder. */
async function refuseServers(folder: string): Promise<void> {
  const sign = await serverSign(folder);
  if (sign === undefined) return;
  throw new UsageError(
    `${folder} belongs to a server, because it has ${sign}; keep this one ` +
      "under a name with --as NAME, or in another folder with --out DIR",
  );
}

/** What shows that a folder is a server's, if it is. */
async function serverSign(folder: string): Promise<string | undefined> {
  const key = await readIfThere(`${folder}/key.pem`);
  if (key !== undefined) return "a key.pem";
  const psk = await readIfThere(`${folder}/psk.txt`) ?? "";
  const several = [...linesOf(psk)].filter(({ entry }) => entry).length > 1;
  return several ? "the keys of several clients" : undefined;
}

async function readLine(file: string | undefined): Promise<string> {
  if (file !== undefined) {
    const text = await readIfThere(file, MAX_TEXT);
    if (text !== undefined) return text;
    throw new UsageError(`Cannot read ${file}: there is no such file`);
  }
  if (!Deno.stdin.isTerminal()) return await readAtMost(Deno.stdin, MAX_TEXT);
  return promptHidden("Paste the invitation (it is not shown):", isEnd) ?? "";
}

/** Whether what is pasted ends here: not at an empty line of a letter. */
function isEnd(text: string, line: string): boolean {
  if (line !== "") return isWhole(text);
  return text.trim() === "" || isBegun(text);
}
