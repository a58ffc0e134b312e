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

/** A backend that does not answer is given up, after so many milliseconds. */
const CONNECT_TIMEOUT = 10_000;

/** A plain connection could not be made, or broke. */
export class SocketError extends Error {}

/**
 * Connects to an address, whose name is looked up now.
 *
 * @throws {SocketError} If nobody answers.
 */
export async function connectSocket(address: Address): Promise<Socket> {
  const socket = connect({ ...address, allowHalfOpen: true, noDelay: true });
  const timer = setTimeout(
    () => socket.destroy(new Error("it did not answer within 10 s")),
    CONNECT_TIMEOUT,
  );
  try {
    await once(socket, "connect");
    return socket;
  } catch (cause) {
    socket.destroy();
    const why = `Cannot reach ${format(address)}: ${(cause as Error).message}`;
    throw new SocketError(why, { cause });
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Listens on an address; each connection goes to `onSocket`, not yet read.
 *
 * @returns The server, and its address with the port that was taken.
 */
export async function listenSocket(
  address: Address,
  onSocket: (socket: Socket) => void,
): Promise<{ server: Server; address: Address }> {
  if ("path" in address) await removeStale(address.path);
  const options = { allowHalfOpen: true, noDelay: true, pauseOnConnect: true };
  const server = createServer(options, onSocket);
  server.listen(address);
  await once(server, "listening");
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
  } catch {
    await Deno.remove(path);
  }
}
