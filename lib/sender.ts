/**
 * The sending half of a session: messages wait in a queue, several are sealed
 * at once, and they are written in order.
 *
 * The pipeline is one idea. A message takes its nonce when its sealing begins,
 * in order; a bounded number is being sealed, on WebCrypto's threads, while what
 * is ready is being written. A message that is not full waits while another is
 * on its way, and shares its frame with what comes meanwhile: a lone write goes
 * at once, a million small ones do not become a million frames.
 *
 * @module
 */

import { type Bytes, TAG_LENGTH } from "./aes_gcm.ts";
import { encodedLength, encodeFrames, HEADER_LENGTH } from "./frame.ts";
import { free } from "./memory.ts";
import {
  MIN_MESSAGE_LENGTH,
  rekeyIfDue,
  Type,
  TYPE_LENGTH,
} from "./message.ts";
import { type CipherState, EMPTY } from "./noise.ts";
import type { Tracer } from "./trace.ts";
import { type Transport, writeAll } from "./transport.ts";

/** How many messages may be between queue and socket. */
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

/** A data message of up to so many bytes is put together in a small buffer. */
const SHORT_LENGTH = 1024;

/** With so many bytes waiting, `send` waits too. */
const HIGH_WATER_MARK = 4 * MAX_BODY_LENGTH;

/** With so many pongs waiting, `sendPong` waits too. */
const MAX_PONGS_WAITING = 64;

/**
 * A pong waits so long for company, in milliseconds. Deno cannot turn Nagle's
 * algorithm off on what `listenTls` accepts: a pong on its way alone would hold
 * the server's first reply back until the client's delayed ACK, 40 ms.
 */
export const PONG_DELAY = 10;

/** Seals and writes one side's messages. */
export class Sender {
  readonly #transport: Transport;
  readonly #cipher: CipherState;
  readonly #tracer: Tracer;
  readonly #queue: Pending[] = [];
  readonly #inFlight: Sealing[] = [];
  #queuedBytes = 0;
  #pongsDue = 0;
  #pongsQueued = 0;
  #pongTimer: ReturnType<typeof setTimeout> | undefined;
  #rekeying: Promise<void> | undefined;
  #spare: Bytes | undefined;
  #run: PromiseWithResolvers<void> | undefined;
  #stopped: { reason: unknown } | undefined;
  #room = Promise.withResolvers<void>();
  readonly #onFailure: (cause: unknown) => void;

  /**
   * The transport is written to by this object alone.
   *
   * @param onFailure Is told if a write fails: nothing more is sent then.
   */
  constructor(
    transport: Transport,
    cipher: CipherState,
    tracer: Tracer,
    onFailure: (cause: unknown) => void,
  ) {
    this.#transport = transport;
    this.#cipher = cipher;
    this.#tracer = tracer;
    this.#onFailure = onFailure;
  }

  /**
   * Takes all of `data`, which the caller may change once the promise has
   * resolved, or at once if there is none: then there was room for all of it.
   */
  send(data: Uint8Array): Promise<void> | undefined {
    const rest = this.#enqueueData(data);
    return rest.length > 0 ? this.#sendWhenRoom(rest) : undefined;
  }

