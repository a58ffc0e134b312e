/**
 * The plain sockets at a tunnel's ends. They are `node:net`'s, for that can
 * reset a connection, which `Deno.Conn` cannot.
 *
 * @module
 */

import {
  type AddressInfo,
  connect,
  createServer,
  type Server,
  type Socket,
} from "node:net";
import { once } from "node:events";
import { type Address, format } from "./address.ts";
import { whyNotListening, whyNotReached } from "./words.ts";

/** A backend that does not answer is given up, after so many milliseconds. */
const CONNECT_TIMEOUT = 10_000;

/**
 * When the next of a name's addresses is tried, in milliseconds: a first packet
 * that was lost is sent again after one second, and three addresses are tried
 * within the whole time.
 */
const ATTEMPT_TIMEOUT = 3_000;

/** A plain connection or its listener could not be made, or broke. */
export class SocketError extends Error {}

/**
 * Connects to an address, whose name is looked up now.
 *
 * @param signal Gives it up, and throws the signal's reason.
 * @throws {SocketError} If nobody answers.
 */
export async function connectSocket(
  address: Address,
  signal?: AbortSignal,
): Promise<Socket> {
  signal?.throwIfAborted();
  const socket = connect({
    ...address,
    allowHalfOpen: true,
    noDelay: true,
    autoSelectFamilyAttemptTimeout: ATTEMPT_TIMEOUT,
  });
  const timer = setTimeout(
    () => socket.destroy(new Error("it did not answer within 10 s")),
    CONNECT_TIMEOUT,
  );
  try {
    await once(socket, "connect", { ...(signal && { signal }) });
    return socket;
  } catch (cause) {
    socket.destroy();
    signal?.throwIfAborted();
    const why = whyNotReached(address, cause as Error);
    throw new SocketError(`Cannot reach ${format(address)}: ${why}`, { cause });
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Listens on an address; each connection goes to `onSocket`, not yet read.
 *
 * @returns The server, and its address with the port that was taken.
 * @throws {SocketError} If the address cannot be had.
 */
export async function listenSocket(
  address: Address,
  onSocket: (socket: Socket) => void,
): Promise<{ server: Server; address: Address }> {
  if ("path" in address) await removeStale(address.path);
  const options = { allowHalfOpen: true, noDelay: true, pauseOnConnect: true };
  const server = createServer(options, onSocket);
  server.listen(address);
  try {
    await once(server, "listening");
  } catch (cause) {
    const why = whyNotListening(address, cause as Error);
    throw new SocketError(`Cannot listen on ${format(address)}: ${why}`, {
      cause,
    });
  }
  if ("path" in address) return { server, address };
  const { port } = server.address() as AddressInfo;
  return { server, address: { ...address, port } };
}

/** Removes a Unix socket that its listener has left behind. */
async function removeStale(path: string): Promise<void> {
  const info = await Deno.lstat(path).catch(() => undefined);
  if (!info?.isSocket) return;
  try {
    (await connectSocket({ path })).destroy();
  } catch (error) {
    // Any other failure may be that of one who is there: whose queue is full, or
    // whom we may not reach.
    const { code } = (error as SocketError).cause as NodeJS.ErrnoException;
    if (code === "ECONNREFUSED") await Deno.remove(path);
  }
}
