/** A connection in memory that takes whatever is written, unless it is held. */

import type { Transport } from "../lib/mod.ts";

/** One direction. */
class Flow {
  readonly chunks: Uint8Array[] = [];
  isEnded = false;
  isBroken = false;
  #changed = Promise.withResolvers<void>();

  end(): void {
    this.isEnded = true;
    this.changed();
  }

  async change(): Promise<void> {
    await this.#changed.promise;
  }

  changed(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

/** One end, as strict as a `Deno.Conn`. */
export class PipeEnd implements Transport {
  /** How long each write was. */
  readonly writes: number[] = [];
  /** How often it has been read. */
  reads = 0;
  isClosed = false;
  #hold: PromiseWithResolvers<void> | undefined;

  constructor(readonly incoming: Flow, readonly outgoing: Flow) {}

  /** No write completes from here on. */
  hold(): void {
    this.#hold ??= Promise.withResolvers();
  }

  /** They complete again. */
  release(): void {
    this.#hold?.resolve();
    this.#hold = undefined;
  }

  async read(p: Uint8Array): Promise<number | null> {
    this.reads++;
    while (true) {
      if (this.isClosed) throw new Deno.errors.BadResource();
      const [chunk] = this.incoming.chunks;
      if (chunk) {
        const part = chunk.subarray(0, p.length);
        p.set(part);
        if (part.length === chunk.length) this.incoming.chunks.shift();
        else this.incoming.chunks[0] = chunk.subarray(part.length);
        return part.length;
      }
      if (this.incoming.isEnded) return null;
      await this.incoming.change();
    }
  }

  async write(p: Uint8Array): Promise<number> {
    if (this.isClosed) throw new Deno.errors.BadResource();
    this.writes.push(p.length);
    await this.#hold?.promise;
    if (this.outgoing.isBroken) throw new Deno.errors.BrokenPipe();
    this.outgoing.chunks.push(p.slice());
    this.outgoing.changed();
    return p.length;
  }

  closeWrite(): Promise<void> {
    this.outgoing.end();
    return Promise.resolve();
  }

  close(): void {
    if (this.isClosed) throw new Deno.errors.BadResource();
    this.isClosed = true;
    this.incoming.isBroken = true;
    this.outgoing.end();
    this.incoming.changed();
  }
}

/** The two ends of a connection. */
export function pipe(): [PipeEnd, PipeEnd] {
  const [up, down] = [new Flow(), new Flow()];
  return [new PipeEnd(down, up), new PipeEnd(up, down)];
}

/** So many turns of the event loop are more than anything in memory takes. */
const TURNS = 50;

/** By then all that can happen in memory has happened. */
export async function settled(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve));
  for (let turn = 0; turn < TURNS; turn++) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}
