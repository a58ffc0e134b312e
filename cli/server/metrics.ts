/**
 * What a server tells OpenTelemetry, through Deno's own support: nothing unless
 * `OTEL_DENO=true` is set.
 *
 * @module
 */

import { metrics } from "@opentelemetry/api";
import { X509Certificate } from "node:crypto";
import { ChannelError, type ChannelErrorCode } from "../../lib/mod.ts";
import type { Call } from "../entrance.ts";

/**
 * Why a client left, or was never let in. `failed` means that a handler did.
 */
export type Reason = "end" | ChannelErrorCode | "failed";

/** The reason that an error is. */
export function reasonOf(error: unknown): Reason {
  return error instanceof ChannelError ? error.code : "failed";
}

/** Counts channels, bytes and handshakes. */
export class Metrics {
  readonly #live = new Set<Call>();
  #bytesOfEnded = { received: 0, sent: 0 };
  readonly #meter = metrics.getMeter("innerlock");
  readonly #channels = this.#meter.createCounter("innerlock.channels", {
    description: "Channels that have ended, by reason",
  });
  readonly #refused = this.#meter.createCounter("innerlock.refused", {
    description: "Handshakes that failed, by reason",
  });
  readonly #handshakes = this.#meter.createHistogram(
    "innerlock.handshake.duration",
    { description: "Time of the handshakes that succeeded", unit: "s" },
  );

  /** The certificate in use; undefined without TLS. */
  certificate: string | undefined;

  /** Begins to measure. */
  constructor() {
    this.#meter.createObservableUpDownCounter("innerlock.channels.live", {
      description: "Live channels",
    }).addCallback((result) => result.observe(this.#live.size));
    this.#meter.createObservableGauge("innerlock.certificate.expiry", {
      description: "When the certificate expires, in Unix time",
      unit: "s",
    }).addCallback((result) => {
      if (this.certificate === undefined) return;
      const { validToDate } = new X509Certificate(this.certificate);
      result.observe(validToDate.getTime() / 1000);
    });
    this.#meter.createObservableCounter("innerlock.bytes", {
      description: "Bytes of data, by direction",
      unit: "By",
    }).addCallback((result) => {
      let { received, sent } = this.#bytesOfEnded;
      for (const { channel } of this.#live) {
        received += channel.bytesReceived;
        sent += channel.bytesSent;
      }
      result.observe(received, { direction: "received" });
      result.observe(sent, { direction: "sent" });
    });
  }

  /** A handshake succeeded; `duration` is in milliseconds. */
  accepted(duration: number): void {
    this.#handshakes.record(duration / 1000);
  }

  /** A handshake failed. */
  refused(reason: Reason): void {
    this.#refused.add(1, { reason });
  }

  /** A channel's session has begun. */
  began(call: Call): void {
    this.#live.add(call);
  }

  /** A channel's session has ended. */
  ended(call: Call, reason: Reason): void {
    this.#live.delete(call);
    this.#bytesOfEnded.received += call.channel.bytesReceived;
    this.#bytesOfEnded.sent += call.channel.bytesSent;
    this.#channels.add(1, { reason });
  }
}
