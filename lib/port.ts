/**
 * A listener's port: it opens, and opens again to show another certificate.
 *
 * @module
 */

import { Backoff } from "./backoff.ts";
import { ALPN } from "./carrier/tls.ts";
import { CLOCK, type Clock } from "./lock/clock.ts";
import { closeQuietly } from "./lock/transport.ts";

/**
 * The first tells a client that no box in between ends TLS. The others are for
 * boxes that do not offer ours: TLS would refuse them.
 */
const ALPN_PROTOCOLS = [ALPN, "http/1.1", "h2"];

/** The longest pause before opening is tried again, in milliseconds. */
const LONGEST_PAUSE = 100;

/** How long to wait for a port that somebody else has taken, in ms. */
const REOPEN_TIMEOUT = 3_000;

/** A connection that was accepted. */
export type Conn = Deno.TlsConn | Deno.TcpConn;

/** A certificate chain and its private key, PEM. */
export interface Pair {
  /** The certificate chain. */
  cert?: string | undefined;
  /** Its private key. */
  key?: string | undefined;
}

/** Where a {@linkcode Port} is, and how it is open. */
export interface PortOptions {
  /** The port; 0 takes a free one. */
  port: number;
  /** The address. @default {"127.0.0.1"} */
  hostname?: string;
  /** Whether connections begin with TLS. @default {true} */
  tls?: boolean;
  /** Whether several processes may share it. @default {false} */
  reusePort?: boolean;
}

/** What a listener takes of the runtime. */
export interface System {
  /** Its time. */
  clock: Clock;
  /** As `Deno.listenTls`. */
  listenTls: typeof Deno.listenTls;
}

/** The runtime's own. */
export const SYSTEM: System = {
  clock: CLOCK,
  listenTls: (options) => Deno.listenTls(options),
};

/** A port that is open until it is closed, or lost. */
export class Port {
  /** Where it is, with the number that was taken. */
  readonly addr: Deno.NetAddr;

  readonly #options: PortOptions;
  readonly #onShortage: () => void;
  readonly #system: System;
  #listener: Deno.TlsListener | Deno.TcpListener;
  /** What it is to show; it does, unless it is being opened again. */
  #pair: Pair;
  #reopening: Promise<void> | undefined;
  #isClosed = false;

  /**
   * Opens it.
   *
   * @param onShortage Is called when it cannot be opened again for now, most
   * likely because descriptors have run out.
   * @param system Another in tests.
   */
  constructor(
    options: PortOptions,
    pair: Pair,
    onShortage: () => void,
    system: System,
  ) {
    this.#system = system;
    this.#options = options;
    this.#onShortage = onShortage;
    this.#pair = pair;
    const { hostname = "127.0.0.1", port } = options;
    this.#listener = this.#open({ hostname, port }, pair);
    this.addr = this.#listener.addr as Deno.NetAddr;
  }

  /**
   * The next connection; undefined once the port is closed.
   *
   * @throws If there is none for now, most likely because descriptors have run
   * out.
   */
  async accept(): Promise<Conn | undefined> {
    while (!this.#isClosed) {
      // If it fails, whoever wants another pair shown is told.
      await this.#reopening?.catch(() => {});
      const listener = this.#listener;
      try {
        return await listener.accept();
      } catch (error) {
        const isOver = this.#isClosed || this.#reopening !== undefined ||
          listener !== this.#listener;
        // If it is not, the client may be gone before it was accepted.
        if (isOver || error instanceof Deno.errors.NotConnected) continue;
        throw error;
      }
    }
  }

  /**
   * Shows another pair from now on, if it is another. For that, the port closes
   * and opens again. If several calls overlap, the last one counts.
   *
   * @returns What resolves when it does, and rejects if the port is lost.
   * @throws {Error} At once, if Deno refuses the pair. The old one stays.
   */
  show(pair: Pair): Promise<void> {
    const { cert, key } = this.#pair;
    const isOther = cert !== pair.cert || key !== pair.key;
    if (isOther && !this.#isClosed) {
      // A pair that Deno refuses must not cost us the port.
      this.#open({ hostname: "127.0.0.1", port: 0 }, pair).close();
      this.#pair = pair;
      this.#reopening ??= this.#reopen();
    }
    return this.#reopening ?? Promise.resolve();
  }

  /** Accepts no more. */
  close(): void {
    this.#isClosed = true;
    closeQuietly(this.#listener);
  }

  /** Opens it again until it shows the pair that it should. */
  async #reopen(): Promise<void> {
    try {
      let shown: Pair | undefined;
      while (!this.#isClosed && shown !== this.#pair) {
        this.#listener.close();
        shown = this.#pair;
        await this.#openAgain(shown);
      }
    } catch (error) {
      this.close();
      throw error;
    } finally {
      this.#reopening = undefined;
    }
  }

  async #openAgain(pair: Pair): Promise<void> {
    const { clock } = this.#system;
    const deadline = clock.now() + REOPEN_TIMEOUT;
    const backoff = new Backoff(1, LONGEST_PAUSE);
    while (true) {
      // Deno lets the port go only when the accept under way has ended.
      await new Promise<void>((resolve) =>
        clock.after(backoff.next(), resolve)
      );
      if (this.#isClosed) return;
      try {
        this.#listener = this.#open(this.addr, pair);
        return;
      } catch (error) {
        if (!(error instanceof Deno.errors.AddrInUse)) this.#onShortage();
        else if (clock.now() > deadline) throw error;
      }
    }
  }

  #open(
    { hostname, port }: Pick<Deno.NetAddr, "hostname" | "port">,
    { cert, key }: Pair,
  ): Deno.TlsListener | Deno.TcpListener {
    const { tls = true, reusePort = false } = this.#options;
    const where = { hostname, port, reusePort };
    if (!tls) return Deno.listen(where);
    if (cert === undefined || key === undefined) {
      throw new TypeError("Cannot listen without a certificate and its key");
    }
    const shown = { cert, key, alpnProtocols: ALPN_PROTOCOLS };
    return this.#system.listenTls({ ...where, ...shown });
  }
}
