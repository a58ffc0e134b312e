/**
 * The receiving half of a session: frames are read in order, several are opened
 * at once, and what they say is delivered in order.
 *
 * @module
 */

import { type Bytes, SHORT_LENGTH } from "./aes_gcm.ts";
import { ChannelError } from "./errors.ts";
import type { FrameReader } from "./frame.ts";
import { Turns } from "./turns.ts";
import { free } from "./memory.ts";
import {
  messageType,
  MIN_MESSAGE_LENGTH,
  type Seal,
  Type,
  TYPE_LENGTH,
} from "./message.ts";

/** What a read costs that may have brought little: see {@linkcode Turns}. */
const FILL_COST = 1024;

/** How many frames may be read ahead of the data that was taken. */
const READ_AHEAD = 8;

/** Hears what is not data, in the order in which it came. */
export interface Listener {
  /** Another message. What it returns is awaited before the next. */
  control(type: Exclude<Type, 0>, plaintext: Bytes): void | Promise<void>;
  /** Data came. It throws if none may come now. */
  data(): void;
  /** Reading pauses until the data that came is taken. */
  deaf(): void;
  /** It is read again. */
  hearing(): void;
}

/** What waits for data. */
interface Waiting {
  p: Uint8Array;
  resolve: (count: number | null) => void;
  reject: (error: unknown) => void;
}

/** Opens one side's messages, only ever what was authentic. */
export class Receiver {
  readonly #frames: FrameReader;
  readonly #seal: Seal;
  readonly #listener: Listener;
  /** What has been opened and not been taken, in order. */
  readonly #bodies: Bytes[] = [];
  #taken = 0;
  /** How many frames have been read and not been dealt with. */
  #ahead = 0;
  readonly #turns = new Turns();
  #room: PromiseWithResolvers<void> | undefined;
  /** Resolves when the frames so far have been delivered, if some are not. */
  #delivered: Promise<void> | undefined;
  #waiting: Waiting | undefined;
  #hasEnded = false;
  /** What the peer gave the session up with, if it did. */
  #last: { error: unknown } | undefined;
  /** Why the connection broke, if it did. */
  #cause: unknown;
  #stopped: { reason: unknown } | undefined;

  /** Reads from `frames` once it {@linkcode Receiver.run}s. */
  constructor(frames: FrameReader, seal: Seal, listener: Listener) {
    this.#frames = frames;
    this.#seal = seal;
    this.#listener = listener;
  }

  /** How many bytes have been read. */
  get taken(): number {
    return this.#taken;
  }

  /**
   * Takes up to `p.length` bytes; their number, or null once the peer has ended
   * its direction.
   *
   * @throws What the session was stopped with.
   * @throws {TypeError} If another read is under way.
   */
  read(p: Uint8Array): Promise<number | null> {
    if (this.#stopped) return Promise.reject(this.#stopped.reason);
    if (this.#waiting) {
      return Promise.reject(
        new TypeError("Cannot read: another read is under way"),
      );
    }
    if (this.#bodies.length > 0) return Promise.resolve(this.#take(p));
    if (this.#hasEnded) return Promise.resolve(null);
    return new Promise((resolve, reject) => {
      this.#waiting = { p, resolve, reject };
    });
  }

  /** Reads no more from the peer: what came before can still be taken. */
  finish(error: unknown): void {
    this.#last ??= { error };
  }

  /** Takes nothing more: reads reject. */
  stop(reason: unknown): void {
    if (this.#stopped) return;
    this.#stopped = { reason };
    this.#bodies.length = 0;
    this.#waiting?.reject(reason);
    this.#waiting = undefined;
    this.#madeRoom();
  }

  /**
   * Receives until the connection ends. Resolves if the peer had ended its
   * direction before, or this has been stopped.
   *
   * @throws {ChannelError} `cut` if the peer had not, once all before has been
   * taken; `protocol` if a frame does not open, is malformed or is out of order:
   * at once, though data before it may not have been taken.
   */
  run(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#receive(reject).then(resolve, reject);
    });
  }

  async #receive(fail: (error: unknown) => void): Promise<void> {
    while (!this.#stopped && !this.#last) {
      if (this.#ahead >= READ_AHEAD) await this.#whenRoom(READ_AHEAD);
      const frame = this.#frames.take(MIN_MESSAGE_LENGTH);
      if (!frame) {
        try {
          if (await this.#frames.fill()) {
            const turn = this.#turns.spend(FILL_COST);
            if (turn) await turn;
            continue;
          }
        } catch (cause) {
          // A connection that breaks is cut, as one that ends before its time.
          this.#cause = cause;
        }
        break;
      }
      this.#ahead++;
      const turn = this.#turns.spend(frame.length);
      if (turn) await turn;
      const plaintext = this.#seal.open(frame);
      if (plaintext instanceof Promise || this.#delivered) {
        const mine: Promise<void> = this.#deliverAfter(
          this.#delivered,
          plaintext,
        ).finally(() => {
          if (this.#delivered === mine) this.#delivered = undefined;
        });
        mine.catch(fail);
        this.#delivered = mine;
      } else {
        const waits = this.#deliver(plaintext);
        if (waits) await waits;
      }
    }
    await this.#delivered;
    if (this.#stopped || (this.#hasEnded && !this.#last)) return;
    await this.#whenRoom(1);
    if (this.#last) throw this.#last.error;
    throw new ChannelError("cut", "The peer cut the connection", {
      cause: this.#cause,
    });
  }

  async #deliverAfter(
    before: Promise<void> | undefined,
    opening: Bytes | Promise<Bytes>,
  ): Promise<void> {
    const [plaintext] = await Promise.all([opening, before]);
    await this.#deliver(plaintext);
  }

  #deliver(plaintext: Bytes): void | Promise<void> {
    if (this.#stopped || this.#last) return;
    const type = messageType(plaintext);
    const isStream = type === Type.data || type === Type.end;
    if (isStream && this.#hasEnded) {
      throw new ChannelError("protocol", "The peer sent more after its end");
    }
    if (type === Type.data) {
      this.#listener.data();
      this.#bodies.push(plaintext.subarray(TYPE_LENGTH));
      return this.#serve();
    }
    this.#leave();
    const waits = this.#listener.control(type, plaintext);
    if (type === Type.end) {
      this.#hasEnded = true;
      this.#serve();
    }
    return waits;
  }

  /** Gives whoever waits what there is. */
  #serve(): void {
    const waiting = this.#waiting;
    if (!waiting) return;
    this.#waiting = undefined;
    waiting.resolve(this.#bodies.length > 0 ? this.#take(waiting.p) : null);
  }

  #take(p: Uint8Array): number {
    const body = this.#bodies[0]!;
    const count = Math.min(p.length, body.length);
    this.#taken += count;
    if (count < body.length) {
      p.set(body.subarray(0, count));
      this.#bodies[0] = body.subarray(count);
      return count;
    }
    p.set(body);
    this.#bodies.shift();
    // What is longer came from WebCrypto, in a buffer of its own.
    if (count > SHORT_LENGTH) free(body);
    this.#leave();
    return count;
  }

  /** One that was read has been dealt with. */
  #leave(): void {
    this.#ahead--;
    this.#madeRoom();
  }

  /** Waits until fewer frames than that have been read and not taken. */
  async #whenRoom(count: number): Promise<void> {
    this.#listener.deaf();
    while (this.#ahead >= count && !this.#stopped) {
      this.#room = Promise.withResolvers();
      await this.#room.promise;
    }
    if (!this.#stopped) this.#listener.hearing();
  }

  #madeRoom(): void {
    this.#room?.resolve();
    this.#room = undefined;
  }
}
