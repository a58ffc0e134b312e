/**
 * The two sides of an invitation: the server's, which makes one, and the
 * client's, which keeps what it says.
 *
 * @module
 */

import { toText } from "@std/streams";
import { isIP } from "node:net";
import {
  certificatesOf,
  describeCertificate,
  hasIssuer,
} from "./certificates.ts";
import { UsageError } from "../advice/errors.ts";
import { readCertificates, readIfThere, readPsk } from "../files.ts";
import { authority } from "../../lib/carrier/ip_address.ts";
import { linesOf } from "../../lib/lock/psk.ts";
import { formatInvitation, isWhole, parseInvitation } from "./invitation.ts";
import type { Args } from "../main.ts";
import { stderr, stdout } from "../terminal/output.ts";
import { keepOnly } from "../permissions.ts";
import { promptHidden } from "../terminal/prompt.ts";
import { foldersOf, makeFolder, replaceFiles, withFiles } from "./replace.ts";
import { FOLDER, folderOf, settingsPath } from "../client/settings.ts";

/**
 * Prints the line, or writes it into a file of mode 0600. To be called within
 * {@linkcode withFiles}, right after the key was made or kept.
 *
 * @param notes What has been made for it.
 */
export async function invite(
  args: Args,
  out: string,
  notes: string[],
): Promise<void> {
  const identity = args.text("invite")!;
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
  const asked = args.texts("host").find((host) => !host.startsWith("*"));
  const host = asked ?? hostOf(cert);
  const port = args.integer("port", 1, 65_535);
  const server = authority(host, port);
  const line = formatInvitation({ host, port, identity, key, cert });
  // Only the line goes to stdout, so that it can be piped.
  notes.forEach((note) => stderr.line(note));
  const file = args.text("invite-file");
  if (file === undefined) {
    stderr.line(
      `invitation for ${identity} to ${server}; whoever reads this line ` +
        `can speak as ${identity}, so keep it secret:`,
    );
    stdout.line(line);
  } else {
    await replaceFiles([{ path: file, text: line + "\n", mode: 0o600 }]);
    stderr.line(
      `${file}: invitation for ${identity} to ${server}; keep it secret`,
    );
  }
}

/** The first of its names that works from elsewhere, or else `localhost`. */
function hostOf(cert: string): string {
  const { names } = describeCertificate(cert);
  const isLocal = (name: string) =>
    name === "localhost" || name === "::1" || name.startsWith("127.");
  const others = names.filter((name) =>
    !isLocal(name) && !name.startsWith("*")
  );
  return others.find((name) => !isIP(name)) ?? others[0] ?? "localhost";
}

/** Asks for the line, and writes what a client needs. */
export async function join(args: Args, out: string): Promise<void> {
  const { host, port, identity, key, cert } = parseInvitation(
    await readLine(args.text("invite-file")),
  );
  const name = args.text("as");
  const folder = folderOf(out, name);
  const sign = await serverSign(folder);
  if (sign !== undefined) {
    throw new UsageError(
      `${folder} belongs to a server, because it has ${sign}; keep this one ` +
        "under a name with --as NAME, or in another folder with --out DIR",
    );
  }
  const settings = JSON.stringify({ host, port, identity }, undefined, 2);
  const texts = {
    [`${folder}/cert.pem`]: certificatesOf("the invitation", cert),
    [`${folder}/psk.txt`]: `${identity}:${key}\n`,
    [settingsPath(folder)]: settings + "\n",
  };
  await makeFolder(folder);
  const paths = Object.keys(texts);
  const folders = [folder, ...await foldersOf(paths)];
  keepOnly({ read: folders, write: folders });
  await withFiles(paths, () =>
    replaceFiles(
      Object.entries(texts).map(([path, text]) => ({
        path,
        text,
        mode: 0o600,
      })),
    ));
  const server = name === undefined ? [] : ["--server", name];
  // No flag of the client names another folder.
  const flags = out === FOLDER ? server : [
    ...["--host", host, "--port", port, "--identity", identity],
    ...["--ca", `${folder}/cert.pem`, "--psk", `${folder}/psk.txt`],
  ];
  stdout.line(`joined ${authority(host, port)} as ${identity}, in ${folder}`);
  const client = ["deno task client", ...flags, "--check"];
  stdout.line(`try it: ${client.join(" ")}`);
}

/** What shows that a folder is a server's, if it is. */
async function serverSign(folder: string): Promise<string | undefined> {
  const key = await readIfThere(`${folder}/key.pem`);
  if (key !== undefined) return "a key.pem";
  const psk = await readIfThere(`${folder}/psk.txt`) ?? "";
  const several = linesOf(psk).filter(({ entry }) => entry).length > 1;
  return several ? "the keys of several clients" : undefined;
}

async function readLine(file: string | undefined): Promise<string> {
  if (file !== undefined) {
    const text = await readIfThere(file);
    if (text !== undefined) return text;
    throw new UsageError(`Cannot read ${file}: there is no such file`);
  }
  if (!Deno.stdin.isTerminal()) return await toText(Deno.stdin.readable);
  return promptHidden("Paste the invitation (it is not shown):", isWhole) ?? "";
}
