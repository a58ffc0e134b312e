/**
 * The client's end of a tunnel: each local connection gets a channel of its own.
 *
 * @module
 */

import { abortable } from "@std/async/abortable";
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { type Channel, ChannelError } from "../lib/mod.ts";
import { relay } from "./relay.ts";

/** The first pause after a failure, in milliseconds; it doubles each time. */
const FIRST_PAUSE = 100;

/** The longest pause, in milliseconds: well within the patience of a caller. */
const LONGEST_PAUSE = 2_000;

/** How long a local connection waits for a server that is away, in ms. */
const PATIENCE = 10_000;

/** Is told what people should know. */
export type Report = (message: string) => void;

/**
 * Carries local connections to a server that may be away for a while.
 *
 * A connection may come while the server is away: it waits, while the server is
 * dialled again, ever more rarely and by one connection at a time.
 */
export class Entrance {
  readonly #dial: (signal: AbortSignal) => Promise<Channel>;
  readonly #report: Report;
  /** What is wrong, while something is. */
  #trouble: string | undefined;
  #pause = FIRST_PAUSE;
  /** When the pause ends. */
  #nextDial = 0;
  /** While the server is away, one dials, and the others wait for it. */
  #turn: Promise<unknown> = Promise.resolve();

  /**
   * @param dial Makes a channel, looking the server's name up anew; gives it up
   * at the signal.
   * @param report Is told once that the server cannot be reached, and once that
   * it can be again, besides of each connection that broke.
   */
  constructor(
    dial: (signal: AbortSignal) => Promise<Channel>,
    report: Report,
  ) {
    this.#dial = dial;
    this.#report = report;
  }

  /**
   * Carries a connection to its end.
   *
   * @param signal Resets it. Whoever gives the signal knows: it is not reported.
   */
  async carry(socket: Socket, signal: AbortSignal): Promise<void> {
    // Until the relay listens for it: a caller may go while it waits.
    socket.on("error", () => {});
    try {
      const deadline = performance.now() + PATIENCE;
      await using channel = await this.#reach(deadline, signal);
      await relay(channel, socket, "The local caller", signal);
    } catch (error) {
      socket.resetAndDestroy();
      if (signal.aborted || error === GIVEN_UP) return;
      this.#report((error as Error).message);
    }
  }

  async #reach(deadline: number, signal: AbortSignal): Promise<Channel> {
    const channel = this.#trouble === undefined && await this.#try(signal);
    return channel || await this.#reachInTurn(deadline, signal);
  }

  async #reachInTurn(
    deadline: number,
    signal: AbortSignal,
  ): Promise<Channel> {
    const before = this.#turn;
    const mine = Promise.withResolvers<void>();
    // Whoever is told to stop does not let the next one in ahead of its turn.
    this.#turn = before.then(() => mine.promise);
    try {
      await abortable(before, signal);
      while (performance.now() < deadline) {
        if (this.#trouble !== undefined) {
          // It dials a last time when its patience ends.
          const wait = Math.min(this.#nextDial, deadline) - performance.now();
          await sleep(Math.max(0, wait), undefined, { signal });
        }
        const channel = await this.#try(signal);
        if (channel) return channel;
      }
      throw GIVEN_UP;
    } finally {
      mine.resolve();
    }
  }

  async #try(signal: AbortSignal): Promise<Channel | undefined> {
    try {
      const channel = await this.#dial(signal);
      if (this.#trouble !== undefined) this.#report("The server is back");
      this.#trouble = undefined;
      this.#pause = FIRST_PAUSE;
      return channel;
    } catch (error) {
      signal.throwIfAborted();
      this.#failed(error as Error);
    }
  }

  #failed(error: Error): void {
    const { message } = error;
    if (this.#trouble !== message) {
      this.#report(`${message}; trying again for each connection`);
    }
    this.#trouble = message;
    this.#nextDial = performance.now() + this.#pause;
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
    if (error instanceof ChannelError && isFinal(error)) throw GIVEN_UP;
  }
}

const GIVEN_UP = new Error("The server cannot be reached");

/**
 * A certificate does not mend itself within seconds. But what looks like a
 * refusal may be a proxy whose servers are down, or a server that is full or
 * being replaced: each closes without a word, as one that does not know the key.
 */
function isFinal({ code }: ChannelError): boolean {
  return code === "untrusted";
}
