/**
 * The page's client: the library over the browser's WebSocket, or the WebSocket
 * alone.
 *
 * @module
 */

import { connectChannel, type Transport } from "../../../lib/mod.ts";
import { toTransport } from "../../../lib/lock/transport.ts";
import { webSocketPair } from "../../../lib/platform_websocket.ts";

/**
 * Connects to the server through the box.
 *
 * @param tab The tab's name, which is its identity.
 * @param psk Its key; null to do without the inner lock.
 */
export async function connect(
  tab: string,
  psk: string | null,
): Promise<Transport> {
  const lock = psk ? "inner" : "none";
  const pair = webSocketPair(openSocket(`/wire?tab=${tab}&lock=${lock}`));
  return psk
    ? await connectChannel(pair, { psk, identity: tab })
    : toTransport(pair);
}

/** A WebSocket to where the page is from. */
export function openSocket(path: string): WebSocket {
  const url = new URL(path, location.href);
  url.protocol = "ws:";
  return new WebSocket(url);
}

/** Sends a line. */
export async function say(transport: Transport, text: string): Promise<void> {
  await transport.write(new TextEncoder().encode(`${text}\n`));
}

/**
 * Shows what comes, until the server's end.
 *
 * @throws {ChannelError} If the connection fails; never without the inner lock.
 */
export async function listen(
  transport: Transport,
  show: (text: string) => void,
): Promise<void> {
  const buffer = new Uint8Array(65_536);
  const decoder = new TextDecoder();
  for (let count; (count = await transport.read(buffer)) !== null;) {
    show(decoder.decode(buffer.subarray(0, count), { stream: true }));
  }
}
