/**
 * Channels through both locks, on Deno: {@linkcode listen} and
 * {@linkcode connect}. `@innerlock/innerlock` has the inner lock alone, for any
 * runtime, and the types that both share.
 *
 * @module
 */

export {
  type HandshakeReport,
  listen,
  type Listener,
  type ListenerCredentials,
  type ListenOptions,
  type OpenOptions,
} from "./listener.ts";
export { connect, type ConnectOptions, type Proxy } from "./connect.ts";
export { UnansweredError } from "./lock/handshake.ts";
export { HttpError, type HttpErrorReason } from "./carrier/http.ts";
export type { ProxyCredentials } from "./carrier/proxy.ts";
export { TlsError, type TlsErrorReason } from "./carrier/tls_errors.ts";
