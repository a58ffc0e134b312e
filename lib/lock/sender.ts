/**
 * The sending half of a session: messages are sealed in order, several at once,
 * and written in order.
 *
 * The pipeline is one idea. A message takes its nonce when its sealing begins,
 * in order; a bounded number is being sealed, on WebCrypto's threads, while what
 * is ready is being written. Data that does not fill a frame waits in one staging
 * buffer while others are on their way, and shares its frame with what comes
 * meanwhile: a lone write goes at once, a million small ones do not become a
 * million frames.
 *
 * @module
 */

import { type Bytes, SHORT_LENGTH, TAG_LENGTH } from "./aes_gcm.ts";
import { HEADER_LENGTH, putFrame } from "./frame.ts";
import { CLOCK, type Clock, type Timer } from "./clock.ts";
import { free } from "./memory.ts";
import { MIN_MESSAGE_LENGTH, type Seal, Type, TYPE_LENGTH } from "./message.ts";
import { nextTurn } from "./runtime.ts";
import { type Transport, writeAll } from "./transport.ts";

/** So many messages may be on their way to the socket before data waits. */
const MAX_IN_FLIGHT = 8;

/** What one `Deno.Conn.write` takes at most, in bytes: four TLS records. */
const WRITE_LENGTH = 65_536;

/**
 * The longest body that we send, in bytes. One less than allowed: the frame
 * fills a write exactly.
 */
export const MAX_BODY_LENGTH = WRITE_LENGTH - HEADER_LENGTH -
  MIN_MESSAGE_LENGTH;

/** Length of a message with the longest body, in bytes. */
const FULL_LENGTH = TYPE_LENGTH + MAX_BODY_LENGTH;

/** With so many pongs waiting, `sendPong` waits too. */
const MAX_PONGS_WAITING = 64;

/**
 * How long a pong waits for company, in milliseconds. Deno cannot turn Nagle's
 * algorithm off on what `listenTls` accepts: a pong on its way alone would hold
 * the server's first reply back until the client's delayed ACK, 40 ms.
 */
export const PONG_DELAY = 10;

/** A message that is sealed, or being sealed. */
interface Sealed {
  type: Type;
  /** Length of its frame, header included, in bytes. */
  length: number;
  ciphertext: Bytes | Promise<Bytes>;
}

/** Seals and writes one side's messages. */
export class Sender {
  readonly #transport: Transport;
  readonly #seal: Seal;
  readonly #onFailure: (cause: unknown) => void;
  readonly #clock: Clock;
  readonly #inFlight: Sealed[] = [];
  /** The message that takes more data until it is sealed. */
  #staging: Bytes | undefined;
  #stagedLength = 0;
  #pongsDue = 0;
  #pongsInFlight = 0;
  #pongTimer: Timer | undefined;
  #lastWrite: number;
  /** The last ping that was sealed, until it is written. */
  #ping: Sealed | undefined;
  #room: PromiseWithResolvers<void> | undefined;
  /** Whether something is on its way. */
  #isRunning = false;
  /** Of a flush: resolves when all is written, or none will be. */
  #idle: PromiseWithResolvers<void> | undefined;
  /** Why nothing more is taken, though what was taken is still written. */
  #last: { reason: unknown } | undefined;
  #stopped: { reason: unknown } | undefined;

  /**
   * The transport is written to by this object alone.
   *
   * @param onFailure Is called if a write or a seal fails; it may stop the sender
   * with what all others are told. Nothing more is sent then.
   */
  constructor(
    transport: Transport,
    seal: Seal,
    onFailure: (cause: unknown) => void,
    clock: Clock = CLOCK,
  ) {
    this.#transport = transport;
    this.#seal = seal;
    this.#onFailure = onFailure;
    this.#clock = clock;
    this.#lastWrite = clock.now();
  }

  /** When the last write was over, by the clock. */
  get lastWrite(): number {
    return this.#lastWrite;
  }

