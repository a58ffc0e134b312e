/**
 * Carries a channel to a backend: any TCP or Unix socket service.
 *
 * @module
 */

import { type Address, format } from "../tunnel/address.ts";
import { relay } from "../tunnel/relay.ts";
import { connectSocket } from "../tunnel/socket.ts";
import type { Handler } from "./handler.ts";

/** Dials the backend anew for each channel. */
export function forward(backend: Address): Handler {
  return async (channel, signal) => {
    const gone = new AbortController();
    channel.closed.catch((error) => gone.abort(error));
    const socket = await connectSocket(backend, gone.signal);
    await relay(channel, socket, `The backend ${format(backend)}`, signal);
  };
}
