/**
 * `client --expose`: what the client offers to the server's callers.
 *
 * @module
 */

import { forward } from "../../handlers/forward.ts";
import type { Handler } from "../../handlers/handler.ts";
import { ChannelError } from "../../lib/mod.ts";
import type { Address } from "../../tunnel/address.ts";
import { Reserve, type ReserveOptions } from "../../tunnel/reserve.ts";
import type { Live } from "../live.ts";

/** What carries the server's callers. */
interface ExposeOptions
  extends Pick<ReserveOptions, "dial" | "report" | "ready" | "max" | "dials"> {
  backend: Address;
  /** Gets those that are carried, and has places for them. */
  live: Live;
  /** Is told why one was not carried to its end. */
  complain: (error: Error) => void;
}

/** Keeps sessions offered, and carries each that the server begins. */
export function expose(
  { backend, live, complain, ...options }: ExposeOptions,
): Reserve {
  const handler = forward(backend);
  const carry: Handler = async (channel, signal) => {
    await using _ = channel;
    try {
      await handler(channel, signal);
    } catch (error) {
      if (!signal.aborted) complain(error as Error);
    }
  };
  return new Reserve({
    ...options,
    places: live,
    serve: (channel) => {
      // Others have taken the place for which it was offered.
      if (live.free === 0) {
        const message = "The client has no room for another caller";
        return channel.abort(new ChannelError("limit", message));
      }
      live.add((signal) => {
        signal.addEventListener("abort", () => {
          channel.abort(new ChannelError("stopping", "The client stopped"));
        });
        return carry(channel, signal);
      });
    },
  });
}
