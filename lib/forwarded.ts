/**
 * From where a request came to the boxes in front of us: `X-Forwarded-For`, to
 * which each adds on the right the address that it was called from.
 *
 * @module
 */

import { canonicalAddress } from "./ip_address.ts";

/**
 * The address of the client, as far as it can be believed: what a box that is
 * trusted says of the address that called it. Whoever is not trusted may have
 * written what stands further left.
 *
 * @example
 * ```ts ignore
 * const isTrusted = (address: string) => address.startsWith("10.");
 * clientAddress("10.0.0.1", "1.2.3.4, 192.0.2.7, 10.0.0.2", isTrusted); // 192.0.2.7
 * clientAddress("192.0.2.9", "1.2.3.4", isTrusted); // 192.0.2.9
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