  /**
   * Takes all of `data`, which the caller may change once the promise has
   * resolved, or at once if there is none: then there was room for all of it.
   * The next call waits for that.
   */
  send(data: Uint8Array): Promise<void> | undefined {
    if (this.#stopped || this.#last) return undefined;
    this.#sendPongs();
    const rest = this.#stage(data);
    return rest.length > 0 ? this.#stageWhenRoom(rest) : undefined;
  }

  /** Sends a message without a body behind what was taken. */
  sendControl(type: Type): void {
    if (this.#stopped || this.#last) return;
    this.#sendPongs();
    this.#sealStaged();
    this.#sealMessage(new Uint8Array([type]));
  }

  /**
   * Sends a last message behind what was taken; resolves when it is written. What
   * waits for room fails with the reason.
   */
  async finish(last: Bytes, reason: unknown): Promise<void> {
    if (this.#stopped) return;
    this.#sendPongs();
    this.#sealStaged();
    this.#last = { reason };
    this.#sealMessage(last);
    this.#room?.resolve();
    await this.flush();
  }

  /**
   * Sends a pong with the next message, or soon. If it returns a promise, too
   * many pongs wait. Ask for no more before it resolves: a peer that pings and
   * does not read may not fill our memory.
   */
  sendPong(): Promise<void> | undefined {
    if (this.#stopped || this.#last) return undefined;
    this.#pongsDue++;
    this.#pongTimer ??= this.#clock.after(PONG_DELAY, () => this.#sendPongs());
    if (this.#pongsWaiting < MAX_PONGS_WAITING) return undefined;
    this.#sendPongs();
    return this.#whenPongsLeft();
  }

  /** Whether a ping has not been written yet. */
  get hasPing(): boolean {
    return this.#ping !== undefined;
  }

  /** Resolves when all that was taken has been written. */
  async flush(): Promise<void> {
    this.#sendPongs();
    if (this.#isRunning && !this.#stopped) {
      this.#idle ??= Promise.withResolvers();
      await this.#idle.promise;
    }
    if (this.#stopped) throw this.#stopped.reason;
  }

  /** Gives up: what waits for room, or for a flush, fails with the reason. */
  stop(reason: unknown): void {
    if (this.#stopped) return;
    this.#stopped = { reason };
    this.#clock.clear(this.#pongTimer);
    this.#pongsDue = 0;
    this.#inFlight.length = 0;
    this.#staging = undefined;
    this.#stagedLength = 0;
    this.#room?.resolve();
    this.#idle?.resolve();
  }

  get #pongsWaiting(): number {
    return this.#pongsDue + this.#pongsInFlight;
  }

  async #whenPongsLeft(): Promise<void> {
    while (this.#pongsWaiting >= MAX_PONGS_WAITING) await this.#whenRoom();
  }

  #sendPongs(): void {
    if (this.#pongsDue === 0) return;
    this.#clock.clear(this.#pongTimer);
    this.#pongTimer = undefined;
    for (; this.#pongsDue > 0; this.#pongsDue--) {
      this.#pongsInFlight++;
      this.#sealMessage(new Uint8Array([Type.pong]));
    }
  }

  async #stageWhenRoom(data: Uint8Array): Promise<void> {
    while (data.length > 0) {
      await this.#whenRoom();
      data = this.#stage(data);
    }
  }

  async #whenRoom(): Promise<void> {
    if (!this.#stopped && !this.#last) {
      this.#room ??= Promise.withResolvers();
      await this.#room.promise;
    }
    const over = this.#stopped ?? this.#last;
    if (over) throw over.reason;
  }

  /** Takes what there is room for; returns the rest. A seal may stop it. */
  #stage(data: Uint8Array): Uint8Array {
    while (data.length > 0 && this.#hasRoom && !this.#stopped) {
      data = data.subarray(this.#copy(data));
      this.#sealIfDue();
    }
    return data;
  }

  /**
   * Where others have gone before it was their turn, such as a pong, what waits
   * may be too much already, though nothing is staged.
   */
  get #hasRoom(): boolean {
    return this.#stagedLength < FULL_LENGTH &&
      this.#inFlight.length <= MAX_IN_FLIGHT;
  }

  /** Copies as much as fits; returns how many bytes did. */
  #copy(data: Uint8Array): number {
    if (!this.#staging) {
      const length = TYPE_LENGTH + data.length;
      const isLone = !this.#isRunning && length <= SHORT_LENGTH;
      this.#staging = new Uint8Array(isLone ? length : FULL_LENGTH);
    }
    this.#stagedLength ||= TYPE_LENGTH;
    const part = data.subarray(0, this.#staging.length - this.#stagedLength);
    this.#staging.set(part, this.#stagedLength);
    this.#stagedLength += part.length;
    return part.length;
  }

  /** Full, it goes if few are in flight; else only when none is. */
  #sealIfDue(): void {
    const isDue = this.#stagedLength === FULL_LENGTH
      ? this.#inFlight.length < MAX_IN_FLIGHT
      : !this.#isRunning;
    if (isDue) this.#sealStaged();
  }

  #sealStaged(): void {
    if (this.#stagedLength === 0) return;
    const staging = this.#staging!;
    const length = this.#stagedLength;
    this.#stagedLength = 0;
    // A full-size buffer is used again: the seal has finished with it.
    if (staging.length < FULL_LENGTH) this.#staging = undefined;
    this.#sealMessage(
      length < staging.length ? staging.subarray(0, length) : staging,
    );
  }

  /** Begins to seal: the nonce is taken here, in order. */
  #sealMessage(plaintext: Bytes): void {
    let ciphertext: Bytes | Promise<Bytes>;
    try {
      ciphertext = this.#seal.seal(plaintext);
    } catch (cause) {
      ciphertext = Promise.reject(cause);
    }
    // Its failure is reported when its turn comes.
    if (ciphertext instanceof Promise) ciphertext.catch(() => {});
    const length = HEADER_LENGTH + plaintext.length + TAG_LENGTH;
    const type = plaintext[0] as Type;
    const sealed = { type, length, ciphertext };
    this.#inFlight.push(sealed);
    if (type === Type.ping) this.#ping = sealed;
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#drain().catch((cause) => this.#fail(cause));
  }

