/**
 * `client --list`: the servers that this user has joined.
 *
 * @module
 */

import { authority } from "../../lib/carrier/ip_address.ts";
import { messageOf } from "../advice/errors.ts";
import { readCertificates } from "../files.ts";
import {
  clientFolders,
  folderOf,
  isServerName,
  takeVariables,
} from "../folders.ts";
import { describeCertificate } from "../keys/certificates.ts";
import type { Args } from "../main.ts";
import { keepOnly } from "../permissions.ts";
import { stdout } from "../terminal/output.ts";
import { readSettings, settingsPath } from "./settings.ts";

/** Prints a line for each, in the order in which the client looks. */
export async function listServers(args: Args): Promise<void> {
  args.takesNoWords("--list");
  const folders = clientFolders(args.text("dir"), takeVariables());
  keepOnly({ read: folders, write: [] });
  const lines: string[] = [];
  for (const folder of folders) {
    for (const name of [undefined, ...namesIn(folder)]) {
      const place = folderOf(folder, name);
      if (isJoined(place)) lines.push(await describe(name, place));
    }
  }
  if (lines.length === 0) {
    lines.push(
      `no server was joined: there is none in ${folders.join(" or ")}; ` +
        "'deno task certs --join' joins one",
    );
  }
  stdout.result(lines);
}

/** What may be the names under which servers are kept in a folder. */
function namesIn(folder: string): string[] {
  try {
    return Array.from(Deno.readDirSync(folder), ({ name }) => name)
      .filter(isServerName).sort();
  } catch {
    // There is no such folder, or it is not for this user.
    return [];
  }
}

/** Whether a folder is of a server that was joined: nobody else writes this. */
function isJoined(folder: string): boolean {
  try {
    return Deno.statSync(settingsPath(folder)).isFile;
  } catch {
    return false;
  }
}

async function describe(
  name: string | undefined,
  folder: string,
): Promise<string> {
  const server = name === undefined ? "(no name)" : `--server ${name}`;
  try {
    const { host, port, identity } = await readSettings(folder);
    const cert = await readCertificates(`${folder}/cert.pem`);
    const { expires } = describeCertificate(cert);
    return `${server}: ${authority(host!, port!)} as ${identity}, until ` +
      `${expires} unless the server renews, in ${folder}`;
  } catch (error) {
    return `${server}: ${messageOf(error)}`;
  }
}
