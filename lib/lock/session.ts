/**
 * A session: the messages that may be said when, the two ends, the signs of life
 * and the bye, between a sender and a receiver. Read and written
 * as a `Deno.Conn`.
 *
 * ```text
 * standby ──open──▶ open ──both ends──▶ ended ──▶ closed
 *    └───────┬────────┘
 *            ├──we give it up──▶ leaving ──▶ closed
 *            └──the peer does──▶ left ─────▶ closed
 * ```
 *
 * Whatever fails leads to `closed` at once.
 *
 * @module
 */

import type { Bytes } from "./aes_gcm.ts";
import { byeError, encodeBye, reasonOf } from "./bye.ts";
import { CLOCK, type Clock, type Timer } from "./clock.ts";
import { ChannelError } from "./errors.ts";
import type { HandshakeResult } from "./handshake.ts";
import { IDLE_TIMEOUT, Keepalive } from "./keepalive.ts";
import { type Seal, Type } from "./message.ts";
import { serviceOf } from "./psk.ts";
import { type Hearer, Receiver } from "./receiver.ts";
import { nextTurn, withQuietResolvers } from "./runtime.ts";
import { Sender } from "./sender.ts";
import { closeQuietly, type Transport } from "./transport.ts";

/**
 * After both ends a peer that still gives signs of life is reading what was sent,
 * or says so. It is believed for this many idle timeouts: an hour by default.
 */
const CLOSING_TIMEOUTS = 144;

/**
 * How long our bye and the peer's close behind it may take; or, after a failed
 * write, the peer's bye; in milliseconds.
 */
const BYE_TIMEOUT = 1000;

/** What the client is to a session, and what the server. */
export type Role = "client" | "server";

/** Where a session stands: the module's picture shows what follows what. */
type State =
  /** The stream has not begun. */
  | "standby"
  /** It has begun; each direction may have ended. */
  | "open"
  /** Both ends have been said. The peer may still have to read ours. */
  | "ended"
  /** Our bye is on its way. */
  | "leaving"
  /** The peer's bye has come. What it said before can still be read. */
  | "left"
  | "closed";

/** A session, from the end of its handshake on. */
export class Session {
  /** Whose key the two sides share, and the service. */
  readonly identity: string;

  /** The service that the client asks for. */
  readonly service: string | undefined;

  /** The hash of all that the handshake said. */
  readonly handshakeHash: Bytes;

  /**
   * Resolves when the connection is closed after both ends, rejects with what
   * ended the session otherwise.
   */
  readonly closed: Promise<void>;

  /** Resolves when the stream has begun, rejects with what ended it before. */
  readonly opened: Promise<void>;

  /**
   * Client: resolves when the server has answered the first ping, so that it is
   * known to have taken the proof. Rejects with what ended the session before.
   */
  readonly confirmed: Promise<void>;

  /** Resolves when the client has offered the session to the server's callers. */
  readonly offered: Promise<void>;

  readonly #transport: Transport;
  readonly #seals: Seal[];
  readonly #sender: Sender;
  readonly #receiver: Receiver;
  readonly #keepalive: Keepalive;
  readonly #clock: Clock;
  /** Of the close: also where the stream has none. */
  readonly #idleTimeout: number;
  readonly #role: Role;
  readonly #closed = withQuietResolvers<void>();
  readonly #opened = withQuietResolvers<void>();
  readonly #confirmed = withQuietResolvers<void>();
  readonly #offered = withQuietResolvers<void>();
  #state: State = "standby";
  /** Whether the server knows, or will know, that the client is there now. */
  #isProved: boolean;
  /** Whether the stream is the server's to begin. */
  #isOffered = false;
  /** What every caller is told once nothing more may be said. */
  #failure: { reason: unknown } | undefined;
  /** What the next write, or the end, has to wait for. */
  #turn: Promise<void> | undefined;
  #bytesSent = 0;
  /** Of this side's end: resolves when it is written. */
  #ending: Promise<void> | undefined;
  #endSent = false;
  #endReceived = false;
  /** That no more can be written, if so; the peer may have said why. */
  #broken: ChannelError | undefined;
  /** Whether no more will come from the peer. */
  #isConnectionOver = false;
  /** Of this side's connection, after both ends; it does not reject. */
  #closing: Promise<void> | undefined;
  /** How many messages of data have come. */
  #dataHeard = 0;
  /** Whether it is about to be seen if a pong goes at once. */
  #isPonging = false;
  /** Of the probes under way. */
  #sign: PromiseWithResolvers<void> | undefined;
  /** Of what may take only so long: the bye, or the peer's close. */
  #limit: Timer | undefined;
  /** Of the peer's signs that it still reads, after both ends. */
  #silenceLimit: Timer | undefined;

