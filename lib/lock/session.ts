/**
 * A session: the messages that may be said when, the two ends, and the signs of
 * life, between a sender and a receiver. In the shape of `Deno.Conn`.
 *
 * @module
 */

import { byeError, encodeBye, reasonOf } from "./bye.ts";
import { CLOCK, type Clock, type Timer } from "./clock.ts";
import { ChannelError } from "./errors.ts";
import type { Bytes } from "./aes_gcm.ts";
import type { HandshakeResult } from "./handshake.ts";
import { IDLE_TIMEOUT, Keepalive } from "./keepalive.ts";
import { Type } from "./message.ts";
import { serviceOf } from "./psk.ts";
import { type Listener, Receiver } from "./receiver.ts";
import { Sender } from "./sender.ts";
import { closeQuietly, type Transport } from "./transport.ts";

/**
 * After both ends a peer that still gives signs of life is reading what was sent,
 * or says so. It is believed for this many idle timeouts: an hour by default.
 */
const CLOSING_TIMEOUTS = 144;

/** A server that was heard not longer ago is there, in milliseconds. */
const CERTAIN_TIME = 1000;

/** How long a server may take for its first sign after the open, in milliseconds. */
const SIGN_TIMEOUT = 10_000;

/** How long the transport may take for a bye, in milliseconds. */
const BYE_TIMEOUT = 1000;

/** What the client is to a session, and what the server. */
export type Role = "client" | "server";

/** The state of a session after its handshake. */
export class Session {
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

  readonly #transport: Transport;
  readonly #identity: string;
  readonly #sender: Sender;
  readonly #receiver: Receiver;
  readonly #keepalive: Keepalive;
  readonly #clock: Clock;
  /** Of the close: also where the stream has none. */
  readonly #idleTimeout: number;
  readonly #role: Role;
  readonly #closed = Promise.withResolvers<void>();
  readonly #opened = Promise.withResolvers<void>();
  readonly #confirmed = Promise.withResolvers<void>();
  /** Of the probes under way. */
  #sign: PromiseWithResolvers<void> | undefined;
  /** What the next write, or the end, has to wait for. */
  #turn: Promise<void> | undefined;
  #bytesSent = 0;
  #isProved = false;
  #isOpen = false;
  /** Of this side's end: resolves when it is written. */
  #ending: Promise<void> | undefined;
  #endSent = false;
  #endReceived = false;
  #isClosed = false;
  #failure: { reason: unknown } | undefined;
  /** Of this side's connection, after both ends; it does not reject. */
  #closing: Promise<void> | undefined;
  #closeTimer: Timer | undefined;
  #closeSilenceTimer: Timer | undefined;

