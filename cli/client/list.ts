/**
 * `client --list`: the servers that this user has joined.
 *
 * @module
 */

import { join } from "node:path";
import { authority } from "../../lib/carrier/ip_address.ts";
import { messageOf, UsageError } from "../advice/errors.ts";
import { readCertificates } from "../files.ts";
import { clientFolders, findServer, takeVariables } from "../folders.ts";
import { describeCertificate } from "../keys/certificates.ts";
import type { Args } from "../main.ts";
import { keepOnly } from "../permissions.ts";
import { stdout } from "../terminal/output.ts";
import { readSettings, settingsPath } from "./settings.ts";

/** Prints a line for each, in the order in which the client looks. */
export async function listServers(args: Args): Promise<void> {
  if (args.words.length > 0) {
    throw new UsageError(`--list takes no words: ${args.words[0]}`);
  }
  const folders = clientFolders(args.text("dir"), takeVariables());
  keepOnly({ read: folders, write: [] });
  const lines: string[] = [];
  for (const folder of folders) {
    for (const name of namesIn(folder)) {
      lines.push(await describe(name, findServer([folder], name)!));
    }
  }
  if (lines.length === 0) {
    lines.push(
      `no server was joined: there is none in ${folders.join(" or ")}; ` +
        "'deno task certs --join' joins one",
    );
  }
  lines.forEach((line) => stdout.line(line));
}

/** The names under which servers are kept in a folder; one may have none. */
function namesIn(folder: string): (string | undefined)[] {
  const names: (string | undefined)[] = isJoined(folder) ? [undefined] : [];
  try {
    const entries = Array.from(Deno.readDirSync(folder), ({ name }) => name);
    names.push(
      ...entries.filter((name) => isJoined(join(folder, name))).sort(),
    );
  } catch {
    // There is no such folder, or it is not for this user.
  }
  return names;
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
