/**
 * The sending half of a session: messages wait in a queue, several are sealed
 * at once, and they are written in order.
 *
 * While a batch is being sealed the one before it is being written, so the
 * AES threads and the socket work side by side, and at most two batches are
 * in flight. What arrives meanwhile shares frames, up to their full length: a
 * lone write goes at once, a million small ones do not become a million frames.
 *
 * @module
 */

import type { Bytes } from "./aes_gcm.ts";
import { encodeFrames } from "./frame.ts";
import {
  control,
  MAX_DATA_LENGTH,
  rekeyIfDue,
  Type,
  TYPE_LENGTH,
} from "./message.ts";
import { type CipherState, EMPTY } from "./noise.ts";
import type { Tracer } from "./trace.ts";
import { type Transport, writeAll } from "./transport.ts";

/** How many frames are sealed at once and then written together. */
const BATCH = 8;

/** With so many bytes waiting, `send` waits too. */
const HIGH_WATER_MARK = BATCH * MAX_DATA_LENGTH;

/**
 * A pong waits so long for company, in milliseconds. Deno cannot turn Nagle's
 * algorithm off on what `listenTls` accepts: a pong on its way alone would hold
 * the server's first reply back until the client's delayed ACK, 40 ms.
 */
const PONG_DELAY = 10;

/** A data message that is being filled starts with so much room, in bytes. */
const INITIAL_ROOM = 512;

/** Seals and writes one side's messages. */
export class Sender {
  readonly #transport: Transport;
  readonly #cipher: CipherState;
  readonly #tracer: Tracer;
  readonly #queue: Pending[] = [];
  #queuedBytes = 0;
  #pongsDue = 0;
  #pongTimer: ReturnType<typeof setTimeout> | undefined;
  #run: Promise<void> | undefined;
  #room = Promise.withResolvers<void>();
  readonly #failure = Promise.withResolvers<never>();

  /**
   * The transport is written to by this object alone.
   *
   * @param onFailure Is told, once, if a write fails: nothing more is sent then.
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
    this.#failure.promise.catch(onFailure);
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
    this.#queuePongs();
    this.#queue.push(new Pending(type));
    this.#start();
  }

  /** Sends a pong with the next message, or soon. */
  sendPong(): void {
    this.#pongsDue++;
    this.#pongTimer ??= setTimeout(() => this.#queuePongs(), PONG_DELAY);
  }

  /** Resolves when all that was taken has been written. */
  async flush(): Promise<void> {
    this.#queuePongs();
    while (this.#run) await Promise.race([this.#run, this.#failure.promise]);
  }

  /** Gives up: what waits for room, or for a flush, waits in vain. */
  stop(reason: unknown): void {
    clearTimeout(this.#pongTimer);
    this.#queue.length = 0;
    this.#room.promise.catch(() => {});
    this.#room.reject(reason);
    this.#failure.reject(reason);
  }

  #queuePongs(): void {
    clearTimeout(this.#pongTimer);
    this.#pongTimer = undefined;
    for (; this.#pongsDue > 0; this.#pongsDue--) {
      this.#queue.push(new Pending(Type.pong));
      this.#start();
    }
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
      const taken = last.append(data);
      this.#queuedBytes += taken;
      data = data.subarray(taken);
      this.#start();
    }
    return data;
  }

  #start(): void {
    this.#run ??= this.#drain().catch((cause) => this.stop(cause));
  }

  async #drain(): Promise<void> {
    let writing = Promise.resolve();
    while (true) {
      if (this.#queue.length === 0) {
        await writing;
        // More may have come during that write.
        if (this.#queue.length === 0) break;
      }
      const frames = await this.#seal(BATCH);
      // What came meanwhile goes along: a reply and its end are one segment.
      frames.push(...await this.#seal(BATCH - frames.length));
      this.#room.resolve();
      this.#room = Promise.withResolvers();
      await writing;
      writing = writeAll(this.#transport, encodeFrames(frames));
      writing.catch(() => {});
    }
    this.#run = undefined;
  }

  /** Seals up to `count` of the messages that wait, all at once. */
  async #seal(count: number): Promise<Bytes[]> {
    const plaintexts = this.#queue.splice(0, count).map((p) => p.plaintext);
    const sealing: Promise<Bytes>[] = [];
    for (const plaintext of plaintexts) {
      this.#queuedBytes -= plaintext.length - TYPE_LENGTH;
      await rekeyIfDue(this.#cipher);
      sealing.push(this.#cipher.encryptWithAd(EMPTY, plaintext));
    }
    const ciphertexts = await Promise.all(sealing);
    ciphertexts.forEach((ciphertext, i) =>
      this.#tracer.message("sent", plaintexts[i]!, ciphertext)
    );
    return ciphertexts;
  }
}

/** A message that waits; one of data takes more until its frame is full. */
class Pending {
  #bytes: Bytes;
  #length = TYPE_LENGTH;

  constructor(type: Type) {
    this.#bytes = control(type);
  }

  get isOpen(): boolean {
    return this.#bytes[0] === Type.data &&
      this.#length < TYPE_LENGTH + MAX_DATA_LENGTH;
  }

  get plaintext(): Bytes {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Copies as much of `data` as fits; returns how many bytes did. */
  append(data: Uint8Array): number {
    const max = TYPE_LENGTH + MAX_DATA_LENGTH;
    const length = Math.min(this.#length + data.length, max);
    if (length > this.#bytes.length) {
      const room = Math.max(length, INITIAL_ROOM, 2 * this.#bytes.length);
      const bytes = new Uint8Array(Math.min(room, max));
      bytes.set(this.plaintext);
      this.#bytes = bytes;
    }
    const taken = length - this.#length;
    this.#bytes.set(data.subarray(0, taken), this.#length);
    this.#length = length;
    return taken;
  }
}
