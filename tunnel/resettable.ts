/**
 * Plain TCP connections that can be broken, and not only ended, and that notice
 * when their peer has vanished.
 *
 * `Deno.Conn` cannot: its `close()` shuts the connection down first, so the peer
 * sees a clean end (FIN) before anything else. `node:net` can, but it loses what
 * it writes to a peer that has half-closed. So a connection is read through the
 * one and written through the other, by two descriptors of the same socket.
 *
 * That needs internals of the runtime. Each is looked for before it is used.
 * Where one is missing a connection is `Deno.Conn`'s alone: nothing of a healthy
 * stream is lost, but a break looks like an end.
 *
 * @module
 */

import { Socket } from "node:net";
import process from "node:process";
import { Layer } from "../lib/carrier/layer.ts";
import type { Transport } from "../lib/mod.ts";
import { closeQuietly } from "../lib/lock/transport.ts";

/** A connection that can be broken. */
export interface Resettable extends Transport {
  /** Breaks it: the peer sees a reset (RST) where the system allows it. */
  reset(): void;
}

/** The handle of a `node:net` socket, as Deno makes it. */
interface Handle {
  /** Duplicates the descriptor of a `Deno.TcpConn`; 0, or an error's number. */
  openFromRid(rid: number): number;
  /** Has the socket's last close send RST (`SO_LINGER` of 0 seconds). */
  reset(): number;
  /** Has the system probe a silent peer (`SO_KEEPALIVE`), after so many seconds. */
  setKeepAlive?(isOn: boolean, delay: number): number;
  close(): void;
}

type NewHandle = new (type: number) => Handle;

/** What `TCP` takes for a connection. */
const SOCKET = 0;

/**
 * A peer that has been silent for this long is probed, in seconds. If it has gone
 * without a word, the system breaks the connection: on Linux after 9 probes in
 * vain, one each 75 s, about a quarter of an hour in all.
 */
const KEEPALIVE_DELAY = 240;

/** Those that are open: the end of the process breaks them too. */
const live = new Set<NodeReadConn>();

for (const event of ["unload", "error", "unhandledrejection"]) {
  globalThis.addEventListener(event, () => {
    for (const conn of live) conn.linger();
  });
}

/**
 * Makes a connection resettable.
 *
 * @param newHandle The runtime's internal class; null if there is none.
 * @throws {OutOfDescriptors} If there is no second descriptor to be had.
 */
export function resettable(
  conn: Deno.Conn,
  newHandle: NewHandle | null = handleClass(),
): Resettable {
  const rid = ridOf(conn);
  if (newHandle === null || rid === undefined) return new EndOnlyConn(conn);
  const handle = new newHandle(SOCKET);
  if (handle.openFromRid(rid) === 0) {
    handle.setKeepAlive?.(true, KEEPALIVE_DELAY);
    return new NodeReadConn(conn as Deno.TcpConn, handle);
  }
  handle.close();
  throw new OutOfDescriptors("There is no second descriptor");
}

/** A connection's second descriptor could not be had. */
export class OutOfDescriptors extends Error {}

function handleClass(): NewHandle | null {
  const { binding } = process as unknown as {
    binding?(name: string): { TCP?: { prototype: object } };
  };
  try {
    const TCP = binding?.("tcp_wrap").TCP;
    const hasAll = ["openFromRid", "reset", "close"].every((name) =>
      TCP && name in TCP.prototype
    );
    return hasAll ? TCP as unknown as NewHandle : null;
  } catch {
    return null;
  }
}

/** The number of a TCP connection's resource, under a symbol of Deno's own. */
function ridOf(conn: Deno.Conn): number | undefined {
  if (conn.remoteAddr.transport !== "tcp") return undefined;
  for (let at = conn; at !== null; at = Object.getPrototypeOf(at)) {
    for (const symbol of Object.getOwnPropertySymbols(at)) {
      if (symbol.description !== "Deno.internal.rid") continue;
      const rid = (conn as unknown as Record<symbol, unknown>)[symbol];
      if (typeof rid === "number") return rid;
    }
  }
  return undefined;
}

/** All that can be done without internals, and for a Unix socket. */
class EndOnlyConn extends Layer implements Resettable {
  read(p: Uint8Array): Promise<number | null> {
    return this.beneath.read(p);
  }

  override close(): void {
    closeQuietly(this.beneath);
  }

  reset(): void {
    this.close();
  }
}

/** A read buffer of a connection that says little, in bytes. */
const IDLE_BUFFER = 4 * 1024;

/** One of a connection that says much. */
const BUSY_BUFFER = 64 * 1024;

