/**
 * What counts as a host, and which hosts are on this machine or a private
 * network.
 *
 * @module
 */

import { BlockList, isIP, isIPv6 } from "node:net";
import { canonicalIpv6 } from "../lib/carrier/ip_address.ts";

/** Whether an address is a loopback or private one; of names, `localhost`. */
export function isPrivateAddress(host: string): boolean {
  return host === "localhost" || PRIVATE.some((has) => has(host));
}

/**
 * Whether an address is one of those that a text names: `192.0.2.1`, or
 * `10.0.0.0/8` with the length of what they have in common. Undefined if the
 * text names none.
 */
export function network(
  text: string,
): ((address: string) => boolean) | undefined {
  const [, address = "", length] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  const family = isIP(address);
  const bits = family === 6 ? 128 : 32;
  const prefix = Number(length ?? bits);
  if (family === 0 || prefix > bits || address.includes("%")) return undefined;
  const members = new BlockList();
  members.addSubnet(address, prefix, family === 6 ? "ipv6" : "ipv4");
  // On whatever link it is.
  return (address) => {
    const [plain = ""] = address.split("%");
    return members.check(plain, isIPv6(plain) ? "ipv6" : "ipv4");
  };
}

/** Those of RFC 1122, 1918, 6598 and 3927; of RFC 4291 and 4193. */
const PRIVATE = [
  ...["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
  ...["100.64.0.0/10", "169.254.0.0/16", "::1", "fe80::/10", "fc00::/7"],
].map((text) => network(text)!);

const isLinkLocal = network("fe80::/10")!;

/** Labels of letters, digits, `-` and `_`; a number at the end is no name's. */
const NAME = /^(?!(.*\.)?\d+\.?$)((?!-)[\w-]{1,63}(?<!-)(\.(?=.)|\.?$))+$/;

/** Whether a text is a name of a machine. */
export function isName(text: string): boolean {
  return NAME.test(text);
}

/** Whether this is a name or an address of a machine. */
export function isHost(text: unknown): text is string {
  return typeof text === "string" && (isIP(text) !== 0 || isName(text));
}

/** Whether an address is valid on one link only, and does not say which. */
export function lacksZone(host: string): boolean {
  return isIPv6(host) && !host.includes("%") && isLinkLocal(host);
}

/** The one way to write a host of the many that a name or an IPv6 address has. */
export function canonical(host: string): string {
  return canonicalIpv6(host) ?? host.toLowerCase();
}
