/**
 * Channels that clients have offered: they wait until somebody on the listener's
 * side calls.
 *
 * @module
 */

import type { Channel } from "./lock/channel.ts";

/** One who waits for a channel. */
type Waiting = (channel: Channel) => void;

/** Keeps what is offered by identity, the longest idle first. */
export class Offers {
  readonly #idle = new Map<string, Set<Channel>>();
  readonly #waiting = new Map<string, Set<Waiting>>();

  /** Gives a channel to whoever has waited longest, or keeps it. */
  add(channel: Channel): void {
    const { identity } = channel;
    const [first] = this.#waiting.get(identity) ?? [];
    if (first) return first(channel);
    addTo(this.#idle, identity, channel);
    const remove = () => removeFrom(this.#idle, identity, channel);
    // One that is given up fails before it has closed.
    channel.opened.then(remove, remove);
  }

  /**
   * Takes the channel that this identity has offered and that has been idle for
   * longest, or the next one that it offers.
   *
   * @throws The signal's reason once it is aborted.
   */
  async take(identity: string, signal?: AbortSignal): Promise<Channel> {
    signal?.throwIfAborted();
    const [idle] = this.#idle.get(identity) ?? [];
    if (idle) {
      removeFrom(this.#idle, identity, idle);
      return idle;
    }
    const { promise, resolve, reject } = Promise.withResolvers<Channel>();
    const take = (channel: Channel) => {
      removeFrom(this.#waiting, identity, take);
      resolve(channel);
    };
    const onAbort = () => {
      removeFrom(this.#waiting, identity, take);
      reject(signal!.reason);
    };
    addTo(this.#waiting, identity, take);
    signal?.addEventListener("abort", onAbort);
    try {
      return await promise;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }
}

function addTo<T>(map: Map<string, Set<T>>, key: string, value: T): void {
  const values = map.get(key);
  if (values) values.add(value);
  else map.set(key, new Set([value]));
}

function removeFrom<T>(map: Map<string, Set<T>>, key: string, value: T): void {
  const values = map.get(key);
  if (values?.delete(value) && values.size === 0) map.delete(key);
}