/** A write that is not over by then is not read by the peer, in milliseconds. */
const LAST_WRITE = 100;

/**
 * `Deno.startTls` takes a connection over before it reads the certificates, and
 * closes its descriptor without a shutdown when it cannot.
 */
const NO_CERTIFICATE =
  "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";

/** Written through a `Deno.TcpConn`, read through a `node:net` socket. */
class NodeReadConn implements Resettable {
  readonly remoteAddr: Deno.NetAddr;
  readonly #conn: Deno.TcpConn;
  readonly #handle: Handle;
  readonly #socket: Socket;
  #buffer = new Uint8Array(IDLE_BUFFER);
  /** What has been read and not been taken, within the buffer. */
  #rest = new Uint8Array(0);
  #waiting: PromiseWithResolvers<number | null> & { p: Uint8Array } | undefined;
  #hasEnded = false;
  #isReading = false;
  #error: { error: unknown } | undefined;
  /** The last write, which may be over. */
  #writing: Promise<unknown> = Promise.resolve();

  constructor(conn: Deno.TcpConn, handle: Handle) {
    this.#conn = conn;
    this.#handle = handle;
    this.remoteAddr = conn.remoteAddr;
    const options = {
      handle,
      allowHalfOpen: true,
      // Nothing is read before it is asked for.
      pauseOnCreate: true,
      onread: {
        buffer: () => this.#buffer,
        callback: (count: number, buffer: Uint8Array<ArrayBuffer>) =>
          this.#received(buffer.subarray(0, count)),
      },
    };
    type SocketOptions = ConstructorParameters<typeof Socket>[0];
    this.#socket = new Socket(options as SocketOptions);
    this.#socket.on("end", () => {
      this.#hasEnded = true;
      this.#waiting?.resolve(null);
      this.#waiting = undefined;
    });
    this.#socket.on("error", (error) => this.#fail(error));
    live.add(this);
  }

  read(p: Uint8Array): Promise<number | null> {
    if (this.#rest.length > 0) {
      const count = Math.min(p.length, this.#rest.length);
      p.set(this.#rest.subarray(0, count));
      this.#rest = this.#rest.subarray(count);
      return Promise.resolve(count);
    }
    if (this.#error) return Promise.reject(this.#error.error);
    if (this.#hasEnded) return Promise.resolve(null);
    const waiting = { p, ...Promise.withResolvers<number | null>() };
    this.#waiting = waiting;
    if (!this.#isReading) this.#socket.resume();
    this.#isReading = true;
    return waiting.promise;
  }

  write(p: Uint8Array): Promise<number> {
    if (!live.has(this)) return Promise.reject(this.#error!.error);
    const writing = this.#conn.write(p);
    this.#writing = writing;
    return writing;
  }

  closeWrite(): Promise<void> {
    return this.#conn.closeWrite();
  }

  close(): void {
    if (!this.#forget()) return;
    this.#conn.close();
    this.#socket.destroy();
  }

  reset(): void {
    if (!this.#forget()) return;
    this.linger();
    this.#socket.destroy();
    this.#drop();
  }

  /** Lets the last descriptor go without a shutdown: this sends RST. */
  async #drop(): Promise<void> {
    // A write under way holds the descriptor. To close the connection ends it,
    // with a FIN behind all that the peer has not read: then RST comes first.
    const timer = setTimeout(() => this.#conn.close(), LAST_WRITE);
    await this.#writing.catch(() => {});
    clearTimeout(timer);
    await Deno.startTls(this.#conn, { caCerts: [NO_CERTIFICATE] }).catch(() =>
      closeQuietly(this.#conn)
    );
  }

  /** From now on the close of the last descriptor sends RST. */
  linger(): void {
    this.#handle.reset();
  }

  #forget(): boolean {
    this.#fail(new Deno.errors.BadResource("The connection is closed"));
    return live.delete(this);
  }

  #fail(error: unknown): void {
    this.#error ??= { error };
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }

  /** Gives what came to whoever waits; false has the socket read no further. */
  #received(bytes: Uint8Array<ArrayBuffer>): boolean {
    const isFull = bytes.length === this.#buffer.length;
    if (isFull && bytes.length < BUSY_BUFFER) {
      this.#buffer = new Uint8Array(BUSY_BUFFER);
    }
    const waiting = this.#waiting;
    const count = Math.min(waiting?.p.length ?? 0, bytes.length);
    waiting?.p.set(bytes.subarray(0, count));
    this.#rest = bytes.subarray(count);
    this.#waiting = undefined;
    waiting?.resolve(count);
    this.#isReading = this.#rest.length === 0;
    return this.#isReading;
  }
}
