/**
 * Bounds what a peer may do before it has proved its key.
 *
 * @module
 */

import { ChannelError } from "../lock/errors.ts";
import { Layer } from "./layer.ts";
import { nextTurn } from "../lock/runtime.ts";
import { Turns } from "../lock/turns.ts";
import type { Transport } from "../lock/transport.ts";

/**
 * How much a peer may say, in bytes: the head of an HTTP message, the body of a
 * request that is refused, and more of a WebSocket's frames than a handshake
 * needs, each cut into single bytes.
 */
export const MAX_UNPROVED = 32 * 1024;

/** The transport of a peer that has not proved its key yet. */
export class UnprovedTransport extends Layer {
  readonly #peer: string;
  #isProved = false;
  #left = MAX_UNPROVED;
  readonly #turns = new Turns();

  /** @param peer The subject of an error's message, such as `The client`. */
  constructor(transport: Transport, peer: string) {
    super(transport);
    this.#peer = peer;
  }

  /** From here on nothing is bounded. */
  proved(): void {
    this.#isProved = true;
  }

  /**
   * As the transport reads.
   *
   * @throws {ChannelError} `protocol` if the peer says too much.
   */
  override read(p: Uint8Array): Promise<number | null> {
    return this.#isProved ? this.beneath.read(p) : this.#read(p);
  }

  async #read(p: Uint8Array): Promise<number | null> {
    const isFull = this.#left === 0;
    await (isFull ? nextTurn() : this.#turns.spend(0));
    // In this turn, whoever has seen the proof has said so.
    if (this.#isProved) return await this.beneath.read(p);
    if (isFull) {
      const what = `${MAX_UNPROVED} bytes and had not proved its key`;
      throw new ChannelError("protocol", `${this.#peer} sent ${what}`);
    }
    const count = await this.beneath.read(p.subarray(0, this.#left));
    if (count !== null) this.#left -= count;
    return count;
  }
}
