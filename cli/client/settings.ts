/**
 * What a client knows of a server that it has joined: a folder with `cert.pem`,
 * `psk.txt`, and `server.json` for the rest.
 *
 * @module
 */

import { UsageError } from "../advice/errors.ts";
import { readIfThere } from "../files.ts";
import { isHost } from "../addresses.ts";
import { isIdentity } from "../../lib/lock/psk.ts";

/** What `server.json` says. */
interface Settings {
  /** The server's name or address. */
  host?: string;
  /** Its port. */
  port?: number;
  /** Whose key to use. */
  identity?: string;
}

/** The file's place within a folder. */
export function settingsPath(folder: string): string {
  return `${folder}/server.json`;
}

/** Reads them; there need not be any. */
export async function readSettings(folder: string): Promise<Settings> {
  const path = settingsPath(folder);
  const text = await readIfThere(path);
  if (text === undefined) return {};
  try {
    const { host, port, identity } = JSON.parse(text);
    const isValid = isHost(host) && Number.isInteger(port) &&
      port > 0 && port < 65_536 &&
      (identity === undefined || isIdentity(identity));
    if (!isValid) throw new Error();
    return { host, port, identity };
  } catch {
    throw new UsageError(
      `Cannot use ${path}: it is damaged; join again, with ` +
        "'deno task certs --join'",
    );
  }
}
