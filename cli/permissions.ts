/**
 * The rights that a program gives up.
 *
 * @module
 */

/** Gives up the right to write, which only a Unix socket's path takes. */
export function keepWriteOnlyFor(address: string | undefined): void {
  if (address?.startsWith("unix:")) return;
  Deno.permissions.revokeSync({ name: "write" });
}
