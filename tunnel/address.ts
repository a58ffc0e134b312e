/**
 * Where a tunnel's end is: a TCP port or a Unix socket.
 *
 * @module
 */

import { authority } from "../lib/carrier/ip_address.ts";

/** A TCP port of a host, or a Unix socket's path. */
export type Address = { host: string; port: number } | { path: string };

const HOST_AND_PORT = /^(?:(?<host>[^:\s]+|\[[^\]\s]+\]):)?(?<port>\d{1,5})$/;

/**
 * Parses `HOST:PORT`, `[IPv6]:PORT` or `unix:/path`.
 *
 * @param defaultHost For an address to listen on: its host may be left out, and
 * its port may be 0, which takes a free one.
 * @returns The address, or undefined if the text is none.
 */
export function parseAddress(
  text: string,
  defaultHost?: string,
): Address | undefined {
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    return path === "" ? undefined : { path };
  }
  const { host, port } = HOST_AND_PORT.exec(text)?.groups ?? {};
  const name = host?.replace(/^\[(.*)\]$/, "$1") ?? defaultHost;
  if (name === undefined || port === undefined) return undefined;
  const lowest = defaultHost === undefined ? 1 : 0;
  const isPort = Number(port) >= lowest && Number(port) <= 65_535;
  return isPort ? { host: name, port: Number(port) } : undefined;
}

/** Writes an address as {@linkcode parseAddress} reads it. */
export function format(address: Address): string {
  if ("path" in address) return `unix:${address.path}`;
  return authority(address.host, address.port);
}
