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
export interface Variables {
  INNERLOCK_DIR?: string | undefined;
  XDG_CONFIG_HOME?: string | undefined;
  HOME?: string | undefined;
}

/**
 * Reads the variables that the program may read, and gives up the right to do so
 * again.
 */
export function takeVariables(): Variables {
  const take = (variable: keyof Variables) => {
    const permission = { name: "env", variable } as const;
    const { state } = Deno.permissions.querySync(permission);
    if (state !== "granted") return undefined;
    const value = Deno.env.get(variable);
    Deno.permissions.revokeSync(permission);
    // Empty is as good as not set (XDG Base Directory Specification).
    return value || undefined;
  };
  return {
    INNERLOCK_DIR: take("INNERLOCK_DIR"),
    XDG_CONFIG_HOME: take("XDG_CONFIG_HOME"),
    HOME: take("HOME"),
  };
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

/** The names that a server may be given. */
const NAME = /^[\w-][\w.-]*$/;

/** What is in the folder of a server that was joined. */
const FILES = ["server.json", "psk.txt", "cert.pem"];

/** The folder of a server with this name, or of the one without a name. */
export function folderOf(folder: string, name: string | undefined): string {
  if (name === undefined) return folder;
  if (NAME.test(name)) return join(folder, name);
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
