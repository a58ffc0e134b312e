/** What lies between a client and a server, for tests to break. */

import { writeAll } from "../lib/lock/transport.ts";

/** Carries connections to a port, and may cut them, freeze them or be slow. */
export class Cable implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #rate: number;
  readonly #frozen = new Set<Deno.Conn>();
  readonly #conns: Deno.Conn[] = [];
  readonly #carrying: Promise<void>[] = [];
  #lastPassed = performance.now();
  readonly #over = Promise.withResolvers<void>();
  /** Of each direction: when the last byte so far has gone, in milliseconds. */
  readonly #busyUntil = { up: 0, down: 0 };

  /** @param rate What all share in a direction, in bytes a second. */
  constructor(port: number, rate = Infinity) {
    this.#rate = rate;
    this.#carrying.push(this.#accept(port));
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  /** What is connected now stays so, but nothing comes through any more. */
  freeze(): void {
    for (const conn of this.#conns) this.#frozen.add(conn);
  }

  /** Waits until nothing has come through for so long, in milliseconds. */
  async quiet(time: number): Promise<void> {
    for (let left = time; left > 0;) {
      await new Promise((resolve) => setTimeout(resolve, left));
      left = this.#lastPassed + time - performance.now();
    }
  }

  cut(): void {
    for (const conn of this.#conns.splice(0)) conn.close();
  }

  async #accept(port: number): Promise<void> {
    for await (const near of this.#listener) {
      const far = await Deno.connect({ port });
      this.#conns.push(near, far);
      this.#carrying.push(
        this.#carry(near, far, "up").catch(() => {}),
        this.#carry(far, near, "down").catch(() => {}),
      );
    }
  }

  async #carry(
    from: Deno.Conn,
    to: Deno.Conn,
    direction: "up" | "down",
  ): Promise<void> {
    // A slow way takes little at a time, so that all have their turn.
    const size = this.#rate === Infinity ? 65_536 : 512;
    const buffer = new Uint8Array(size);
    for (let count; (count = await from.read(buffer)) !== null;) {
      if (this.#frozen.has(from)) return await this.#over.promise;
      this.#lastPassed = performance.now();
      await this.#pass(count, direction);
      await writeAll(to, buffer.subarray(0, count));
    }
    if (this.#frozen.has(from)) return await this.#over.promise;
    await to.closeWrite();
  }

  /** Waits until so many bytes have gone, behind those of all others. */
  async #pass(count: number, direction: "up" | "down"): Promise<void> {
    if (this.#rate === Infinity) return;
    const now = performance.now();
    const time = 1000 * count / this.#rate;
    const until = Math.max(now, this.#busyUntil[direction]) + time;
    this.#busyUntil[direction] = until;
    await new Promise((resolve) => setTimeout(resolve, until - now));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.cut();
    this.#over.resolve();
    await Promise.all(this.#carrying);
  }
}
