/**
 * The receiving half of a session.
 *
 * A frame's way, from the transport to whoever reads:
 *
 * 1. Its bytes are read into the frame reader's buffer. One read is under way at a
 *    time. Reading stops while eight frames have not been dealt with, and after
 *    each 16 KiB others have their turn.
 * 2. It is opened, where it stands if the engine can. The nonce is taken here, in
 *    order. An engine that is not synchronous opens up to eight side by side.
 * 3. It is delivered, in order: data to whoever waits, or else it is kept; all
 *    other messages to the session, which may pause this step.
 * 4. Data is copied once, into the buffer of whoever reads. Then there is room for
 *    another frame.
 *
 * @module
 */

import { type Bytes, SHORT_LENGTH } from "./aes_gcm.ts";
import { ChannelError } from "./errors.ts";
import type { FrameReader } from "./frame.ts";
import { free } from "./memory.ts";
import {
  messageType,
  MIN_MESSAGE_LENGTH,
  type Seal,
  Type,
  TYPE_LENGTH,
} from "./message.ts";
import { nextTurn, withResolvers } from "./runtime.ts";
import { Turns } from "./turns.ts";

/** How many frames may be read ahead of the data that was taken. */
const READ_AHEAD = 8;

/** Hears of each message, in the order in which they came. */
export interface Hearer {
  /** Another message. Until what it returns resolves, nothing is delivered. */
  control(type: Exclude<Type, 0>, plaintext: Bytes): void | Promise<void>;
  /** Data came. It throws if none may come now. */
  data(): void;
  /** Reading pauses until the data that came is taken, or goes on. */
  deaf(isDeaf: boolean): void;
}

/** A message that has been read, perhaps opened, and not been dealt with. */
interface Message {
  plaintext: Bytes | undefined;
  /** Whether the plaintext stands in the frame reader's buffer. */
  isInPlace: boolean;
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
  readonly #hearer: Hearer;
  readonly #turns = new Turns();
  readonly #over = withResolvers<void>();
  /** What is being opened, or waits for what came before, in order. */
  readonly #opening: Message[] = [];
  /** Data that has been delivered and not been taken, in order. */
  readonly #kept: Message[] = [];
  #taken = 0;
  /** Whether the hearer has asked to wait. */
  #isPaused = false;
  /** Of reading, while it waits for some frames to be dealt with. */
  #progress: PromiseWithResolvers<void> | undefined;
  #waiting: Waiting | undefined;
  #hasEnded = false;
  /** What its last message meant, the peer's bye or a fault. */
  #last: { error: unknown } | undefined;
  /** The loop that reads. */
  #receiving: Promise<unknown> | undefined;
  #stopped: { reason: unknown } | undefined;

  /** Reads from `frames` once it {@linkcode Receiver.run}s. */
  constructor(frames: FrameReader, seal: Seal, hearer: Hearer) {
    this.#frames = frames;
    this.#seal = seal;
    this.#hearer = hearer;
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
    const [first] = this.#kept;
    if (first) return Promise.resolve(this.#takeKept(first, p));
    if (this.#hasEnded) return Promise.resolve(null);
    return new Promise((resolve, reject) => {
      this.#waiting = { p, resolve, reject };
    });
  }

  /**
   * Reads no more from the peer, and drops what is being opened: what came before
   * can still be taken.
   */
  finish(error: unknown): void {
    this.#last ??= { error };
    this.#opening.length = 0;
    this.#advance();
  }

  /** Takes nothing more: reads reject. */
  stop(reason: unknown): void {
    if (this.#stopped) return;
    this.#stopped = { reason };
    this.#opening.length = 0;
    this.#kept.length = 0;
    this.#waiting?.reject(reason);
    this.#waiting = undefined;
    this.#advance();
    this.#over.resolve();
  }

  /**
   * As {@linkcode stop}, but what comes is still read, and dropped. A connection
   * that is closed while something is unread is reset, and the peer may lose what
   * it was told last. Resolves when the connection ends; does not reject.
   */
  async discard(reason: unknown): Promise<void> {
    this.stop(reason);
    await this.#receiving?.catch(() => {});
    try {
      while (await this.#frames.skip()) await nextTurn();
    } catch {
      // It has broken.
    }
  }

  /**
   * Receives until the connection ends. Resolves if the peer had ended its
   * direction before, or this has been stopped.
   *
   * @throws {ChannelError} `cut` if the peer had not, or what it gave the session
   * up with, once all before has been taken; `protocol` if a frame does not open,
   * is malformed or is out of order: at once, though data before it may not have
   * been taken.
   */
  run(): Promise<void> {
    this.#receiving = this.#receive();
    this.#receiving.then(
      (error) => error ? this.#over.reject(error) : this.#over.resolve(),
      (error) => this.#failBehind(undefined, error),
    );
    return this.#over.promise;
  }

  /**
   * Fails in a message's turn, or behind all: what came before, and is being
   * opened, may be the peer's last word.
   */
  async #failBehind(
    message: Message | undefined,
    error: unknown,
  ): Promise<void> {
    while (
      this.#opening[0] !== message && !this.#isPaused && !this.#isOver
    ) await this.#next();
    this.#fail(error);
  }

  #fail(error: unknown): void {
    if (this.#isOver) return;
    this.finish(error);
    this.#over.reject(error);
  }

  get #isOver(): boolean {
    return this.#stopped !== undefined || this.#last !== undefined;
  }

  /** How many frames have been read and not been dealt with. */
  get #ahead(): number {
    return this.#opening.length + this.#kept.length + (this.#isPaused ? 1 : 0);
  }

