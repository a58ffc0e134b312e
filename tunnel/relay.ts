/**
 * Carries a plain connection over a channel.
 *
 * @module
 */

import { abortable } from "@std/async/abortable";
import { once } from "node:events";
import type { Socket } from "node:net";
import { type Channel, ChannelError } from "../lib/mod.ts";
import { SocketError } from "./socket.ts";

/**
 * Carries both directions between a channel and a socket, until both have ended.
 *
 * Each direction ends by itself. If either side breaks, the other is broken too:
 * a channel is aborted, a socket is reset, so that no cut passes for an end.
 *
 * @param name What the socket is, for the error.
 * @param signal Breaks both. To abort the channel does the same only while it
 * is open: it may have ended while the socket still has to take the last of it.
 * @throws {ChannelError} If the channel broke.
 * @throws {SocketError} If the socket broke.
 */
export async function relay(
  channel: Channel,
  socket: Socket,
  name: string,
  signal: AbortSignal,
): Promise<void> {
  const broken = Promise.withResolvers<never>();
  broken.promise.catch(() => {});
  socket.on("error", (cause) => {
    const why = `${name} broke the connection: ${cause.message}`;
    broken.reject(new SocketError(why, { cause }));
  });
  try {
    const carried = Promise.all([
      toChannel(socket, channel),
      toSocket(channel, socket),
      channel.closed,
    ]);
    await abortable(Promise.race([carried, broken.promise]), signal);
  } catch (error) {
    channel.abort(
      new ChannelError("aborted", `${name} broke the connection`),
    );
    socket.resetAndDestroy();
    throw error;
  }
}

async function toChannel(socket: Socket, channel: Channel): Promise<void> {
  const writer = channel.writable.getWriter();
  // What it rejects with is told by the writes.
  writer.closed.catch(() => {});
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    await writer.write(chunk);
  }
  await writer.close();
}

async function toSocket(channel: Channel, socket: Socket): Promise<void> {
  for await (const chunk of channel.readable) {
    if (!socket.write(chunk)) await once(socket, "drain");
  }
  socket.end();
  await once(socket, "finish");
}
