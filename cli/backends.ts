/**
 * What stands behind each service: `server --forward` and `client --expose`.
 *
 * @module
 */

import { type Address, parseAddress } from "../tunnel/address.ts";
import { UsageError } from "./advice/errors.ts";
import type { Args } from "./main.ts";

/** The backends by service; the default one has no name. */
export type Backends = Map<string | undefined, Address>;

/** Reads a flag's `[SERVICE=]HOST:PORT` or `[SERVICE=]unix:/path`. */
export function readBackends(args: Args, flag: "forward" | "expose"): Backends {
  const backends: Backends = new Map();
  for (const text of args.texts(flag)) {
    const [, service, to] = /^(?:([\w.-]+)=)?(.+)$/.exec(text)!;
    const address = parseAddress(to!);
    if (!address) {
      throw new UsageError(
        `--${flag} takes [SERVICE=]HOST:PORT or [SERVICE=]unix:/path, not ${text}`,
      );
    }
    if (backends.has(service)) {
      throw new UsageError(
        `--${flag} is given more than once ` +
          (service === undefined ? "without a service" : `for ${service}`),
      );
    }
    backends.set(service, address);
  }
  return backends;
}
