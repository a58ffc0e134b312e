/**
 * Logs the handshakes that failed. Whoever has not proved a key cannot flood the
 * log.
 *
 * @module
 */

import { CLOCK, type Clock, type Timer } from "../../lib/lock/clock.ts";
import { addressOf } from "./clients.ts";
import type { Log } from "./log.ts";
import type { Reason } from "./metrics.ts";

/** How long repeated refusals are counted together, in milliseconds. */
const WINDOW = 10_000;

/** How many of a kind are logged one by one within that time. */
const TOLD_EACH = 5;

/** How many hosts are told apart within that time. */
const MAX_HOSTS = 20;

/** Refusals for one reason, of one host or of all that are not told apart. */
interface Kind {
  host?: string;
  reason: Reason;
  /** How many there were. */
  count: number;
  /** How many of them were told one by one. */
  told: number;
}

/**
 * Logs the first refusals of each host and reason one by one, and counts the
 * others, every ten seconds.
 */
export class Refusals {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #kinds = new Map<string, Kind>();
  readonly #hosts = new Set<string>();
  #timer: Timer | undefined;

  /**
   * @param log Where they are logged.
   * @param clock Stands in for time in tests.
   */
  constructor(log: Log, clock: Clock = CLOCK) {
    this.#log = log;
    this.#clock = clock;
  }

  /** A handshake with this peer failed. */
  add(peer: Deno.NetAddr, reason: Reason, message: string): void {
    this.#timer ??= this.#clock.after(WINDOW, () => this.tellRepeated());
    const kind = this.#kindOf(peer.hostname, reason);
    kind.count++;
    if (kind.host === undefined || kind.told === TOLD_EACH) return;
    kind.told++;
    const address = addressOf(peer);
    const text = `not let in: ${reason} (${message})`;
    this.#log("refused", text, { address, reason });
  }

  /** Logs how many there were beyond those logged one by one. */
  tellRepeated(): void {
    this.#clock.clear(this.#timer);
    this.#timer = undefined;
    for (const { host, reason, count, told } of this.#kinds.values()) {
      const more = count - told;
      if (more === 0) continue;
      const from = host === undefined ? " from other addresses" : "";
      const text = `not let in: ${more} more${from}, ${reason}`;
      const address = host !== undefined && { address: host };
      this.#log("refused", text, { ...address, reason, count: more });
    }
    this.#kinds.clear();
    this.#hosts.clear();
  }

  #kindOf(host: string, reason: Reason): Kind {
    const isKnown = this.#hosts.has(host) || this.#hosts.size < MAX_HOSTS;
    if (isKnown) this.#hosts.add(host);
    const key = isKnown ? `${reason} ${host}` : reason;
    const kind = this.#kinds.get(key) ??
      { ...(isKnown && { host }), reason, count: 0, told: 0 };
    this.#kinds.set(key, kind);
    return kind;
  }
}
