/**
 * The sending half of a session.
 *
 * A message's way, from whoever writes to the transport:
 *
 * 1. It is put together in a batch, the buffer of one write: length, type, body,
 *    room for the tag. Small data shares its message with what comes meanwhile,
 *    and small messages share their batch: a lone write goes at once, a million
 *    small ones do not become a million frames.
 * 2. It is sealed where it stands, when it is full or when its batch is about to
 *    be written. The nonce is taken here, in order. An engine that is not
 *    synchronous seals up to eight batches side by side.
 * 3. Its batch is written, in order, one at a time. Data waits while there are as
 *    many batches as the engine can use; pings and pongs are bounded by number.
 *
 * @module
 */

import { type Bytes, SHORT_LENGTH, TAG_LENGTH } from "./aes_gcm.ts";
import { CLOCK, type Clock, type Timer } from "./clock.ts";
import { HEADER_LENGTH, putLength } from "./frame.ts";
import { MIN_MESSAGE_LENGTH, type Seal, Type } from "./message.ts";
import { nextTurn, withResolvers } from "./runtime.ts";
import type { Transport } from "./transport.ts";

/** What one `Deno.Conn.write` takes at most, in bytes: four TLS records. */
const WRITE_LENGTH = 65_536;

/** What a message takes in addition to its body, in bytes. */
const OVERHEAD = HEADER_LENGTH + MIN_MESSAGE_LENGTH;

/**
 * The longest body that we send, in bytes. One less than allowed: the frame
 * fills a write exactly.
 */
export const MAX_BODY_LENGTH = WRITE_LENGTH - OVERHEAD;

/** How much longer a small batch is than its first message, in bytes. */
const SMALL_ROOM = 4 * OVERHEAD;

/**
 * How many batches there may be before data waits: one that is being written, and
 * one that is filled; or eight that are being sealed, and those.
 */
const MAX_BATCHES = { synchronous: 2, asynchronous: 10 };

/** How many buffers a sender keeps that has nothing to send, until it says little. */
const MAX_SPARES = 2;

/** With so many pongs waiting, `sendPong` waits too. */
const MAX_PONGS_WAITING = 64;

/**
 * How long a pong waits for company, in milliseconds. Deno cannot turn Nagle's
 * algorithm off on what `listenTls` accepts: a pong on its way alone would hold
 * the server's first reply back until the client's delayed ACK, 40 ms.
 */
export const PONG_DELAY = 10;

/** Messages that share a write. */
interface Batch {
  buffer: Bytes;
  /** Where its last message ends. */
  end: number;
  /** Resolves when its messages are sealed, if some are still being sealed. */
  sealing: Promise<unknown> | undefined;
  pongs: number;
  hasPing: boolean;
}

