/**
 * The box in the middle, behind the point where TLS has ended: it has the bytes
 * of both directions, and no key.
 *
 * @module
 */

import { encodeFrames, FrameReader } from "../../lib/lock/frame.ts";
import {
  closeQuietly,
  type Transport,
  writeAll,
} from "../../lib/lock/transport.ts";
import type { Act, Direction, Frame } from "./events.ts";

/** That each frame ends in a tag of AES-GCM, anybody can read in the protocol. */
const TAG_LENGTH = 16;

const CHUNK_LENGTH = 65_536;

type Bytes = Uint8Array<ArrayBuffer>;

/** A frame at the box, as the page is told of it. */
type SeenFrame = Omit<Frame, "type" | "tab" | "id">;

/** Whoever watches the box. */
interface Watcher {
  /** A frame is there; it goes on when this resolves. */
  frame(seen: SeenFrame): Promise<void>;
  /** The server has closed the connection; so does the box when this resolves. */
  closed(): Promise<void>;
  /** The box has cut the connection. */
  cut(): void;
}

/** The box as one client meets it, on one connection after another. */
export class Box {
  readonly #watcher: Watcher;
  #armed: { act: Act; to: Direction } | undefined;
  #ends: Transport[] = [];

  constructor(watcher: Watcher) {
    this.#watcher = watcher;
  }

  /** Does this to the next frame that goes there; null for nothing. */
  arm(act: Act | null, to: Direction): void {
    this.#armed = act ? { act, to } : undefined;
  }

  /**
   * Ends both connections in good order, as whoever ends TLS can do: close_notify
   * is theirs to send.
   */
  cut(): void {
    if (this.#ends.length === 0) return;
    this.#watcher.cut();
    const ends = this.#ends;
    this.#ends = [];
    for (const end of ends) end.closeWrite().catch(() => {});
  }

  /** Drops the connection, if there is one. */
  close(): void {
    this.#ends.forEach(closeQuietly);
    this.#ends = [];
  }

  /**
   * Carries a connection until it is over.
   *
   * @param sealed Whether frames of `innerlock/1` travel, or plain text: the box
   * would see that at the first byte.
   * @param served Resolves when the server is done with the connection.
   */
  async carry(
    client: Transport,
    server: Transport,
    sealed: boolean,
    served: Promise<void>,
  ): Promise<void> {
    this.close();
    const ends = this.#ends = [client, server];
    try {
      await Promise.all([
        this.#pass(client, server, "server", sealed),
        this.#pass(server, client, "client", sealed),
      ]);
    } catch {
      closeQuietly(server);
      await served;
      if (this.#ends === ends) await this.#watcher.closed();
    } finally {
      ends.forEach(closeQuietly);
      if (this.#ends === ends) this.#ends = [];
    }
  }

  async #pass(
    source: Transport,
    target: Transport,
    to: Direction,
    sealed: boolean,
  ): Promise<void> {
    const next = sealed ? frames(source) : chunks(source);
    for (let bytes; (bytes = await next());) {
      const act = this.#take(to);
      const at = Math.max(0, bytes.length - 2 - (sealed ? TAG_LENGTH : 0));
      const hex = bytes.toHex();
      if (act === "flip") bytes[at]! ^= 1;
      await this.#watcher.frame({
        to,
        hex,
        text: readText(bytes),
        act,
        flipped: act === "flip"
          ? { at, hex: bytes.subarray(at, at + 1).toHex() }
          : null,
      });
      const packet = sealed ? encodeFrames([bytes]) : bytes;
      const copies = act === "drop" ? 0 : act === "repeat" ? 2 : 1;
      for (let i = 0; i < copies; i++) await writeAll(target, packet);
    }
    await target.closeWrite();
  }

  #take(to: Direction): Act | null {
    if (this.#armed?.to !== to) return null;
    const { act } = this.#armed;
    this.#armed = undefined;
    return act;
  }
}

function frames(source: Transport): () => Promise<Bytes | null> {
  const reader = new FrameReader(source);
  return async () => (await reader.next(0))?.slice() ?? null;
}

function chunks(source: Transport): () => Promise<Bytes | null> {
  return async () => {
    const buffer = new Uint8Array(CHUNK_LENGTH);
    const count = await source.read(buffer);
    return count === null ? null : buffer.subarray(0, count);
  };
}

/** The bytes as text, if all of them are. */
function readText(bytes: Bytes): string | null {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return /^[^\p{Cc}\p{Cn}]+\n?$/u.test(text) ? text : null;
  } catch {
    return null;
  }
}
