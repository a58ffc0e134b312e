/** Both ends of a channel, in memory. */

import {
  acceptChannel,
  type Channel,
  type ClientOptions,
  connectChannel,
  type StreamPair,
  type Transport,
} from "../lib/mod.ts";
import { duplex, PSK } from "./duplex.ts";
import { pipe } from "./pipe.ts";

type Duplex = Transport | StreamPair;

/** The client's end, and the server's once the stream has begun. */
export async function channelPair(
  options: Pick<ClientOptions, "standby"> = {},
  [near, far]: [Duplex, Duplex] = pipe(),
): Promise<{ client: Channel; server: Promise<Channel> }> {
  const server = acceptChannel(far, { psk: PSK });
  server.catch(() => {});
  const client = await connectChannel(near, { psk: PSK, ...options });
  return { client, server };
}

/** The two ends of a channel that is open, over a pipe that takes all. */
export async function openPair(): Promise<[Channel, Channel]> {
  const { client, server } = await channelPair();
  return [client, await server];
}

/** The same over streams, which take only so much. */
export async function narrowPair(): Promise<[Channel, Channel]> {
  const { client, server } = await channelPair({}, duplex());
  return [client, await server];
}