/** Seals and writes one side's messages. */
export class Sender {
  readonly #transport: Transport;
  readonly #seal: Seal;
  readonly #onFailure: (cause: unknown) => void;
  readonly #clock: Clock;
  readonly #maxBatches: number;
  /** In order; the first may be on its way to the transport. */
  readonly #batches: Batch[] = [];
  /** Whether the first is, and takes no more. */
  #isWriting = false;
  /** Where the data begins that is not sealed yet, in the last batch. */
  #unsealed: number | undefined;
  /** Buffers of full length, to be used again while much is said. */
  readonly #spares: Bytes[] = [];
  /** That of the last lone message: a new one for each takes longer than AES. */
  #small: Bytes | undefined;
  #pongsDue = 0;
  #pongTimer: Timer | undefined;
  #lastWrite: number;
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
   * @param onFailure Is called if a write or a seal fails. Nothing more is sent
   * then; whoever waits does so until the sender is stopped.
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
    this.#maxBatches = seal.isSynchronous
      ? MAX_BATCHES.synchronous
      : MAX_BATCHES.asynchronous;
    this.#lastWrite = clock.now();
  }

  /** When the last write was over, by the clock. */
  get lastWrite(): number {
    return this.#lastWrite;
  }

  /** Whether a ping has not been written yet. */
  get hasPing(): boolean {
    return this.#batches.some(({ hasPing }) => hasPing);
  }

  /**
   * Takes all of `data`, which the caller may change once the promise has
   * resolved, or at once if there is none: then there was room for all of it.
   * The next call waits for that.
   */
  send(data: Uint8Array): Promise<void> | undefined {
    if (this.#isOver) return undefined;
    this.sendPongs();
    const rest = this.#take(data);
    return rest.length > 0 ? this.#takeWhenRoom(rest) : undefined;
  }

  /** Sends a message without a body behind what was taken. */
  sendControl(type: Type): void {
    if (this.#isOver) return;
    this.sendPongs();
    this.#put(Uint8Array.of(type));
  }

  /**
   * Sends a pong with the next message, or soon. If it returns a promise, too
   * many pongs wait. Ask for no more before it resolves: a peer that pings and
   * does not read may not fill our memory.
   */
  sendPong(): Promise<void> | undefined {
    if (this.#isOver) return undefined;
    this.#pongsDue++;
    this.#pongTimer ??= this.#clock.after(PONG_DELAY, () => this.sendPongs());
    if (this.#pongsWaiting < MAX_PONGS_WAITING) return undefined;
    this.sendPongs();
    return this.#whenPongsLeft();
  }

  /**
   * Sends a last message behind what was taken; resolves when it is written. What
   * waits for room fails with the reason. A pong that was still to be sent is not:
   * the peer may take it for a welcome.
   */
  async finish(last: Bytes, reason: unknown): Promise<void> {
    if (this.#isOver) return;
    this.#dropPongs();
    this.#put(last);
    this.#last = { reason };
    this.#madeRoom();
    await this.flush();
  }

  /** Resolves when all that was taken has been written. */
  async flush(): Promise<void> {
    this.sendPongs();
    if (this.#isRunning && !this.#stopped) {
      this.#idle ??= withResolvers();
      await this.#idle.promise;
    }
    if (this.#stopped) throw this.#stopped.reason;
  }

  /** Gives up: what waits for room, or for a flush, fails with the reason. */
  stop(reason: unknown): void {
    if (this.#stopped) return;
    this.#stopped = { reason };
    this.#dropPongs();
    this.#batches.length = 0;
    this.#spares.length = 0;
    this.#small = undefined;
    this.#unsealed = undefined;
    this.#madeRoom();
    this.#idle?.resolve();
  }

  #dropPongs(): void {
    this.#clock.clear(this.#pongTimer);
    this.#pongTimer = undefined;
    this.#pongsDue = 0;
  }

  get #isOver(): boolean {
    return this.#stopped !== undefined || this.#last !== undefined;
  }

  get #pongsWaiting(): number {
    return this.#batches.reduce(
      (sum, { pongs }) => sum + pongs,
      this.#pongsDue,
    );
  }

  async #whenPongsLeft(): Promise<void> {
    // If nothing more is sent, none waits: who reads has to read on.
    while (this.#pongsWaiting >= MAX_PONGS_WAITING && !this.#isOver) {
      await this.#roomChanged();
    }
  }

  /** Sends the pongs that wait for company. */
  sendPongs(): void {
    if (this.#pongsDue === 0) return;
    this.#clock.clear(this.#pongTimer);
    this.#pongTimer = undefined;
    for (; this.#pongsDue > 0; this.#pongsDue--) {
      this.#put(Uint8Array.of(Type.pong));
    }
  }

  async #takeWhenRoom(data: Uint8Array): Promise<void> {
    while (data.length > 0) {
      await this.#whenRoom();
      data = this.#take(data);
    }
  }

  async #whenRoom(): Promise<void> {
    if (!this.#isOver) await this.#roomChanged();
    const over = this.#stopped ?? this.#last;
    if (over) throw over.reason;
  }

  #roomChanged(): Promise<void> {
    this.#room ??= withResolvers();
    return this.#room.promise;
  }

  #madeRoom(): void {
    this.#room?.resolve();
    this.#room = undefined;
  }

  /** Takes what there is room for; returns the rest. A seal may stop it. */
  #take(data: Uint8Array): Uint8Array {
    while (data.length > 0 && !this.#isOver) {
      const batch = this.#batchForData(data.length);
      if (!batch) break;
      const room = batch.buffer.length - TAG_LENGTH - batch.end;
      const part = data.length > room ? data.subarray(0, room) : data;
      batch.buffer.set(part, batch.end);
      batch.end += part.length;
      if (part.length === room) this.#sealData();
      data = data.subarray(part.length);
    }
    this.#run();
    return data;
  }

  /** Where data goes, behind a message's beginning; undefined without room. */
  #batchForData(length: number): Batch | undefined {
    const isBegun = this.#unsealed !== undefined;
    const wanted = isBegun ? length + TAG_LENGTH : length + OVERHEAD;
    let batch = this.#open;
    if (batch && !fits(batch, wanted)) this.#grow(batch);
    if (isBegun) return batch;
    if (!batch || !fits(batch, OVERHEAD + 1)) {
      if (this.#batches.length >= this.#maxBatches) return undefined;
      batch = this.#newBatch(wanted);
    }
    this.#unsealed = batch.end;
    batch.end += HEADER_LENGTH;
    batch.buffer[batch.end++] = Type.data;
    return batch;
  }

  /** Seals a whole message behind what was taken. */
  #put(plaintext: Bytes): void {
    this.#sealData();
    const length = HEADER_LENGTH + plaintext.length + TAG_LENGTH;
    let batch = this.#open;
    if (batch && !fits(batch, length)) this.#grow(batch);
    if (!batch || !fits(batch, length)) batch = this.#newBatch(length);
    const start = batch.end;
    batch.buffer.set(plaintext, start + HEADER_LENGTH);
    batch.end += HEADER_LENGTH + plaintext.length;
    if (plaintext[0] === Type.pong) batch.pongs++;
    if (plaintext[0] === Type.ping) batch.hasPing = true;
    this.#sealMessage(batch, start);
    this.#run();
  }

  /** The last batch, if it still takes messages. */
  get #open(): Batch | undefined {
    const isTaken = this.#isWriting && this.#batches.length === 1;
    return isTaken ? undefined : this.#batches.at(-1);
  }

  /** A lone short message needs no more than its own length. */
  #newBatch(length: number): Batch {
    const isLone = !this.#isRunning && length <= SHORT_LENGTH;
    if (isLone) this.#spares.length = 0;
    const batch = {
      buffer: isLone ? this.#smallBuffer(length) : this.#fullBuffer(),
      end: 0,
      sealing: undefined,
      pongs: 0,
      hasPing: false,
    };
    this.#batches.push(batch);
    return batch;
  }

  #smallBuffer(length: number): Bytes {
    const small = this.#small;
    this.#small = undefined;
    const isEnough = small && small.length >= length;
    return isEnough ? small : new Uint8Array(length + SMALL_ROOM);
  }

  #fullBuffer(): Bytes {
    return this.#spares.pop() ?? new Uint8Array(WRITE_LENGTH);
  }

  /** Moves a small batch into a buffer of full length, unless it is being sealed. */
  #grow(batch: Batch): void {
    if (batch.sealing || batch.buffer.length === WRITE_LENGTH) return;
    const buffer = this.#fullBuffer();
    buffer.set(batch.buffer.subarray(0, batch.end));
    batch.buffer = buffer;
  }

  #sealData(): void {
    if (this.#unsealed === undefined) return;
    const start = this.#unsealed;
    this.#unsealed = undefined;
    this.#sealMessage(this.#batches.at(-1)!, start);
  }

  /** Seals the batch's last message where it stands: the nonce is taken here. */
  #sealMessage(batch: Batch, start: number): void {
    const from = start + HEADER_LENGTH;
    batch.end += TAG_LENGTH;
    putLength(batch.end - from, batch.buffer, start);
    let sealing: void | Promise<void>;
    try {
      sealing = this.#seal.seal(batch.buffer.subarray(from, batch.end));
    } catch (cause) {
      sealing = Promise.reject(cause);
    }
    if (!sealing) return;
    // Its failure is reported when its turn comes.
    sealing.catch(() => {});
    const before = batch.sealing;
    batch.sealing = before ? before.then(() => sealing) : sealing;
    if (before) batch.sealing.catch(() => {});
  }

  #run(): void {
    if (this.#isRunning || this.#batches.length === 0) return;
    this.#isRunning = true;
    // What is said in the same turn shares a write.
    queueMicrotask(() => this.#write());
  }

  /** Writes all batches, in order; does not reject. */
  async #write(): Promise<void> {
    try {
      for (let batch; (batch = this.#batches[0]);) {
        if (this.#batches.length === 1) this.#sealData();
        this.#isWriting = true;
        if (batch.sealing) await batch.sealing;
        for (let start = 0; start < batch.end && !this.#stopped;) {
          const bytes = batch.buffer.subarray(start, batch.end);
          start += await this.#transport.write(bytes);
        }
        if (this.#stopped) return;
        this.#isWriting = false;
        this.#written(batch);
        // What came during that write waits for no other, but for what comes in
        // the same turn: a write may be over before its caller's next one.
        const isUnsealed = this.#unsealed !== undefined;
        if (this.#batches.length === 1 && isUnsealed) await nextTurn();
      }
    } catch (cause) {
      if (!this.#stopped) this.#onFailure(cause);
      return;
    }
    this.#isRunning = false;
    this.#spares.splice(MAX_SPARES);
    this.#idle?.resolve();
    this.#idle = undefined;
  }

  #written(batch: Batch): void {
    this.#batches.shift();
    const { buffer } = batch;
    if (buffer.length === WRITE_LENGTH) this.#spares.push(buffer);
    else this.#small = buffer;
    this.#lastWrite = this.#clock.now();
    this.#madeRoom();
  }
}

function fits({ buffer, end }: Batch, length: number): boolean {
  return end + length <= buffer.length;
}
