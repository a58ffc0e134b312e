/** Calls through a tunnel, and the backend that they reach. */

import { writeAll } from "../lib/lock/transport.ts";
import { receive, turns } from "./channels.ts";
import { milliseconds } from "./measure.ts";

const MB = 1e6;
const CHUNK = crypto.getRandomValues(new Uint8Array(65_536));

/**
 * Sends back what comes, or says when so many chunks have come, or takes all that
 * comes on a connection and tells that it has begun to.
 */
type Job = "echo" | { count: number } | { begun: () => void };

/** Whom the callers reach. */
export class Backend {
  /** What it does just now. */
  job: Job = "echo";
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });

  constructor() {
    (async () => {
      // It ends when the listener is closed.
      for await (const conn of this.#listener) {
        this.#serve(conn).catch(() => {});
      }
    })();
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  close(): void {
    this.#listener.close();
  }

  async #serve(conn: Deno.TcpConn): Promise<void> {
    conn.setNoDelay(true);
    const buffer = new Uint8Array(CHUNK.length);
    let count = 0;
    // A connection that has begun to take goes on so.
    let isTaking = false;
    for (let n; (n = await conn.read(buffer)) !== null;) {
      count += n;
      const { job } = this;
      if (isTaking) continue;
      if (job === "echo") {
        await writeAll(conn, buffer.subarray(0, n));
      } else if ("begun" in job) {
        isTaking = true;
        job.begun();
      } else if (count === job.count * CHUNK.length) {
        // Not told by an end: not every tunnel carries that of one direction.
        await conn.write(buffer);
      }
    }
    conn.close();
  }
}

/** As a caller does. */
export async function dial(port: number): Promise<Deno.TcpConn> {
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  conn.setNoDelay(true);
  return conn;
}

/** So many chunks of 64 KiB into the tunnel, until the backend has them. MB/s. */
export async function oneWay(port: number, chunks: number): Promise<number> {
  using conn = await dial(port);
  const ms = await milliseconds(async () => {
    for (let i = 0; i < chunks; i++) await writeAll(conn, CHUNK);
    await receive(conn, new Uint8Array(1));
  });
  return chunks * CHUNK.length / MB / ms * 1000;
}

/** 64 bytes there and back, so many times. Microseconds each. */
export async function roundTrip(port: number, times: number): Promise<number> {
  using conn = await dial(port);
  return await turns(conn, times);
}

/** The same while another caller sends without pause. */
export async function besideBulk(
  backend: Backend,
  port: number,
  times: number,
): Promise<number> {
  const begun = Promise.withResolvers<void>();
  backend.job = { begun: begun.resolve };
  using bulk = await dial(port);
  await writeAll(bulk, CHUNK);
  await begun.promise;
  // So much is on its way before the first of the others.
  for (let i = 0; i < 100; i++) await writeAll(bulk, CHUNK);
  backend.job = "echo";
  let isOver = false;
  const flooding = (async () => {
    while (!isOver) await writeAll(bulk, CHUNK);
  })();
  const time = await roundTrip(port, times);
  isOver = true;
  await flooding;
  return time;
}