  /**
   * @param role The server's session answers the client's first ping.
   * @param idleTimeout In milliseconds; 0 for no pings.
   */
  constructor(
    transport: Transport,
    { identity, handshakeHash, sending, receiving, frames }: HandshakeResult,
    role: Role,
    idleTimeout: number = IDLE_TIMEOUT,
    clock: Clock = CLOCK,
  ) {
    this.identity = identity;
    this.service = serviceOf(identity);
    this.handshakeHash = handshakeHash;
    this.#transport = transport;
    this.#seals = [sending, receiving];
    this.#role = role;
    this.#isProved = role === "server";
    this.#idleTimeout = idleTimeout || IDLE_TIMEOUT;
    this.#clock = clock;
    this.closed = this.#closed.promise;
    this.opened = this.#turn = this.#opened.promise;
    this.confirmed = this.#confirmed.promise;
    this.offered = this.#offered.promise;
    this.#sender = new Sender(
      transport,
      sending,
      (cause) => this.#writeFailed(cause),
      clock,
    );
    this.#receiver = new Receiver(frames, receiving, this.#hearer());
    this.#keepalive = new Keepalive(
      idleTimeout,
      () => this.#ping(),
      (silence) => this.abort(silent(silence, "answered no ping")),
      clock,
      () => this.#sender.lastWrite,
    );
    if (role === "server") {
      this.#confirmed.resolve();
      this.#pong();
    }
    this.#receiver.run().then(
      () => this.#connectionEnded(),
      (error) => this.#receivingFailed(error),
    );
  }

  /** How many bytes of data this side has sent, queued ones included. */
  get bytesSent(): number {
    return this.#bytesSent;
  }

  /** How many bytes of data have been received and read. */
  get bytesReceived(): number {
    return this.#receiver.taken;
  }

  /** How long the peer has been silent, in milliseconds. */
  get silence(): number {
    return this.#keepalive.silence;
  }

  /** Whether each side has said its end. */
  get haveBothEnded(): boolean {
    return this.#endSent && this.#endReceived;
  }

  /** Pings the peer; resolves when it has said something since. */
  async probe(): Promise<void> {
    this.#refuseAfterFailure();
    if (this.#state === "closed") throw isClosed();
    this.#sign ??= withQuietResolvers();
    this.#ping();
    await this.#sign.promise;
  }

  /**
   * Client: proves by a first ping that it is there now, if it has not. What is
   * said in the same turn shares its write.
   */
  prove(): void {
    if (this.#isProved) return;
    this.#isProved = true;
    this.#sender.sendControl(Type.ping);
  }

  /** Client: leaves it to the server to begin the stream. */
  offer(): void {
    this.#refuseAfterFailure();
    const mayOffer = this.#role === "client" && this.#state === "standby";
    if (!mayOffer || this.#isOffered) return;
    this.prove();
    this.#isOffered = true;
    this.#offered.resolve();
    this.#sender.sendControl(Type.offer);
  }

  /** Begins the stream, if it has not begun and is this side's to begin. */
  begin(): void {
    this.#refuseAfterFailure();
    const opener = this.#isOffered ? "server" : "client";
    if (this.#state !== "standby" || this.#role !== opener) return;
    this.prove();
    // A trace may give the session up at any message.
    this.#refuseAfterFailure();
    this.#hasOpened();
    this.#sender.sendControl(Type.open);
  }

  /** As `Deno.Conn.read`. */
  read(p: Uint8Array): Promise<number | null> {
    return this.#receiver.read(p);
  }

  /** As `Deno.Conn.write`, but it takes all. */
  write(p: Uint8Array): Promise<number> {
    try {
      this.#refuseAfterEnd();
      const turn = this.#inTurn(() => {
        this.#bytesSent += p.length;
        return this.#sender.send(p);
      });
      // A million small writes need not wait a million times.
      return turn ? turn.then(() => p.length) : Promise.resolve(p.length);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** As `Deno.Conn.closeWrite`: says the end, behind all that was written. */
  async closeWrite(): Promise<void> {
    this.#refuseAfterEnd();
    await (this.#ending = this.#sayEnd());
    await this.#closing;
  }

  /** As `Deno.Conn.close`; what has not ended by then is given up. */
  close(): void {
    if (this.haveBothEnded) return;
    this.abort(isClosed());
  }

  /**
   * Gives the session up, without an end. Once the key is proved, the peer is told
   * why, behind all that was sealed before.
   */
  abort(error: unknown = aborted("The channel was aborted")): void {
    if (this.#state === "leaving") return;
    const maySayBye = this.#state === "standby" || this.#state === "open";
    if (!maySayBye || !this.#isProved) {
      // A peer's bye is told to all, also to those who would not read on.
      return this.#close(this.#failure ?? { reason: error });
    }
    this.#state = "leaving";
    this.#fail({ reason: error });
    const over = () => this.#close({ reason: error });
    this.#clock.clear(this.#limit);
    this.#limit = this.#clock.after(BYE_TIMEOUT, over);
    this.#sayBye(error).then(over, over);
  }

  /**
   * Says why, ends this direction, and reads on until the peer has closed, which
   * it does when it has read that.
   */
  async #sayBye(error: unknown): Promise<void> {
    const peerClosed = this.#receiver.discard(error);
    await this.#sender.finish(encodeBye(error), error);
    await this.#transport.closeWrite();
    await peerClosed;
  }

  #refuseAfterFailure(): void {
    if (this.#failure) throw this.#failure.reason;
  }

  #refuseAfterEnd(): void {
    this.#refuseAfterFailure();
    if (this.#ending) {
      throw new TypeError("Cannot write: this direction has ended");
    }
  }

  async #sayEnd(): Promise<void> {
    await this.#inTurn(() => {
      this.#sender.sendControl(Type.end);
      return undefined;
    });
    await this.#sender.flush();
    this.#endSent = true;
    this.#endIfBoth();
  }

  /** After what was asked for before, and not before the stream has begun. */
  #inTurn(
    work: () => Promise<void> | undefined,
  ): Promise<void> | undefined {
    this.begin();
    const mine = this.#turn ? this.#turn.then(work) : work();
    return mine && this.#hold(mine);
  }

  /** Lets the next wait for this. */
  async #hold(mine: Promise<void>): Promise<void> {
    this.#turn = mine;
    await mine;
    if (this.#turn === mine) this.#turn = undefined;
  }

  #hasOpened(): void {
    this.#state = "open";
    this.#opened.resolve();
    if (this.#turn === this.opened) this.#turn = undefined;
  }

  /** One at a time: none joins another that the peer does not take. */
  #ping(): void {
    if (!this.#sender.hasPing) this.#sender.sendControl(Type.ping);
  }

  /**
   * A pong goes with the answer to what came right behind its ping. If nothing
   * did, whoever pinged may wait for it, and it goes at once.
   */
  #pong(): Promise<void> | undefined {
    const waits = this.#sender.sendPong();
    if (this.#isPonging) return waits;
    this.#isPonging = true;
    const heard = this.#dataHeard;
    // What came with the ping may have to wait for a turn of its own.
    nextTurn().then(nextTurn).then(() => {
      this.#isPonging = false;
      if (heard === this.#dataHeard) this.#sender.sendPongs();
    });
    return waits;
  }

  #hearer(): Hearer {
    return {
      data: () => {
        if (this.#state !== "open") throw outOfOrder();
        this.#dataHeard++;
        this.#heard();
      },
      control: (type, plaintext) => {
        if (type !== Type.bye) this.#heard();
        switch (type) {
          case Type.open:
            return this.#peerOpened();
          case Type.offer:
            return this.#peerOffered();
          case Type.end:
            if (this.#state !== "open") throw outOfOrder();
            this.#endReceived = true;
            return this.#endIfBoth();
          case Type.ping:
            // After both ends nothing more can be said.
            return this.haveBothEnded ? undefined : this.#pong();
          case Type.bye:
            return this.#peerLeft(plaintext);
        }
      },
      deaf: (isDeaf) => {
        this.#keepalive.deaf(isDeaf);
        if (this.#broken) this.#awaitReason(this.#broken);
      },
    };
  }

  #heard(): void {
    this.#keepalive.heard();
    this.#confirmed.resolve();
    this.#sign?.resolve();
    this.#sign = undefined;
    if (this.#state === "ended") this.#awaitSign();
  }

  #peerOpened(): void {
    const opener = this.#isOffered ? "client" : "server";
    if (this.#state !== "standby" || this.#role !== opener) throw outOfOrder();
    this.#hasOpened();
  }

  #peerOffered(): void {
    const mayOffer = this.#role === "server" && this.#state === "standby";
    if (!mayOffer || this.#isOffered) throw outOfOrder();
    this.#isOffered = true;
    this.#offered.resolve();
  }

  /** The peer gives the session up; what it said before may still be read. */
  #peerLeft(bye: Bytes): void {
    if (this.#state === "ended") throw outOfOrder();
    const error = byeError(reasonOf(bye), {
      peer: this.#role === "client" ? "server" : "client",
      identity: this.identity,
      service: this.service,
      isOffered: this.#isOffered,
      hasTalked: this.#receiver.taken > 0,
    });
    this.#state = "left";
    // That nothing could be written is no matter any more.
    this.#broken = undefined;
    this.#clock.clear(this.#limit);
    this.#fail({ reason: error });
    this.#sender.stop(error);
    this.#receiver.finish(error);
    closeQuietly(this.#transport);
  }

  #endIfBoth(): void {
    if (!this.haveBothEnded || this.#state !== "open") return;
    this.#state = "ended";
    this.#keepalive.stop();
    this.#awaitClose();
    this.#closing = this.#endConnection();
  }

  /** Gives up a peer that does not close, even if it pings. */
  #awaitClose(): void {
    const time = CLOSING_TIMEOUTS * this.#idleTimeout;
    this.#clock.clear(this.#limit);
    const message = `The peer did not close within ${
      time / 1000
    } s of both ends`;
    this.#limit = this.#clock.after(
      time,
      () => this.#close({ reason: new ChannelError("timeout", message) }),
    );
    this.#awaitSign();
  }

  /** Gives it up sooner if it gives no sign that it still reads. */
  #awaitSign(): void {
    const time = 2 * this.#idleTimeout;
    const giveUp = () =>
      this.#close({ reason: silent(time, "did not close after both ends") });
    this.#clock.clear(this.#silenceLimit);
    this.#silenceLimit = this.#clock.after(time, giveUp);
  }

  /**
   * After both ends: close_notify, then the peer's. It may take its time: what we
   * sent may still be on its way, and closing before would lose it.
   */
  async #endConnection(): Promise<void> {
    try {
      await this.#sender.flush();
      await this.#transport.closeWrite();
    } catch {
      // All has been said, on both sides: the peer may have closed already.
    }
  }

  #receivingFailed(reason: unknown): void {
    // All has been said, on both sides: what comes then is no message.
    if (this.#state === "ended") this.#connectionEnded();
    else if (!isCut(reason)) this.#close({ reason });
    else this.#close({ reason: this.#broken ?? reason });
  }

  /** The peer had ended its stream before the connection did. */
  async #connectionEnded(): Promise<void> {
    this.#isConnectionOver = true;
    if (this.#broken) return this.#close({ reason: this.#broken });
    // A peer may take our end, and close, before we know that it is written.
    await this.#ending?.catch(() => {});
    // What this side gave up has a bye to say first.
    if (this.#failure) return;
    if (!this.#endSent) {
      const message = "The peer closed before it had read everything";
      return this.#close({ reason: new ChannelError("cut", message) });
    }
    // What carries us may have a last word of its own, as a channel has.
    await this.#closing;
    this.#close();
  }

  /**
   * If our end has gone, all that failed is a ping: what was read still counts.
   * Otherwise the peer may have said why it closed; that is read first.
   */
  #writeFailed(cause: unknown): void {
    // Our bye, too, is in vain.
    if (this.#failure) return this.#close(this.#failure);
    if (this.#endSent) return this.#sender.stop(cause);
    const message = "The peer cut the connection";
    const reason = new ChannelError("cut", message, { cause });
    if (this.#isConnectionOver) return this.#close({ reason });
    this.#broken = reason;
    this.#awaitReason(reason);
  }

  /** The peer has a second to say why; whoever has to read on first, longer. */
  #awaitReason(reason: ChannelError): void {
    const time = this.#keepalive.isDeaf
      ? Math.max(2 * this.#idleTimeout, BYE_TIMEOUT)
      : BYE_TIMEOUT;
    this.#clock.clear(this.#limit);
    this.#limit = this.#clock.after(time, () => this.#close({ reason }));
  }

  /** Nothing more may be said. The first failure goes to every caller. */
  #fail(failure: { reason: unknown }): void {
    this.#failure ??= failure;
    const { reason } = this.#failure;
    this.#keepalive.stop();
    this.#opened.reject(reason);
    this.#confirmed.reject(reason);
    this.#offered.reject(reason);
    this.#sign?.reject(reason);
  }

  /** The one end of every session: with a failure, or after both ends. */
  #close(failure?: { reason: unknown }): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#clock.clear(this.#limit);
    this.#clock.clear(this.#silenceLimit);
    this.#keepalive.stop();
    if (failure) this.#fail(failure);
    const reason = this.#failure?.reason;
    this.#sender.stop(reason);
    if (failure) this.#receiver.stop(reason);
    for (const seal of this.#seals) seal.close();
    closeQuietly(this.#transport);
    // An error takes a tenth of a millisecond, and most have no use for it.
    this.#sign?.reject(reason ?? isClosed());
    if (failure) this.#closed.reject(reason);
    else this.#closed.resolve();
  }
}

/** Why a session was given up on this side. */
export function aborted(message: string, cause?: unknown): ChannelError {
  return new ChannelError("aborted", message, { cause });
}

function isClosed(): ChannelError {
  return aborted("The channel was closed");
}

function outOfOrder(): ChannelError {
  return new ChannelError("protocol", "The peer sent a message out of order");
}

/** Whether the connection ended without a word of the peer's. */
function isCut(error: unknown): boolean {
  return error instanceof ChannelError && error.code === "cut";
}

function silent(time: number, how: string): ChannelError {
  const seconds = Math.round(time / 100) / 10;
  return new ChannelError(
    "timeout",
    `The peer has been silent for ${seconds} s and ${how}`,
  );
}
