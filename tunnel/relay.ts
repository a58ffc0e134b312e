/**
 * Carries a plain connection over a channel.
 *
 * @module
 */

import { abortable } from "@std/async/abortable";
import type { Channel, Transport } from "../lib/mod.ts";
import { PlainError } from "./plain.ts";
import type { Resettable } from "./resettable.ts";

/** A buffer of a direction that says little, in bytes. */
const IDLE_BUFFER = 4 * 1024;

/** One of a direction that says much: what a write takes at most. */
const BUSY_BUFFER = 64 * 1024;

/** A read, which may have begun before anybody carries what it brings. */
export class Source {
  readonly #from: Pick<Transport, "read">;
  #buffer = new Uint8Array(IDLE_BUFFER);
  #next: Promise<Uint8Array | null> | undefined;

  /** Reads from one that nobody else reads. */
  constructor(from: Pick<Transport, "read">) {
    this.#from = from;
  }

  /** What comes next; the same until it is {@linkcode Source.take}n. */
  peek(): Promise<Uint8Array | null> {
    return this.#next ??= this.#read();
  }

  /** What comes next, valid until the next call; null at the end. */
  take(): Promise<Uint8Array | null> {
    const next = this.peek();
    this.#next = undefined;
    return next;
  }

  async #read(): Promise<Uint8Array | null> {
    const buffer = this.#buffer;
    const count = await this.#from.read(buffer);
    if (count === buffer.length && count < BUSY_BUFFER) {
      this.#buffer = new Uint8Array(BUSY_BUFFER);
    }
    return count === null ? null : buffer.subarray(0, count);
  }
}

/** A plain end broke its connection. */
export function broken(name: string, cause: unknown): PlainError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new PlainError(`${name} broke the connection: ${why}`, { cause });
}

/** What is carried, and by what it is told. */
export interface Ends {
  channel: Channel;
  plain: Resettable;
  /** What the plain end is called, for errors. */
  name: string;
  /** What the plain end says, where it is being read already. */
  fromPlain?: Source;
  /** What the channel says, likewise. */
  fromChannel?: Source;
}

/**
 * Carries both directions between a channel and a plain connection, until both
 * have ended.
 *
 * Each direction ends by itself. If either side breaks, the other is broken too:
 * a channel is aborted, a connection is reset, so that no cut passes for an end.
 *
 * @param signal Breaks both. To abort the channel does the same only while it
 * is open: it may have ended while the connection still has to take the last of it.
 * @throws {ChannelError} If the channel broke.
 * @throws {PlainError} If the connection broke.
 */
export async function relay(ends: Ends, signal: AbortSignal): Promise<void> {
  const { channel, plain, name } = ends;
  const { fromPlain = new Source(plain), fromChannel = new Source(channel) } =
    ends;
  const broke = (cause: unknown) => {
    throw broken(name, cause);
  };
  const up = async () => {
    for (let bytes; (bytes = await fromPlain.take().catch(broke));) {
      await channel.write(bytes);
    }
    await channel.closeWrite();
  };
  const down = async () => {
    for (let bytes; (bytes = await fromChannel.take());) {
      while (bytes.length > 0) {
        bytes = bytes.subarray(await plain.write(bytes).catch(broke));
      }
    }
    await plain.closeWrite().catch(broke);
  };
  try {
    const carried = Promise.all([up(), down(), channel.closed]);
    await abortable(carried, signal);
    plain.close();
  } catch (error) {
    channel.abort(error);
    plain.reset();
    throw error;
  }
}
