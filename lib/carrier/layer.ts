/**
 * A transport on top of another.
 *
 * @module
 */

import type { Addr, Transport } from "../lock/transport.ts";

/**
 * Reads in its own way, and does what the transport beneath does except where a
 * subclass says otherwise.
 */
export abstract class Layer implements Transport {
  /** The peer's address, if the transport beneath has one. */
  readonly remoteAddr?: Addr;
  /** This side's address, if the transport beneath has one. */
  readonly localAddr?: Addr;

  /** What it is on top of. */
  protected readonly beneath: Transport;

  constructor(beneath: Transport) {
    this.beneath = beneath;
    const { remoteAddr, localAddr } = beneath;
    if (remoteAddr) this.remoteAddr = remoteAddr;
    if (localAddr) this.localAddr = localAddr;
  }

  abstract read(p: Uint8Array): Promise<number | null>;

  write(p: Uint8Array): Promise<number> {
    return this.beneath.write(p);
  }

  closeWrite(): Promise<void> {
    return this.beneath.closeWrite();
  }

  close(): void {
    this.beneath.close();
  }
}
