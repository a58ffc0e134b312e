/**
 * Addresses as text, in any runtime.
 *
 * @module
 */

/**
 * The one way to write an address: IPv6 as in RFC 5952, and an IPv4 address
 * mapped into IPv6 (RFC 4291, 2.5.5.2) as IPv4. Undefined if the text is not an
 * address, or has a zone.
 */
export function canonicalAddress(text: string): string | undefined {
  if (isIpv4(text)) return text;
  const address = canonicalIpv6(text);
  const mapped = /^::ffff:([\da-f]+):([\da-f]+)$/.exec(address ?? "");
  if (!mapped) return address;
  return mapped.slice(1).map((word) => {
    const value = parseInt(word, 16);
    return `${value >> 8}.${value & 0xff}`;
  }).join(".");
}

/** The same for an IPv6 address alone; one that is mapped stays IPv6. */
export function canonicalIpv6(text: string): string | undefined {
  if (!/^[\da-f.]*:[\da-f:.]+$/i.test(text)) return undefined;
  return hostOf(`[${text}]`)?.slice(1, -1);
}

/** A host and its port, as in a URL: IPv6 in brackets (RFC 3986, 3.2). */
export function authority(hostname: string, port: number): string {
  return `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

function isIpv4(text: string): boolean {
  return /^[\d.]*\d$/.test(text) && hostOf(text) === text;
}

/** A host as a URL writes it; undefined if it may not stand in one. */
function hostOf(text: string): string | undefined {
  const url = `http://${text}`;
  return URL.canParse(url) ? new URL(url).hostname : undefined;
}