  /** Resolves to what the peer's last word, or its silence, means. */
  async #receive(): Promise<unknown> {
    let cause: unknown;
    while (!this.#isOver) {
      if (this.#ahead >= READ_AHEAD) await this.#whenAhead(READ_AHEAD - 1);
      const frame = this.#frames.take(MIN_MESSAGE_LENGTH);
      if (frame) {
        if (!this.#stopped) this.#open(frame);
      } else {
        try {
          if (!this.#frames.filled(await this.#frames.read())) break;
        } catch (error) {
          // A connection that breaks is cut, as one that ends before its time.
          cause = error;
          break;
        }
      }
      const turn = this.#turns.spend(frame?.length ?? 0);
      if (turn) await turn;
    }
    while (this.#opening.length > 0 || this.#isPaused) await this.#next();
    if (this.#stopped) return;
    // What carries the frames may know better what is wrong.
    if (cause instanceof ChannelError && cause.code === "protocol") throw cause;
    if (this.#hasEnded && !this.#last) return;
    await this.#whenAhead(0);
    if (this.#stopped) return;
    const isCut = cause instanceof ChannelError && cause.code === "cut";
    return this.#last?.error ??
      (isCut
        ? cause
        : new ChannelError("cut", "The peer cut the connection", { cause }));
  }

  /** Opens a frame, in its turn; it is delivered in its turn too. */
  #open(frame: Bytes): void {
    const opened = this.#seal.open(frame);
    if (opened instanceof Promise) {
      const message: Message = { plaintext: undefined, isInPlace: false };
      this.#opening.push(message);
      opened.then((plaintext) => {
        message.plaintext = plaintext;
        this.#deliverLater();
      }, (error) => this.#failBehind(message, error));
      return;
    }
    const isInPlace = opened.buffer === frame.buffer;
    if (isInPlace) this.#frames.hold();
    this.#opening.push({ plaintext: opened, isInPlace });
    this.#deliverOpened();
  }

  #deliverOpened(): void {
    while (this.#opening[0]?.plaintext && !this.#isPaused && !this.#isOver) {
      this.#deliver(this.#opening.shift()!);
    }
    this.#advance();
  }

  #deliver(message: Message): void {
    const plaintext = message.plaintext!;
    const type = messageType(plaintext);
    const isStream = type === Type.data || type === Type.end;
    if (isStream && this.#hasEnded) {
      throw new ChannelError("protocol", "The peer sent more after its end");
    }
    if (type === Type.data) {
      this.#hearer.data();
      message.plaintext = plaintext.subarray(TYPE_LENGTH);
      this.#kept.push(message);
      const waiting = this.#waiting;
      this.#waiting = undefined;
      waiting?.resolve(this.#takeKept(message, waiting.p));
      return;
    }
    const waits = this.#hearer.control(type, plaintext);
    if (message.isInPlace) this.#frames.release();
    if (type === Type.end) {
      this.#hasEnded = true;
      this.#waiting?.resolve(null);
      this.#waiting = undefined;
    }
    if (waits) this.#pause(waits);
  }

  #pause(until: Promise<void>): void {
    this.#isPaused = true;
    until.then(() => {
      this.#isPaused = false;
      this.#deliverLater();
    }, (error) => this.#fail(error));
  }

  /** As {@linkcode #deliverOpened}, where nobody catches what it throws. */
  #deliverLater(): void {
    try {
      this.#deliverOpened();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Copies of the first message that was kept as much as fits. */
  #takeKept(message: Message, p: Uint8Array): number {
    const body = message.plaintext!;
    const count = Math.min(p.length, body.length);
    this.#taken += count;
    if (count < body.length) {
      p.set(body.subarray(0, count));
      message.plaintext = body.subarray(count);
      return count;
    }
    p.set(body);
    this.#kept.shift();
    if (message.isInPlace) this.#frames.release();
    // What is longer came from WebCrypto, in a buffer of its own.
    else if (count > SHORT_LENGTH) free(body);
    this.#advance();
    return count;
  }

  /** Waits until no more frames than that have been read and not taken. */
  async #whenAhead(count: number): Promise<void> {
    this.#hearer.deaf(true);
    while (this.#ahead > count && !this.#stopped) await this.#next();
    if (!this.#stopped) this.#hearer.deaf(false);
  }

  #next(): Promise<void> {
    this.#progress ??= withResolvers();
    return this.#progress.promise;
  }

  #advance(): void {
    this.#progress?.resolve();
    this.#progress = undefined;
  }
}
