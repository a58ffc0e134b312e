/** Pairs of channels for tests, and what one does with them. */

import { assertEquals, assertRejects } from "@std/assert";
import {
  acceptChannel,
  type Channel,
  ChannelError,
  type ClientOptions,
  connectChannel,
  type StreamPair,
  type Transport,
} from "../lib/mod.ts";
import { duplex, PSK } from "./duplex.ts";

/** The two ends of a channel: the client's, then the server's. */
export async function channels(
  [near, far]: [Transport | StreamPair, Transport | StreamPair] = duplex(),
  options: Partial<ClientOptions> = {},
  servers: Partial<ClientOptions> = options,
): Promise<[Channel, Channel]> {
  return await Promise.all([
    connectChannel(near, { psk: PSK, ...options }),
    acceptChannel(far, { psk: PSK, ...servers }),
  ]);
}

export async function bytesOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>) {
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export function random(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i += 65_536) {
    crypto.getRandomValues(bytes.subarray(i, i + 65_536));
  }
  return bytes;
}

export async function send(
  channel: Channel,
  chunks: Uint8Array[],
): Promise<void> {
  await ReadableStream.from(chunks).pipeTo(channel.writable);
}

/** Ends what has been written: a test leaves nothing under way. */
export async function endAll(...channels: Channel[]): Promise<void> {
  await Promise.all(channels.flatMap(({ readable, writable }) => [
    writable.locked ? undefined : writable.close(),
    readable.locked ? undefined : readable.pipeTo(new WritableStream()),
  ]));
  await Promise.all(channels.map(({ closed }) => closed));
}

export async function assertFails(promise: Promise<unknown>, code: string) {
  const error = await assertRejects(() => promise, ChannelError);
  assertEquals(error.code, code);
}
