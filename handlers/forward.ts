/**
 * Carries a channel to a backend: any TCP or Unix socket service.
 *
 * @module
 */

import { type Address, format } from "../tunnel/address.ts";
import { connectPlain } from "../tunnel/plain.ts";
import { relay } from "../tunnel/relay.ts";
import type { Handler } from "./handler.ts";

/** Dials the backend anew for each channel. */
export function forward(backend: Address): Handler {
  return async (channel, signal) => {
    const gone = new AbortController();
    channel.closed.catch((error) => gone.abort(error));
    const plain = await connectPlain(backend, gone.signal);
    const name = `The backend ${format(backend)}`;
    await relay({ channel, plain, name }, signal);
  };
}
