/**
 * The near end of a tunnel: each local caller gets a channel of its own.
 *
 * @module
 */

import { abortable } from "@std/async/abortable";
import { CLOCK, type Clock, type Timer } from "../lib/lock/clock.ts";
import { nextTurn } from "../lib/lock/runtime.ts";
import { type Channel, ChannelError } from "../lib/mod.ts";
import { broken, carryBoth } from "./relay.ts";
import type { Reserve } from "./reserve.ts";
import type { Resettable } from "./resettable.ts";
import { Source } from "./source.ts";

/** How long a caller waits for a server that is away, in milliseconds. */
const PATIENCE = 10_000;

/** A server that was heard not longer ago is there, in milliseconds. */
const CERTAIN_TIME = 1000;

/**
 * How long a session may take for a sign of life before another one is wanted, in
 * milliseconds. It has so long even where the caller's patience is over.
 */
const SIGN_TIME = 1500;

/** How the local caller is told of, and what its failure is to the server. */
const CALLER = { name: "The local caller", failure: "aborted" } as const;

/** What a caller needs of a reserve. */
export type Sessions = Pick<Reserve, "take" | "forsake">;

/** What carries a caller. */
export interface CarryOptions {
  sessions: Sessions;
  /** With whom the sessions are, for errors. @default {"server"} */
  peer?: "server" | "client";
  /**
   * Gets the session that carries the caller, once the peer has given a sign of
   * life; and another, if that is lost before anything was said.
   */
  taken?: (channel: Channel) => void;
  /** Is told why a caller was refused, or why it broke. */
  report: (error: Error) => void;
  /** Resets the caller. This is not reported. */
  signal: AbortSignal;
  /** Stands in for time in tests. */
  clock?: Clock;
}

/** A session whose stream has begun. */
interface Begun {
  channel: Channel;
  /** Resolves when the server has said something since. */
  sign: Promise<void>;
  /** Whether it has. */
  isLive: boolean;
}

/**
 * A local caller, who is carried over a session with the server.
 *
 * A session in reserve may be dead, or the server may be just closing it. The
 * caller's bytes go at once only where the server was heard a moment ago.
 * Elsewhere they wait for a sign of life. If a session is lost, a new one serves
 * the caller as long as none of its bytes can have arrived. After that, the
 * caller is reset: no byte is said twice.
 */
export class Caller {
  readonly #plain: Resettable;
  readonly #source: Source;
  readonly #options: CarryOptions;
  readonly #clock: Clock;
  readonly #deadline: number;

  /** Its patience begins here. */
  constructor(plain: Resettable, options: CarryOptions) {
    this.#plain = plain;
    this.#source = new Source(plain);
    this.#options = options;
    this.#clock = options.clock ?? CLOCK;
    this.#deadline = this.#clock.now() + PATIENCE;
  }

