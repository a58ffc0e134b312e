/**
 * Where the programs look for their files, unless a flag names each.
 *
 * A server's are in `certs` here. A client's are there, too, or else in the
 * user's own folder, where `certs --join` puts them. `--dir`, or else
 * INNERLOCK_DIR, names one folder instead of all these.
 *
 * @module
 */

import { isAbsolute, join, resolve } from "node:path";
import { UsageError } from "./advice/errors.ts";

/** The variables that say where folders are. */
const VARIABLES = ["INNERLOCK_DIR", "XDG_CONFIG_HOME", "HOME"] as const;

/** What they say. */
export type Variables = { [name in typeof VARIABLES[number]]?: string };

/**
 * Reads the variables that the program may read, and gives up the right to do so
 * again.
 */
export function takeVariables(): Variables {
  const variables: Variables = {};
  for (const variable of VARIABLES) {
    const permission = { name: "env", variable } as const;
    const { state } = Deno.permissions.querySync(permission);
    if (state !== "granted") continue;
    const value = Deno.env.get(variable);
    // Empty is as good as not set (XDG Base Directory Specification).
    if (value) variables[variable] = value;
    Deno.permissions.revokeSync(permission);
  }
  return variables;
}

/** The folder in the place where the program was started. */
const HERE = "certs";

/** The user's own folder, if there is a user who has one. */
function ownFolder({ XDG_CONFIG_HOME, HOME }: Variables): string | undefined {
  const config = [XDG_CONFIG_HOME, HOME && join(HOME, ".config")]
    .find((path) => path !== undefined && isAbsolute(path));
  return config && join(config, "innerlock");
}

/**
 * The folder of a server's files.
 *
 * @param named What a flag says.
 */
export function serverFolder(
  named: string | undefined,
  { INNERLOCK_DIR }: Variables,
): string {
  return named ?? INNERLOCK_DIR ?? HERE;
}

/** What a server has not, though it is to be changed: it may be elsewhere. */
export function notHere(path: string): UsageError {
  return new UsageError(
    `There is no ${resolve(path)}; run this where the server's folder certs ` +
      "is, or name that folder with --out",
  );
}

/**
 * The folders in which a client looks for what it has joined, in this order.
 *
 * @param named What `--dir` says.
 */
export function clientFolders(
  named: string | undefined,
  variables: Variables,
): string[] {
  const one = named ?? variables.INNERLOCK_DIR;
  if (one !== undefined) return [resolve(one)];
  return [resolve(HERE), ownFolder(variables) ?? []].flat();
}

/**
 * The folder to which a client joins.
 *
 * @param named What `--out` says.
 * @throws {UsageError} If the user has no folder.
 */
export function joinFolder(
  named: string | undefined,
  variables: Variables,
): string {
  const folder = named ?? variables.INNERLOCK_DIR ?? ownFolder(variables);
  if (folder !== undefined) return folder;
  throw new UsageError(
    "This user has no folder for it, because HOME is not set; name one with " +
      "--out DIR",
  );
}

/** Whether a server may be kept under a name. */
export function isServerName(name: string): boolean {
  return /^[\w-][\w.-]*$/.test(name);
}

/** What is in the folder of a server that was joined. */
const FILES = ["server.json", "psk.txt", "cert.pem"];

/** The folder of a server with this name, or of the one without a name. */
export function folderOf(folder: string, name: string | undefined): string {
  if (name === undefined) return folder;
  if (isServerName(name)) return join(folder, name);
  throw new UsageError(
    `A server's name takes letters, digits, '-', '_' and '.', not ${name}`,
  );
}

/**
 * Of these folders the first that knows a server, if one does.
 *
 * @param joined One that is about to know it.
 */
export function findServer(
  folders: string[],
  name: string | undefined,
  joined?: string,
): string | undefined {
  return folders.map((folder) => folderOf(folder, name)).find((folder) =>
    folder === joined ||
    FILES.some((file) => isThere(join(folder, file)))
  );
}

/** Whether there is such a file or folder, of use or not. */
export function isThere(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    // What cannot be looked at is told of when it is read.
    const { NotFound, NotADirectory } = Deno.errors;
    return !(error instanceof NotFound || error instanceof NotADirectory);
  }
}