  #fail(cause: unknown): void {
    if (this.#stopped) return;
    this.#onFailure(cause);
    this.stop(cause);
  }

  /** Writes what is in flight, in order, as much at once as a write takes. */
  async #drain(): Promise<void> {
    let buffer: Bytes | undefined;
    // What is said in the same turn shares a write.
    await undefined;
    this.#sealStaged();
    for (let next; (next = this.#inFlight[0]);) {
      // A lone short message needs no more than its own length.
      const isLone = this.#inFlight.length === 1 && next.length <= SHORT_LENGTH;
      if (!buffer || buffer.length < WRITE_LENGTH) {
        buffer = new Uint8Array(isLone ? next.length : WRITE_LENGTH);
      }
      let end = 0;
      for (
        ;
        next && end + next.length <= buffer.length;
        next = this.#inFlight[0]
      ) {
        const { ciphertext } = next;
        const frame = ciphertext instanceof Promise
          ? await ciphertext
          : ciphertext;
        if (this.#stopped) return;
        end = putFrame(frame, buffer, end);
        if (frame.length > SHORT_LENGTH) free(frame);
        this.#leave(next);
      }
      await writeAll(
        this.#transport,
        end < buffer.length ? buffer.subarray(0, end) : buffer,
      );
      if (this.#stopped) return;
      this.#lastWrite = this.#clock.now();
      if (this.#ping && !this.#inFlight.includes(this.#ping)) {
        this.#ping = undefined;
      }
      // What was staged during that write waits for no other, but for what comes
      // in the same turn: a write may be over before its caller's next one.
      if (this.#inFlight.length === 0 && this.#stagedLength > 0) {
        await nextTurn();
        this.#sealStaged();
      }
    }
    this.#isRunning = false;
    this.#staging = undefined;
    this.#idle?.resolve();
    this.#idle = undefined;
  }

  /** A message is about to be written: there is room for another. */
  #leave({ type }: Sealed): void {
    this.#inFlight.shift();
    if (type === Type.pong) this.#pongsInFlight--;
    if (this.#stagedLength === FULL_LENGTH) this.#sealIfDue();
    this.#room?.resolve();
    this.#room = undefined;
  }
}
