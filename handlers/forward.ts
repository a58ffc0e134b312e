/**
 * Carries a channel to a backend: any TCP or Unix socket service.
 *
 * @module
 */

import { type Channel, ChannelError } from "../lib/mod.ts";
import { type Address, format } from "../tunnel/address.ts";
import { connectPlain, PlainError } from "../tunnel/plain.ts";
import { relay } from "../tunnel/relay.ts";
import type { Resettable } from "../tunnel/resettable.ts";
import type { Handler } from "./handler.ts";

/**
 * Dials the backend anew for each channel. If it cannot be reached, or breaks
 * its connection, the client is told so.
 */
export function forward(backend: Address): Handler {
  return async (channel, signal) => {
    const plain = await reach(backend, channel);
    const name = `The backend ${format(backend)}`;
    await relay({ channel, plain, name, failure: "backend" }, signal);
  };
}

async function reach(backend: Address, channel: Channel): Promise<Resettable> {
  const gone = new AbortController();
  channel.closed.catch((error) => gone.abort(error));
  try {
    return await connectPlain(backend, gone.signal);
  } catch (cause) {
    if (!(cause instanceof PlainError)) throw cause;
    const error = new ChannelError("backend", cause.message, { cause });
    channel.abort(error);
    throw error;
  }
}