  /** Puts a message without a body behind what waits. */
  sendControl(type: Type): void {
    if (this.#stopped) return;
    this.#queuePongs();
    this.#queue.push(new Pending(type));
    this.#start();
  }

  /**
   * Sends a pong with the next message, or soon. If it returns a promise, too
   * many pongs wait, and no more may be asked for before it resolves: a peer
   * that pings and does not read may not fill our memory.
   */
  sendPong(): Promise<void> | undefined {
    if (this.#stopped) return undefined;
    this.#pongsDue++;
    this.#pongTimer ??= setTimeout(() => this.#queuePongs(), PONG_DELAY);
    if (this.#pongsWaiting < MAX_PONGS_WAITING) return undefined;
    this.#queuePongs();
    return this.#whenPongsLeft();
  }

  /** Resolves when all that was taken has been written. */
  async flush(): Promise<void> {
    this.#queuePongs();
    while (!this.#stopped && this.#run) await this.#run.promise;
    if (this.#stopped) throw this.#stopped.reason;
  }

  /** Gives up: what waits for room, or for a flush, waits in vain. */
  stop(reason: unknown): void {
    if (this.#stopped) return;
    this.#stopped = { reason };
    clearTimeout(this.#pongTimer);
    this.#queue.length = 0;
    for (const waiting of [this.#room, this.#run]) {
      waiting?.promise.catch(() => {});
      waiting?.reject(reason);
    }
  }

  get #pongsWaiting(): number {
    return this.#pongsDue + this.#pongsQueued;
  }

  async #whenPongsLeft(): Promise<void> {
    while (this.#pongsWaiting >= MAX_PONGS_WAITING) await this.#room.promise;
  }

  #queuePongs(): void {
    if (this.#pongsDue === 0) return;
    clearTimeout(this.#pongTimer);
    this.#pongTimer = undefined;
    for (; this.#pongsDue > 0; this.#pongsDue--) {
      this.#queue.push(new Pending(Type.pong));
      this.#pongsQueued++;
    }
    this.#start();
  }

  async #sendWhenRoom(data: Uint8Array): Promise<void> {
    while (data.length > 0) {
      await this.#room.promise;
      data = this.#enqueueData(data);
    }
  }

  /** Queues what there is room for; returns the rest. */
  #enqueueData(data: Uint8Array): Uint8Array {
    this.#queuePongs();
    while (data.length > 0 && this.#queuedBytes < HIGH_WATER_MARK) {
      let last = this.#queue.at(-1);
      if (!last?.isOpen) this.#queue.push(last = new Pending(Type.data));
      if (last.lacksRoom(data.length)) last.moveTo(this.#fullBuffer());
      const taken = last.append(data);
      this.#queuedBytes += taken;
      data = data.subarray(taken);
      this.#start();
    }
    return data;
  }

  /** One that has served before, if there is one: new ones cost time. */
  #fullBuffer(): Bytes {
    const buffer = this.#spare ?? new Uint8Array(FULL_LENGTH);
    this.#spare = undefined;
    return buffer;
  }

  #start(): void {
    if (this.#stopped) return;
    this.#sealMore();
    if (this.#run) return;
    this.#run = Promise.withResolvers();
    this.#drain(this.#run).catch((cause) => {
      if (this.#stopped) return;
      this.stop(cause);
      this.#onFailure(cause);
    });
  }

  async #drain(run: PromiseWithResolvers<void>): Promise<void> {
    let writing = Promise.resolve();
    let buffer: Bytes = EMPTY;
    while (true) {
      const frames = await this.#nextFrames();
      await writing;
      // More may have come during that write.
      if (frames.length === 0 && this.#isIdle) break;
      const length = encodedLength(frames);
      if (buffer.length < length) buffer = new Uint8Array(length);
      writing = writeAll(this.#transport, encodeFrames(frames, buffer));
      writing.catch(() => {});
      if (!this.#tracer.active) frames.forEach(free);
    }
    this.#spare = undefined;
    this.#run = undefined;
    run.resolve();
  }

  get #isIdle(): boolean {
    return this.#queue.length === 0 && this.#inFlight.length === 0;
  }

  /** The next frames in order, as many as one write takes; none if none wait. */
  async #nextFrames(): Promise<Bytes[]> {
    const frames: Bytes[] = [];
    let room = WRITE_LENGTH;
    while (true) {
      await this.#rekeying;
      this.#sealMore();
      const next = this.#inFlight[0];
      if (next === undefined || next.frameLength > room) return frames;
      room -= next.frameLength;
      const ciphertext = await next.ciphertext;
      this.#inFlight.shift();
      if (this.#tracer.active) {
        this.#tracer.message("sent", next.plaintext, ciphertext);
      }
      frames.push(ciphertext);
    }
  }

  /** Begins to seal what may be sealed now: nonces are taken here, in order. */
  #sealMore(): void {
    while (this.#inFlight.length < MAX_IN_FLIGHT && !this.#rekeying) {
      const next = this.#queue[0];
      if (next === undefined || next.isOpen && this.#inFlight.length > 0) break;
      this.#queue.shift();
      this.#queuedBytes -= next.bodyLength;
      if (next.type === Type.pong) this.#pongsQueued--;
      this.#seal(next.plaintext);
      this.#room.resolve();
      this.#room = Promise.withResolvers();
    }
  }

  #seal(plaintext: Bytes): void {
    const ciphertext = this.#cipher.encryptWithAd(EMPTY, plaintext);
    ciphertext.catch(() => {});
    this.#inFlight.push({
      frameLength: HEADER_LENGTH + plaintext.length + TAG_LENGTH,
      ciphertext,
      plaintext: this.#tracer.active ? plaintext.slice() : EMPTY,
    });
    // WebCrypto has copied it.
    if (plaintext.buffer.byteLength === FULL_LENGTH) {
      this.#spare = new Uint8Array(plaintext.buffer);
    }
    this.#rekeying = rekeyIfDue(this.#cipher)?.then(() => {
      this.#rekeying = undefined;
    });
  }
}

/** A message that is being sealed. */
interface Sealing {
  frameLength: number;
  ciphertext: Promise<Bytes>;
  /** For the tracer; empty if there is none. */
  plaintext: Bytes;
}

/** A message that waits; one of data takes more until its frame is full. */
class Pending {
  readonly type: Type;
  #bytes: Bytes;
  #length = TYPE_LENGTH;

  constructor(type: Type) {
    this.type = type;
    this.#bytes = new Uint8Array(
      type === Type.data ? SHORT_LENGTH : TYPE_LENGTH,
    );
    this.#bytes[0] = type;
  }

  get isOpen(): boolean {
    return this.type === Type.data && this.#length < FULL_LENGTH;
  }

  get bodyLength(): number {
    return this.#length - TYPE_LENGTH;
  }

  get plaintext(): Bytes {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Whether a larger buffer could take more of so many bytes. */
  lacksRoom(length: number): boolean {
    return this.#length + length > this.#bytes.length &&
      this.#bytes.length < FULL_LENGTH;
  }

  moveTo(bytes: Bytes): void {
    bytes.set(this.plaintext);
    this.#bytes = bytes;
  }

  /** Copies as much of `data` as fits; returns how many bytes did. */
  append(data: Uint8Array): number {
    const taken = Math.min(data.length, this.#bytes.length - this.#length);
    this.#bytes.set(data.subarray(0, taken), this.#length);
    this.#length += taken;
    return taken;
  }
}
