/**
 * What is a host, and which do not leave a machine or a private network.
 *
 * @module
 */

import { BlockList, isIP, isIPv6 } from "node:net";

const PRIVATE = new BlockList();
// RFC 1122, 1918, 6598 and 3927; RFC 4291 and 4193.
PRIVATE.addSubnet("127.0.0.0", 8, "ipv4");
PRIVATE.addSubnet("10.0.0.0", 8, "ipv4");
PRIVATE.addSubnet("172.16.0.0", 12, "ipv4");
PRIVATE.addSubnet("192.168.0.0", 16, "ipv4");
PRIVATE.addSubnet("100.64.0.0", 10, "ipv4");
PRIVATE.addSubnet("169.254.0.0", 16, "ipv4");
PRIVATE.addAddress("::1", "ipv6");
PRIVATE.addSubnet("fe80::", 10, "ipv6");
PRIVATE.addSubnet("fc00::", 7, "ipv6");

const LINK_LOCAL = new BlockList();
LINK_LOCAL.addSubnet("fe80::", 10, "ipv6");

/** Whether an address is a loopback or private one; of names, `localhost`. */
export function isPrivateAddress(host: string): boolean {
  if (host === "localhost") return true;
  return PRIVATE.check(host, isIPv6(host) ? "ipv6" : "ipv4");
}

/** Labels of letters, digits, `-` and `_`; a number at the end is no name's. */
const NAME = /^(?!(.*\.)?\d+\.?$)((?!-)[\w-]{1,63}(?<!-)(\.(?=.)|\.?$))+$/;

/** Whether a text is a name of a machine. */
export function isName(text: string): boolean {
  return NAME.test(text);
}

/** Whether a text is a name or an address of a machine. */
export function isHost(text: string): boolean {
  return isIP(text) !== 0 || isName(text);
}

/** Whether an address means something on one link only, and does not say which. */
export function lacksZone(host: string): boolean {
  return isIPv6(host) && !host.includes("%") && LINK_LOCAL.check(host, "ipv6");
}

/** The one way to write a host of the many that an IPv6 address has. */
export function canonical(host: string): string {
  if (!isIPv6(host)) return host.toLowerCase();
  return new URL(`http://[${host}]`).hostname.slice(1, -1);
}
