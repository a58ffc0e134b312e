/**
 * `client --expose`: what the client offers to the server's callers.
 *
 * @module
 */

import { forward } from "../../handlers/forward.ts";
import type { Channel } from "../../lib/mod.ts";
import { ChannelError } from "../../lib/mod.ts";
import { type Address, parseAddress } from "../../tunnel/address.ts";
import { Reserve, type ReserveOptions } from "../../tunnel/reserve.ts";
import { UsageError } from "../advice/errors.ts";
import type { Live } from "../live.ts";

/** A backend of this machine's, and the service that it is offered as. */
export interface Exposure {
  service: string | undefined;
  backend: Address;
}

/** `[SERVICE=]HOST:PORT` or `[SERVICE=]unix:/path`, each service once. */
export function parseExposures(texts: string[]): Exposure[] {
  const exposures = texts.map((text) => {
    const [, service, to] = /^(?:([\w.-]+)=)?(.+)$/.exec(text)!;
    const backend = parseAddress(to!);
    if (backend) return { service, backend };
    throw new UsageError(
      `--expose takes [SERVICE=]HOST:PORT or [SERVICE=]unix:/path, not ${text}`,
    );
  });
  const services = exposures.map(({ service }) => service);
  const twice = services.find((one, i) => services.indexOf(one) !== i);
  if (new Set(services).size === services.length) return exposures;
  throw new UsageError(
    "--expose is given more than once " +
      (twice === undefined ? "without a service" : `for ${twice}`),
  );
}

/** What carries the server's callers. */
export interface ExposeOptions
  extends Pick<ReserveOptions, "dial" | "report" | "ready" | "max" | "dials"> {
  backend: Address;
  /** Gets those that are being carried. */
  live: Live;
  /** Is told why one was not carried to its end. */
  complain: (error: Error) => void;
}

/** Keeps sessions offered, and carries each that the server begins. */
export function expose(
  { backend, live, complain, ...options }: ExposeOptions,
): Reserve {
  const handler = forward(backend);
  const carry = async (channel: Channel, signal: AbortSignal) => {
    await using _ = channel;
    try {
      await handler(channel, signal);
    } catch (error) {
      if (!signal.aborted) complain(error as Error);
    }
  };
  return new Reserve({
    ...options,
    serve: (channel) => {
      const stop = new AbortController();
      live.add(carry(channel, stop.signal), () => {
        const error = new ChannelError("stopping", "The client stopped");
        channel.abort(error);
        stop.abort(error);
      });
    },
  });
}
