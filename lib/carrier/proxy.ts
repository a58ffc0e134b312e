/**
 * A tunnel through a forward proxy: the CONNECT method of HTTP (RFC 9110,
 * section 9.3.6), with Basic credentials (RFC 7617) if given.
 *
 * @module
 */

import { type Head, HttpError, readHead, statusOf } from "./http.ts";
import { orClose } from "../lock/deadline.ts";
import { shown } from "../lock/errors.ts";
import { authority } from "./ip_address.ts";
import { type Transport, writeAll } from "../lock/transport.ts";

/** Who answers. */
const PROXY = { name: "The proxy", code: "proxy", start: "HTTP/1." } as const;

/** What {@linkcode connectThroughProxy} takes. */
export interface TunnelOptions {
  /** The name or address to reach; an IPv6 address without brackets. */
  hostname: string;
  /** The port there. */
  port: number;
  /** What to show the proxy. It travels in the clear, as HTTP does. */
  credentials?: ProxyCredentials;
  /** Gives the attempt up. */
  signal?: AbortSignal | undefined;
}

/** A user and password for a proxy. */
export interface ProxyCredentials {
  /** The user's name, without `:`. */
  username: string;
  /** The password; it may be empty. */
  password: string;
}

/**
 * Asks a proxy to connect to a host. When this resolves, the transport leads
 * there. It has been read up to the end of the proxy's answer and not a byte
 * further, so a `Deno.TcpConn` can be given to `Deno.startTls`.
 *
 * If this fails, the transport is closed.
 *
 * @example Reach a server from behind a proxy
 * ```ts ignore
 * const conn = await Deno.connect({ hostname: "proxy.example", port: 3128 });
 * await connectThroughProxy(conn, { hostname: "server.example", port: 443 });
 * const tls = await Deno.startTls(conn, { hostname: "server.example" });
 * ```
 *
 * @throws {HttpError} `proxy` if the proxy does not connect; `reason` says why,
 * `status` what it answered.
 * @throws {TypeError} If the host's or the user's name is not allowed in a
 * request.
 */
export async function connectThroughProxy(
  transport: Transport,
  options: TunnelOptions,
): Promise<void> {
  await orClose(transport, options.signal, async () => {
    await writeAll(transport, encodeConnect(options));
    // An answer that opens the tunnel has no body, whatever it says.
    const { head } = await readHead(transport, PROXY, true);
    const status = statusOf(head);
    if (status === undefined || status < 200 || status > 299) {
      throw refusal(head, status, options);
    }
  });
}

function encodeConnect(options: TunnelOptions): Uint8Array {
  const { hostname, port, credentials } = options;
  if (!/^[\w.:-]+$/.test(hostname)) {
    throw new TypeError(`Cannot ask a proxy for the host ${shown(hostname)}`);
  }
  const target = authority(hostname, port);
  return new TextEncoder().encode(
    `CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n` +
      (credentials ? `Proxy-Authorization: ${basic(credentials)}\r\n` : "") +
      "\r\n",
  );
}

function basic({ username, password }: ProxyCredentials): string {
  if (username.includes(":")) {
    throw new TypeError("Cannot show a proxy a user whose name has a colon");
  }
  const bytes = new TextEncoder().encode(`${username}:${password}`);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}

/** What an answer means that does not open the tunnel. */
function refusal(
  head: Head,
  status: number | undefined,
  options: TunnelOptions,
): HttpError {
  const target = authority(options.hostname, options.port);
  const answer = shown(head.startLine);
  const fail = (reason: HttpError["reason"], message: string) =>
    new HttpError("proxy", `The proxy ${message}`, reason, head);
  switch (status) {
    case 407:
      return options.credentials
        ? fail("credentials-refused", "rejects these credentials")
        : fail("credentials-missing", "asks for credentials");
    case 403:
      return fail("forbidden", `does not allow a connection to ${target}`);
    case 502:
    case 503:
    case 504:
      return fail("unreachable", `cannot reach ${target}: ${answer}`);
    default:
      return fail("status", `did not connect to ${target}: ${answer}`);
  }
}

/**
 * The kinds of credentials that a proxy asks for, as its `Proxy-Authenticate`
 * says: `Basic`, `Negotiate` and so on.
 */
export function proxySchemes(headers: Headers): string[] {
  const challenges = (headers.get("proxy-authenticate") ?? "")
    .replaceAll(/"(?:[^"\\]|\\.)*"/g, "")
    .split(",");
  // A challenge's further parameters follow commas too: `name=value`.
  return challenges.map((text) => text.trim().split(/\s+/)[0]!)
    .filter((word) => /^[\w-]+$/.test(word));
}
