/**
 * The address from which a request came to the boxes in front: each box appends
 * to `X-Forwarded-For` the address that called it.
 *
 * @module
 */

import { canonicalAddress } from "./ip_address.ts";

/**
 * The address of the client, as far as it can be believed: each trusted box is
 * believed about the address that called it. Whatever is further left may have
 * been written by anybody.
 *
 * @example
 * ```ts ignore
 * const isTrusted = (address: string) => address.startsWith("10.");
 * // 192.0.2.7, then 192.0.2.9
 * clientAddress("10.0.0.1", "1.2.3.4, 192.0.2.7, 10.0.0.2", isTrusted);
 * clientAddress("192.0.2.9", "1.2.3.4", isTrusted);
 * ```
 *
 * @param peer The address that the connection comes from.
 * @param forwardedFor The header field, if there is one; several are joined by
 * commas.
 * @param isTrusted Whether an address is that of a box of ours.
 */
export function clientAddress(
  peer: string,
  forwardedFor: string | null,
  isTrusted: (address: string) => boolean,
): string {
  let client = peer;
  const entries = forwardedFor?.split(",") ?? [];
  while (isTrusted(client)) {
    const address = parseEntry(entries.pop()?.trim() ?? "");
    if (address === undefined) break;
    client = address;
  }
  return client;
}

/** An address, which some boxes follow by its port; IPv6 then in brackets. */
function parseEntry(text: string): string | undefined {
  const [, bracketed, ipv4] =
    /^(?:\[([^\]]*)\](?::\d+)?|([\d.]+):\d+)$/.exec(text) ?? [];
  return canonicalAddress(bracketed ?? ipv4 ?? text);
}
