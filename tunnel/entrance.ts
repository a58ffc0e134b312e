/**
 * The client's end of a tunnel: each local connection gets a channel of its own.
 *
 * @module
 */

import type { Socket } from "node:net";
import { type Channel, ChannelError } from "../lib/mod.ts";
import { relay } from "./relay.ts";

/** The first pause after a failure, in milliseconds; it doubles each time. */
const FIRST_PAUSE = 100;

/** The longest pause, in milliseconds. */
const LONGEST_PAUSE = 5_000;

/** How long a local connection waits for a server that is away, in ms. */
const PATIENCE = 10_000;

/** Is told what people should know; `error` is absent when all is well again. */
export type Report = (message: string) => void;

/**
 * Carries local connections to a server that may be away for a while.
 *
 * A connection may come while the server is away: it waits, while the server is
 * dialled again, ever more rarely and by one connection at a time.
 */
export class Entrance {
  readonly #dial: () => Promise<Channel>;
  readonly #report: Report;
  /** What is wrong, while something is. */
  #trouble: string | undefined;
  #pause = FIRST_PAUSE;
  /** While the server is away, one dials, and the others wait for it. */
  #turn: Promise<void> = Promise.resolve();

  /**
   * @param dial Makes a channel, looking the server's name up anew.
   * @param report Is told once that the server cannot be reached, and once that
   * it can be again, besides of each connection that broke.
   */
  constructor(dial: () => Promise<Channel>, report: Report) {
    this.#dial = dial;
    this.#report = report;
  }

  /** Carries a connection to its end. */
  async carry(socket: Socket): Promise<void> {
    // Until the relay listens for it: a caller may go while it waits.
    socket.on("error", () => {});
    try {
      await using channel = await this.#reach(performance.now() + PATIENCE);
      await relay(channel, socket, "The local caller");
    } catch (error) {
      socket.resetAndDestroy();
      if (error !== GIVEN_UP) this.#report((error as Error).message);
    }
  }

  async #reach(deadline: number): Promise<Channel> {
    while (true) {
      if (this.#trouble !== undefined) return await this.#reachInTurn(deadline);
      const channel = await this.#try();
      if (channel) return channel;
    }
  }

  async #reachInTurn(deadline: number): Promise<Channel> {
    const before = this.#turn;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#turn = promise;
    await before;
    try {
      while (performance.now() < deadline) {
        if (this.#trouble !== undefined) await sleep(this.#pause);
        const channel = await this.#try();
        if (channel) return channel;
      }
      throw GIVEN_UP;
    } finally {
      resolve();
    }
  }

  async #try(): Promise<Channel | undefined> {
    try {
      const channel = await this.#dial();
      if (this.#trouble !== undefined) this.#report("The server is back");
      this.#trouble = undefined;
      this.#pause = FIRST_PAUSE;
      return channel;
    } catch (error) {
      this.#failed(error as Error);
    }
  }

  #failed(error: Error): void {
    const { message } = error;
    if (this.#trouble !== message) {
      this.#report(`${message}; trying again for each connection`);
    }
    this.#trouble = message;
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
    // Neither a wrong key nor a certificate mends itself within seconds.
    if (error instanceof ChannelError && isFinal(error)) throw GIVEN_UP;
  }
}

const GIVEN_UP = new Error("The server cannot be reached");

function isFinal({ code }: ChannelError): boolean {
  return code === "refused" || code === "untrusted" || code === "protocol";
}

function sleep(time: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, time));
}
