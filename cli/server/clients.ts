/**
 * The clients of a server: each is served, logged and counted.
 *
 * @module
 */

import type { Handler } from "../../handlers/handler.ts";
import { authority } from "../../lib/carrier/ip_address.ts";
import type { Channel } from "../../lib/mod.ts";
import { messageOf } from "../advice/errors.ts";
import type { Call } from "../entrance.ts";
import { Live } from "../live.ts";
import type { Log } from "./log.ts";
import { type Metrics, type Reason, reasonOf } from "./metrics.ts";
import { count } from "../terminal/words.ts";

/** An address as people write it; one that a box has named has no port. */
export function addressOf({ hostname, port }: Deno.NetAddr): string {
  return port === 0 ? hostname : authority(hostname, port);
}

/** Serves channels side by side. */
export class Clients {
  /** Those that have not ended. */
  readonly live: Live;

  readonly #log: Log;
  readonly #metrics: Metrics;

  /**
   * Both learn of each client.
   *
   * @param max How many clients and callers there may be at a time.
   */
  constructor(log: Log, metrics: Metrics, max?: number) {
    this.live = new Live(max);
    this.#log = log;
    this.#metrics = metrics;
  }

  /** Begins to serve a channel. */
  serve(channel: Channel, handler: Handler): void {
    this.live.add(async (signal) => {
      signal.addEventListener("abort", () => channel.abort(signal.reason));
      // The handler's first steps do not wait for the log.
      const handling = handler(channel, signal);
      await using _ = channel;
      await this.follow({ channel }, handling);
    });
  }

  /**
   * Logs and counts a client, or a caller, until the work is done.
   *
   * @param caller Where its caller came in, if it is one of this side.
   */
  async follow(
    call: Call,
    handling: Promise<void>,
    caller?: string,
  ): Promise<void> {
    const { identity, remoteAddr } = call.channel;
    const address = addressOf(remoteAddr as Deno.NetAddr);
    const start = performance.now();
    const called = caller === undefined ? "connected" : `called at ${caller}`;
    this.#log("connected", called, { address, identity, caller });
    this.#metrics.began(call);
    let reason: Reason = "end";
    let why = "end";
    try {
      await handling;
    } catch (error) {
      reason = reasonOf(error);
      why = `${reason} (${messageOf(error)})`;
    }
    const { bytesReceived, bytesSent } = call.channel;
    const seconds = Math.round(performance.now() - start) / 1000;
    this.#metrics.ended(call, reason);
    this.#log(
      "closed",
      `closed: ${count(bytesReceived, "byte")} in, ${bytesSent} out, ` +
        `${seconds} s, ${why}`,
      { address, identity, bytesReceived, bytesSent, seconds, reason },
    );
  }
}