  /**
   * @param role The server's session answers the client's first ping.
   * @param idleTimeout In milliseconds; 0 for no pings.
   */
  constructor(
    transport: Transport,
    { identity, sending, receiving, frames }: HandshakeResult,
    role: Role,
    idleTimeout: number = IDLE_TIMEOUT,
    clock: Clock = CLOCK,
  ) {
    this.#transport = transport;
    this.#identity = identity;
    this.#role = role;
    this.#idleTimeout = idleTimeout || IDLE_TIMEOUT;
    this.#clock = clock;
    this.closed = this.#closed.promise;
    this.closed.catch(() => {});
    this.opened = this.#turn = this.#opened.promise;
    this.opened.catch(() => {});
    this.confirmed = this.#confirmed.promise;
    this.confirmed.catch(() => {});
    if (role === "server") this.#confirmed.resolve();
    this.#sender = new Sender(
      transport,
      sending,
      (cause) => this.#writeFailed(cause),
      clock,
    );
    this.#receiver = new Receiver(frames, receiving, this.#listener());
    this.#keepalive = new Keepalive(
      idleTimeout,
      () => this.#ping(),
      (silence) => this.abort(silent(silence, "answered no ping")),
      clock,
      () => this.#sender.lastWrite,
    );
    this.#isProved = role === "server";
    if (role === "server") this.#sender.sendPong();
    this.#receiver.run().then(
      () => this.#connectionEnded(),
      (error) => this.#fail(error),
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

  /** Pings the peer; resolves when it has said something since. */
  async probe(): Promise<void> {
    if (this.#failure) throw this.#failure.reason;
    this.#sign ??= Promise.withResolvers();
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

  /**
   * Client: begins the stream, if it has not begun. A server that has been silent
   * in reserve must show that it is still there.
   */
  open(): void {
    if (this.#failure) throw this.#failure.reason;
    if (this.#isOpen || this.#role === "server") return;
    this.prove();
    if (this.#keepalive.silence > CERTAIN_TIME) {
      this.#keepalive.ask(SIGN_TIMEOUT);
    }
    this.#sender.sendControl(Type.open);
    this.#hasOpened();
  }

  /** As `Deno.Conn.read`. */
  read(p: Uint8Array): Promise<number | null> {
    return this.#receiver.read(p);
  }

  /** As `Deno.Conn.write`, but it takes all. */
  async write(p: Uint8Array): Promise<number> {
    this.#refuseAfterEnd();
    const turn = this.#inTurn(() => {
      this.#bytesSent += p.length;
      return this.#sender.send(p);
    });
    // A million small writes need not wait a million times.
    if (turn) await turn;
    return p.length;
  }

  /** As `Deno.Conn.closeWrite`: says the end, behind all that was written. */
  async closeWrite(): Promise<void> {
    this.#refuseAfterEnd();
    await (this.#ending = this.#sayEnd());
    await this.#closing;
  }

  /** As `Deno.Conn.close`; what has not ended by then is cut. */
  close(): void {
    if (this.haveBothEnded) return;
    this.abort(new ChannelError("aborted", "The channel was closed"));
  }

  /**
   * Gives the session up, without an end. Once the key is proved, the peer is told
   * why, behind all that was sealed before.
   */
  abort(error: unknown): void {
    if (this.#failure || this.#isClosed) return;
    const maySayBye = this.#isProved && !this.haveBothEnded;
    if (!maySayBye) return this.#fail(error);
    this.#break(error);
    this.#receiver.stop(error);
    const limit = this.#clock.after(BYE_TIMEOUT, () => this.#fail(error));
    this.#sender.finish(encodeBye(error), error)
      .catch(() => {})
      .finally(() => {
        this.#clock.clear(limit);
        this.#fail(error);
      });
  }

  /** Whether each side has said its end. */
  get haveBothEnded(): boolean {
    return this.#endSent && this.#endReceived;
  }

  #refuseAfterEnd(): void {
    if (this.#failure) throw this.#failure.reason;
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
    this.#closeIfEnded();
  }

  /** After what was asked for before, and not before the stream has begun. */
  #inTurn(
    work: () => Promise<void> | undefined,
  ): Promise<void> | undefined {
    this.open();
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
    this.#isOpen = true;
    this.#opened.resolve();
    if (this.#turn === this.opened) this.#turn = undefined;
  }

  /** One at a time: none joins another that the peer does not take. */
  #ping(): void {
    if (!this.#sender.hasPing) this.#sender.sendControl(Type.ping);
  }

  #listener(): Listener {
    return {
      data: () => {
        if (!this.#isOpen) throw outOfOrder();
        this.#heard();
      },
      control: (type, plaintext) => {
        if (type !== Type.bye) this.#heard();
        switch (type) {
          case Type.open:
            if (this.#isOpen || this.#role === "client") throw outOfOrder();
            return this.#hasOpened();
          case Type.end:
            if (!this.#isOpen) throw outOfOrder();
            this.#endReceived = true;
            this.#closeIfEnded();
            return;
          case Type.ping:
            // After both ends nothing more can be said.
            return this.haveBothEnded ? undefined : this.#sender.sendPong();
          case Type.bye:
            return this.#heardBye(plaintext);
          case Type.offer:
            throw outOfOrder();
        }
      },
      deaf: () => this.#keepalive.deaf(),
      hearing: () => this.#keepalive.hearing(),
    };
  }

  #heard(): void {
    this.#keepalive.heard();
    this.#confirmed.resolve();
    this.#sign?.resolve();
    this.#sign = undefined;
    if (this.#closeTimer !== undefined) this.#awaitSign();
  }

  /** Gives up a peer that does not close, even if it pings. */
  #awaitClose(): void {
    const time = CLOSING_TIMEOUTS * this.#idleTimeout;
    const message = `The peer did not close within ${
      time / 1000
    } s of both ends`;
    this.#closeTimer = this.#clock.after(
      time,
      () => this.#fail(new ChannelError("timeout", message)),
    );
    this.#awaitSign();
  }

  /** Gives it up sooner if it gives no sign that it still reads. */
  #awaitSign(): void {
    this.#clock.clear(this.#closeSilenceTimer);
    this.#closeSilenceTimer = this.#clock.after(
      2 * this.#idleTimeout,
      () =>
        this.#fail(
          silent(2 * this.#idleTimeout, "did not close after both ends"),
        ),
    );
  }

  #closeIfEnded(): void {
    if (!this.haveBothEnded || this.#isClosed) return;
    this.#keepalive.stop();
    this.#awaitClose();
    this.#closing = this.#endConnection();
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

  /** The peer had ended its stream before the connection did. */
  async #connectionEnded(): Promise<void> {
    // What this side gave up has a bye to say first.
    if (this.#failure) return;
    // A peer may take our end, and close, before we know that it is written.
    await this.#ending?.catch(() => {});
    if (!this.#endSent) {
      return this.#fail(
        new ChannelError(
          "cut",
          "The peer closed before it had read everything",
        ),
      );
    }
    // What carries us may have a last word of its own, as a channel has.
    await this.#closing;
    if (this.#finish()) this.#closed.resolve();
  }

  /** If our end has gone, all that failed is a ping: what was read still counts. */
  #writeFailed(cause: unknown): void {
    if (this.#endSent) return;
    this.#fail(
      new ChannelError("cut", "The peer cut the connection", { cause }),
    );
  }

  /** The peer gives the session up; what it said before may still be read. */
  #heardBye(bye: Bytes): void {
    if (this.haveBothEnded) throw outOfOrder();
    const error = byeError(reasonOf(bye), {
      peer: this.#role === "client" ? "server" : "client",
      identity: this.#identity,
      service: serviceOf(this.#identity),
      hasTalked: this.#receiver.taken > 0,
    });
    this.#break(error);
    this.#sender.stop(error);
    this.#receiver.finish(error);
    closeQuietly(this.#transport);
  }

  /** The first failure goes to every caller; the peer learns nothing. */
  #fail(reason: unknown): void {
    if (!this.#finish(reason)) return;
    this.#break(reason);
    this.#receiver.stop(reason);
    this.#closed.reject(reason);
  }

  /** Nothing more may be said. */
  #break(reason: unknown): void {
    this.#failure ??= { reason };
    this.#keepalive.stop();
    this.#opened.reject(reason);
    this.#confirmed.reject(reason);
    this.#sign?.promise.catch(() => {});
    this.#sign?.reject(reason);
  }

  #finish(reason?: unknown): boolean {
    if (this.#isClosed) return false;
    this.#isClosed = true;
    this.#clock.clear(this.#closeTimer);
    this.#clock.clear(this.#closeSilenceTimer);
    this.#keepalive.stop();
    this.#sender.stop(reason);
    closeQuietly(this.#transport);
    return true;
  }
}

function outOfOrder(): ChannelError {
  return new ChannelError("protocol", "The peer sent a message out of order");
}

function silent(time: number, how: string): ChannelError {
  const seconds = Math.round(time / 100) / 10;
  return new ChannelError(
    "timeout",
    `The peer has been silent for ${seconds} s and ${how}`,
  );
}
