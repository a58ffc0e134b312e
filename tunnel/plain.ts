/**
 * The plain ends of a tunnel: connections to a backend, and those of local
 * callers.
 *
 * @module
 */

import { delay } from "@std/async/delay";
import { basename, dirname } from "node:path";
import { Backoff } from "../lib/backoff.ts";
import { Notice } from "../lib/notice.ts";
import { type Address, format } from "./address.ts";
import { countLeft } from "./descriptors.ts";
import { OutOfDescriptors, type Resettable, resettable } from "./resettable.ts";
import { codeOf, whyNotPlain } from "./system_errors.ts";

/** How long a backend may take to answer, in milliseconds. */
const CONNECT_TIMEOUT = 10_000;

/** The pauses while there are no descriptors, or nothing can be accepted. */
const FIRST_PAUSE = 5;
const LONGEST_PAUSE = 200;

/** Descriptors for a caller: one to read, one to write, and its session's. */
const DESCRIPTORS = 3;

/** For how many callers they are counted at a time. */
const MAX_CALLERS = 8;

/** How long that counts, in milliseconds. */
const ANSWER_TIME = 100;

/** A plain connection or its listener could not be made, or broke. */
export class PlainError extends Error {}

/**
 * Connects to an address, whose name is looked up now. Without descriptors, it
 * waits until there are some.
 *
 * @param signal Cancels this, which then throws the signal's reason.
 * @throws {PlainError} If nobody answers.
 */
export async function connectPlain(
  address: Address,
  signal: AbortSignal,
): Promise<Resettable> {
  signal.throwIfAborted();
  const timeout = AbortSignal.timeout(CONNECT_TIMEOUT);
  const either = AbortSignal.any([signal, timeout]);
  const backoff = new Backoff(FIRST_PAUSE, LONGEST_PAUSE);
  while (true) {
    try {
      return await open(address, either);
    } catch (cause) {
      signal.throwIfAborted();
      const isShort = isShortage(cause);
      if (isShort && !timeout.aborted) {
        await delay(backoff.next(), { signal }).catch(() => {});
        continue;
      }
      const why = timeout.aborted && !isShort
        ? `it did not answer within ${CONNECT_TIMEOUT / 1000} s`
        : whyNotPlain(cause);
      const message = `Cannot reach ${format(address)}: ${why}`;
      throw new PlainError(message, { cause });
    }
  }
}

function isShortage(error: unknown): boolean {
  if (error instanceof OutOfDescriptors) return true;
  const code = codeOf(error);
  return code === "EMFILE" || code === "ENFILE";
}

async function open(
  address: Address,
  signal: AbortSignal,
): Promise<Resettable> {
  if ("path" in address) {
    const { path } = address;
    return resettable(await Deno.connect({ transport: "unix", path }));
  }
  const { host: hostname, port } = address;
  const conn = await Deno.connect({ hostname, port, signal });
  conn.setNoDelay(true);
  try {
    return resettable(conn);
  } catch (error) {
    conn.close();
    throw error;
  }
}

/** Accepts local callers. */
export interface PlainListener {
  /** Where it listens, with the port that was taken. */
  readonly address: Address;
  /** Whether {@linkcode close} has been called. */
  readonly isClosed: boolean;
  /** The next caller; undefined once it is closed. */
  accept(): Promise<Resettable | undefined>;
  /** Accepts no more; callers that were accepted live on. */
  close(): Promise<void>;
}

/** What {@linkcode listenPlain} takes. */
export interface PlainListenOptions {
  /** How many sessions are about to be made for other callers. */
  sessions?: () => number;
  /** Is told that callers wait for descriptors, once a minute at most. */
  onShortage?: () => void;
  /** Waits so many milliseconds; stands in for time in tests. */
  pause?: (time: number) => Promise<void>;
}

/** A listener that is bound to an address. */
interface Bound {
  listener: Deno.Listener;
  /** Where it is, with the port that was taken. */
  address: Address;
  close: () => Promise<void> | void;
}

const unhurried = (time: number) => delay(time, { persistent: false });

/**
 * Listens on an address. Without descriptors, callers wait in the system's
 * queue. They are accepted when there are enough for the caller, its session,
 * and the sessions about to be made.
 *
 * @throws {PlainError} If it cannot listen there.
 */
