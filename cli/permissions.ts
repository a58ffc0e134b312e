/**
 * The rights that a program gives up.
 *
 * @module
 */

/** Gives up the right to write, which only a Unix socket's path takes. */
export function keepWriteOnlyFor(addresses: string[]): void {
  if (addresses.some((address) => /(^|=)unix:/.test(address))) return;
  Deno.permissions.revokeSync({ name: "write" });
}
