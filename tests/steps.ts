/** What can be seen of some work from outside, for tests that step in between. */

import type { Engine } from "../lib/lock/aes_gcm.ts";
import type { Transport } from "../lib/mod.ts";

/** Counts steps, and does something at one of them. */
export class Steps {
  #left = Infinity;
  #act = () => {};

  /** From here on, after so many steps, it does this, once. */
  at(count: number, act: () => void): void {
    this.#left = count;
    this.#act = act;
  }

  /** Does no more; whether it has come to that step. */
  stop(): boolean {
    this.#act = () => {};
    return this.#left < 0;
  }

  /** A step. */
  readonly step = (): void => {
    if (this.#left-- === 0) this.#act();
  };

  /** Steps before and after a call, and after what it promises. */
  #around<T extends void | object | number | null>(
    call: () => T | Promise<T>,
  ): T | Promise<T> {
    this.step();
    const result = call();
    if (!(result instanceof Promise)) return result;
    return result.finally(this.step);
  }

  /** The same engine; each key, and each message that it has to do with, is a step. */
  engine(engine: Engine): Engine {
    return {
      ...engine,
      createAead: (raw) => {
        this.step();
        const aead = engine.createAead(raw);
        return {
          seal: (...args) => this.#around(() => aead.seal(...args)),
          open: (...args) => this.#around(() => aead.open(...args)),
          close: () => aead.close(),
        };
      },
    };
  }

  /** The same transport; each call is a step, and so is its end. */
  transport(transport: Transport): Transport {
    const around = async <T extends void | number | null>(
      call: () => Promise<T>,
    ) => await this.#around(call);
    return {
      read: (p) => around(() => transport.read(p)),
      write: (p) => around(() => transport.write(p)),
      closeWrite: () => around(() => transport.closeWrite()),
      close: () => {
        this.step();
        transport.close();
      },
    };
  }
}
