/**
 * Gives up rights once a program knows what it was asked to do.
 *
 * A task cannot know which files its flags will name, so it grants all of them,
 * with `--allow-read=/`. Deno can narrow that while the program runs: a path
 * that was requested by itself stays when the right to the root is revoked. Deno
 * cannot narrow a grant without a path (`--allow-read`, `--allow-net`): such a
 * right is kept or given up as a whole.
 *
 * @module
 */

import { dirname } from "node:path";
import type { Address } from "../tunnel/address.ts";

/** Keeps the rights to read and to write these files and folders only. */
export function keepOnly(paths: { read: string[]; write: string[] }): void {
  keep("read", paths.read);
  keep("write", paths.write);
}

/** Keeps a right for these files and folders only; `ffi` loads them as code. */
export function keep(
  name: "read" | "write" | "ffi",
  paths: readonly string[],
): void {
  for (const path of paths) Deno.permissions.requestSync({ name, path });
  const all = paths.length > 0 ? { name, path: "/" } : { name };
  Deno.permissions.revokeSync(all);
}

/**
 * Gives up a right: `net` to make connections, or `sys` to what the system tells,
 * such as its CAs and this machine's name.
 */
export function giveUp(name: "net" | "sys"): void {
  Deno.permissions.revokeSync({ name });
}

/**
 * The folders of those addresses that are Unix sockets: a socket is made beside
 * its place, then moved there.
 */
export function socketFolders(addresses: Address[]): string[] {
  return socketPaths(addresses).map(dirname);
}

/** The paths of those addresses that are Unix sockets. */
export function socketPaths(addresses: Address[]): string[] {
  return addresses.flatMap((address) =>
    "path" in address ? [address.path] : []
  );
}