  /** Carries the caller until it ends. */
  async carry(): Promise<void> {
    const { signal, report } = this.#options;
    const gone = new AbortController();
    // Its data waits for the session, but a break is noticed at once.
    this.#source.read().catch((error) => gone.abort(broken(CALLER, error)));
    const stop = AbortSignal.any([signal, gone.signal]);
    try {
      for (let isFresh = false;; isFresh = true) {
        const begun = await this.#begin(stop, isFresh);
        if (await this.#carryOver(begun, isFresh)) break;
      }
      this.#plain.close();
    } catch (error) {
      this.#plain.reset();
      if (!signal.aborted) report(error as Error);
    }
  }

  /** How much of it is left, in milliseconds. */
  get #patience(): number {
    return Math.max(0, this.#deadline - this.#clock.now());
  }

  /** Begins the stream over a session that lives, as far as one can know. */
  async #begin(signal: AbortSignal, isFresh: boolean): Promise<Begun> {
    const { sessions } = this.#options;
    const channel = await sessions.take(this.#patience, signal, isFresh);
    // What the server has said by now, such as a bye, is read before more is said.
    await nextTurn();
    const isCertain = channel.silence < CERTAIN_TIME;
    // The ping goes first: its answer comes before a bye that follows the open.
    const begun = { channel, sign: channel.probe(), isLive: false };
    begun.sign.then(() => begun.isLive = true, () => {});
    // If it cannot begin, there is no sign either.
    channel.open().catch(() => {});
    if (isCertain) return begun;
    try {
      return await this.#whenLive(begun, signal);
    } catch (error) {
      channel.abort(error);
      if (signal.aborted || !isLoss(error) || isFresh) throw error;
      return await this.#begin(signal, true);
    }
  }

  /** Nothing has been said in it: whichever lives first is as good. */
  async #whenLive(begun: Begun, signal: AbortSignal): Promise<Begun> {
    const live = begun.sign.then(() => begun);
    const late = Promise.withResolvers<undefined>();
    const timer = this.#clock.after(SIGN_TIME, () => late.resolve(undefined));
    try {
      const first = await abortable(Promise.race([live, late.promise]), signal);
      if (first) return first;
    } finally {
      this.#clock.clear(timer);
    }
    this.#options.sessions.forsake(begun.channel.silence);
    const stop = new AbortController();
    const fresh = this.#begin(AbortSignal.any([signal, stop.signal]), true);
    const impatience = this.#clock.after(
      this.#patience,
      () => begun.channel.abort(this.#silent(PATIENCE)),
    );
    let first: Begun | undefined;
    try {
      first = await abortable(Promise.any([live, fresh]), signal);
      if (first !== begun) begun.channel.abort(this.#silent(SIGN_TIME));
      return first;
    } catch (error) {
      throw error instanceof AggregateError ? error.errors[1] : error;
    } finally {
      this.#clock.clear(impatience);
      stop.abort();
      // One that comes too late.
      fresh.then((late) => {
        if (late !== first) late.channel.abort();
      }, () => {});
    }
  }

  /**
   * Carries both directions. What the caller says is kept until there is a sign
   * of life.
   *
   * @returns Whether they have ended; otherwise another session may try.
   */
  async #carryOver(begun: Begun, isFresh: boolean): Promise<boolean> {
    const { channel, sign } = begun;
    const [plain, fromPlain] = [this.#plain, this.#source];
    sign.then(() => this.#options.taken?.(channel), () => {});
    let timer: Timer | undefined;
    if (!begun.isLive) {
      fromPlain.keep();
      const time = Math.max(SIGN_TIME, this.#patience);
      timer = this.#clock.after(
        time,
        () => channel.abort(this.#silent(time)),
      );
      sign.then(() => fromPlain.forget(), () => {})
        .finally(() => this.#clock.clear(timer));
    }
    try {
      const ends = { ...CALLER, plain, channel, fromPlain };
      await carryBoth(ends, this.#options.signal);
      return true;
    } catch (error) {
      channel.abort(error);
      if (!this.#mayCarryAgain(error, begun, isFresh)) throw error;
      fromPlain.rewind();
      return false;
    }
  }

  /**
   * Whether another session may carry what this one has not. A server that closes
   * a session in standby says so. Before it has answered the ping that went before
   * the open, it has taken neither that nor what followed. And a session that is
   * lost before either side has said anything may be replaced once.
   */
  #mayCarryAgain(
    error: unknown,
    { channel, isLive }: Begun,
    isFresh: boolean,
  ): boolean {
    if (!isLoss(error)) return false;
    const { code, isFromPeer } = error;
    const isTold = isFromPeer && (code === "stopping" || code === "limit");
    if (isTold && !isLive) return true;
    const { bytesSent, bytesReceived } = channel;
    const isUnsaid = bytesSent + bytesReceived === 0 && !this.#source.hasEnded;
    return isUnsaid && !isFresh;
  }

  #silent(time: number): ChannelError {
    const { peer = "server" } = this.#options;
    const seconds = Math.round(time / 100) / 10;
    const message = `The ${peer} gave no sign of life for ${seconds} s`;
    return new ChannelError("timeout", message);
  }
}

/** The session is gone, whatever became of what stands behind it. */
const LOSSES = ["cut", "timeout", "stopping", "limit"];

function isLoss(error: unknown): error is ChannelError {
  return error instanceof ChannelError && LOSSES.includes(error.code);
}