export async function listenPlain(
  address: Address,
  { sessions = () => 0, onShortage, pause = unhurried }: PlainListenOptions =
    {},
): Promise<PlainListener> {
  let bound: Bound;
  try {
    bound = "path" in address ? await bindUnix(address.path) : bindTcp(address);
  } catch (cause) {
    const kind = "path" in address ? "listen unix" : "listen";
    const why = whyNotPlain(cause, kind);
    throw new PlainError(`Cannot listen on ${format(address)}: ${why}`, {
      cause,
    });
  }
  const notice = new Notice();
  /** For how many more callers the last answer counts, and when it came. */
  let [callers, answered] = [0, -Infinity];
  const hasRoom = () => {
    const now = performance.now();
    if (callers === 0 || now - answered > ANSWER_TIME) {
      const coming = sessions();
      const max = MAX_CALLERS * DESCRIPTORS + coming;
      const left = countLeft(max, DESCRIPTORS + coming) - coming;
      callers = Math.max(0, Math.floor(left / DESCRIPTORS));
      answered = now;
    }
    if (callers > 0) {
      callers--;
      return true;
    }
    if (notice.isDue()) onShortage?.();
    return false;
  };
  return acceptor(bound, hasRoom, pause);
}

function bindTcp({ host, port }: Extract<Address, { port: number }>): Bound {
  const listener = Deno.listen({ hostname: host, port });
  const address = { host, port: listener.addr.port };
  return { listener, address, close: () => listener.close() };
}

/**
 * Deno removes a socket's path when its listener closes, even if the path is
 * somebody else's by then. So the socket is bound under another name and moved
 * into place, and removed from there only while it is ours. Both steps hold the
 * folder's lock.
 */
async function bindUnix(path: string): Promise<Bound> {
  return await withFolder(path, async () => {
    const code = await whyTaken(path);
    if (code) throw Object.assign(new Error("The path is taken"), { code });
    const bound = `${dirname(path)}/.${basename(path)}.${Deno.pid}`;
    const listener = Deno.listen({ transport: "unix", path: bound });
    let ino: number | null;
    try {
      ({ ino } = await Deno.lstat(bound));
      await Deno.rename(bound, path);
    } catch (error) {
      listener.close();
      throw error;
    }
    const close = async () => {
      listener.close();
      const removed = withFolder(path, async () => {
        const now = await Deno.lstat(path).catch(() => undefined);
        if (now?.ino === ino) await Deno.remove(path);
      });
      await removed.catch((error) => {
        // The folder is gone, and the socket with it.
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      });
    };
    return { listener, address: { path }, close };
  });
}

async function withFolder<T>(path: string, work: () => Promise<T>): Promise<T> {
  using folder = await Deno.open(dirname(path));
  await folder.lock(true);
  return await work();
}

/** Why a path cannot be used; a socket that was left behind may be replaced. */
async function whyTaken(path: string): Promise<string | undefined> {
  const info = await Deno.lstat(path).catch(() => undefined);
  if (!info) return undefined;
  if (!info.isSocket) return "EEXIST";
  try {
    (await Deno.connect({ transport: "unix", path })).close();
  } catch (error) {
    if (error instanceof Deno.errors.ConnectionRefused) return undefined;
    // After any other failure there may be a listener: its queue may be full, or
    // we may not be allowed to connect.
  }
  return "EADDRINUSE";
}

/**
 * @param hasRoom Whether there are descriptors for one caller more.
 * @param pause Waits so many milliseconds.
 */
function acceptor(
  { listener, address, close }: Bound,
  hasRoom: () => boolean,
  pause: (time: number) => Promise<void>,
): PlainListener {
  let isClosed = false;
  /** Tries until it works; undefined once the listener is closed. */
  const patiently = async <T>(work: () => T | Promise<T>) => {
    const backoff = new Backoff(FIRST_PAUSE, LONGEST_PAUSE);
    while (!isClosed) {
      try {
        return await work();
      } catch (error) {
        // The caller was gone before it was accepted: the next is not to blame.
        if (error instanceof Deno.errors.NotConnected) continue;
        await pause(backoff.next());
      }
    }
  };
  return {
    address,
    get isClosed() {
      return isClosed;
    },
    async accept() {
      await patiently(() => {
        if (!hasRoom()) throw new Deno.errors.Busy("Out of descriptors");
      });
      const conn = await patiently(() => listener.accept());
      if (!conn) return undefined;
      if ("setNoDelay" in conn) (conn as Deno.TcpConn).setNoDelay(true);
      const caller = await patiently(() => resettable(conn));
      if (!caller) conn.close();
      return caller;
    },
    async close() {
      isClosed = true;
      await close();
    },
  };
}
