/**
 * What a box has decrypted, written down: a recorder between the box and the
 * server, and a search in what it has.
 */

import { connect as connectNode } from "node:net";
import { Duplex } from "node:stream";
import { readProxyHeader } from "../lib/carrier/proxy_protocol.ts";
import { WebSocketTransport } from "../lib/carrier/websocket_frames.ts";
import { acceptWebSocket } from "../lib/carrier/websocket_handshake.ts";
import {
  toTransport,
  type Transport,
  writeAll,
} from "../lib/lock/transport.ts";
import { type Bytes, concat, readAll, Scripted } from "./scripted.ts";

/** What follows a recorder. */
export interface Target {
  port: number;
  /** What it is to be trusted by, PEM, if it speaks TLS. */
  caCert?: string;
}

/** One connection's two directions. */
interface Recording {
  up: Bytes[];
  down: Bytes[];
}

/**
 * Passes connections on and keeps what they say. What comes by TLS it decrypts
 * first, as the box before it has it in the clear.
 */
export class Recorder implements AsyncDisposable {
  /** Calls the server from here, as a machine of its own would. */
  static readonly ADDRESS = "127.0.0.9";

  /** Where connections go from now on. */
  target: Target;
  readonly #listener: Deno.TcpListener | Deno.TlsListener;
  readonly #recordings: Recording[] = [];
  readonly #passing: Promise<void>[] = [];
  readonly #accepting: Promise<void>;
  readonly #open = new Set<Transport>();

  /** @param pair The server's certificate and key, if it is to decrypt. */
  constructor(target: Target, pair?: { cert: string; key: string }) {
    this.target = target;
    const where = { hostname: "127.0.0.1", port: 0 };
    this.#listener = pair
      ? Deno.listenTls({ ...where, ...pair })
      : Deno.listen(where);
    this.#accepting = this.#accept();
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  /** All that passed, each direction of a connection in one piece. */
  async seen(): Promise<Bytes> {
    await Promise.all(this.#passing);
    const all = this.#recordings.map(async ({ up, down }) => [
      await withMessages(concat(up), "server"),
      await withMessages(concat(down), "client"),
    ]);
    return concat((await Promise.all(all)).flat());
  }

  async #accept(): Promise<void> {
    try {
      for await (const conn of this.#listener) {
        this.#passing.push(this.#pass(conn).catch(() => {}));
      }
    } catch {
      // It is closed.
    }
  }

  async #pass(near: Deno.Conn): Promise<void> {
    let far: Transport | undefined;
    try {
      this.#open.add(near);
      far = await dial(this.target);
      this.#open.add(far);
      const recording: Recording = { up: [], down: [] };
      this.#recordings.push(recording);
      await Promise.all([
        relay(near, far, recording.up),
        relay(far, near, recording.down),
      ]);
    } finally {
      close(near);
      if (far) close(far);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const conn of this.#open) close(conn);
    await this.#accepting;
    await Promise.all(this.#passing);
  }
}

async function dial({ port, caCert }: Target): Promise<Transport> {
  if (caCert !== undefined) {
    const alpnProtocols = ["innerlock/1", "http/1.1"];
    return await Deno.connectTls({ port, caCerts: [caCert], alpnProtocols });
  }
  const host = "127.0.0.1";
  // `Deno.connect` cannot choose its address.
  const socket = connectNode({
    ...{ host, port, localAddress: Recorder.ADDRESS, allowHalfOpen: true },
  });
  socket.on("error", () => {});
  return toTransport(
    Duplex.toWeb(socket) as unknown as Parameters<typeof toTransport>[0],
  );
}

/** Until one side ends; then that direction ends, or both if it breaks. */
async function relay(
  from: Transport,
  to: Transport,
  recording: Bytes[],
): Promise<void> {
  const buffer = new Uint8Array(65_536);
  try {
    for (let count; (count = await from.read(buffer)) !== null;) {
      recording.push(buffer.slice(0, count));
      await writeAll(to, buffer.subarray(0, count));
    }
    await to.closeWrite();
  } catch (error) {
    close(from);
    close(to);
    throw error;
  }
}

function close(conn: Transport): void {
  try {
    conn.close();
  } catch {
    // It is.
  }
}

/**
 * The bytes, and if they begin a WebSocket its messages too: a client masks what
 * it says, which hides nothing from anybody, but from a search.
 *
 * @param role Who reads them.
 */
async function withMessages(
  bytes: Bytes,
  role: "client" | "server",
): Promise<Bytes> {
  const text = latin1(bytes);
  if (!/^(GET|HTTP)[^]*\r\nupgrade: websocket\r\n/i.test(text)) return bytes;
  const frames = bytes.subarray(text.indexOf("\r\n\r\n") + 4);
  const socket = new WebSocketTransport(new Scripted(frames), role);
  return concat([bytes, await readAll(socket)]);
}

/** What carries the bytes to a server. */
interface Carrier {
  isWebSocket: boolean;
  /** Whether the PROXY protocol's header comes first. */
  hasHeader: boolean;
}

/**
 * A server without an inner lock, behind the same box: it passes on what the
 * outer lock has carried, a WebSocket's messages if there is one.
 */
export class OuterAlone implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #serving: Promise<void>;

  constructor(backend: number, carrier: Carrier) {
    this.#serving = this.#serve(backend, carrier);
  }

  get target(): Target {
    return { port: this.#listener.addr.port };
  }

  async #serve(
    port: number,
    { isWebSocket, hasHeader }: Carrier,
  ): Promise<void> {
    try {
      for await (const conn of this.#listener) {
        if (hasHeader) await readProxyHeader(conn);
        const near = isWebSocket
          ? (await acceptWebSocket(conn)).transport
          : conn;
        using far = await Deno.connect({ hostname: "127.0.0.1", port });
        await Promise.all([relay(near, far, []), relay(far, near, [])]);
        conn.close();
      }
    } catch {
      // It is closed.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.#serving;
  }
}

/** How a text may stand in a dump: as it is, in hex, in base64 at any offset. */
export function tracesOf(text: string): string[] {
  const hex = new TextEncoder().encode(text).toHex();
  const base64 = [0, 1, 2].map((offset) => {
    // What its neighbours may change is left out at both ends.
    const encoded = btoa("\0".repeat(offset) + text).replace(/=+$/, "");
    return encoded.slice(offset === 0 ? 0 : 4, -4);
  });
  return [text, hex, hex.toUpperCase(), ...base64];
}

/** Which of a text's traces are in a dump. */
export function found(text: string, dump: Bytes): string[] {
  const haystack = latin1(dump);
  return tracesOf(text).filter((trace) => haystack.includes(trace));
}

function latin1(bytes: Bytes): string {
  return new TextDecoder("latin1").decode(bytes);
}
