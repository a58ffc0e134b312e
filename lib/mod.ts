/**
 * Streams with two locks: AES-256-GCM frames under a shared secret, inside TLS.
 * What is said stays sealed where TLS ends early: at a load balancer, a
 * company's inspecting proxy, a CDN. The protocol is `innerlock/1`.
 *
 * {@linkcode listen} and {@linkcode connect} do both locks. A server:
 *
 * ```ts ignore
 * import { listen } from "@innerlock/innerlock";
 *
 * const listener = listen({ port: 5001, cert, key, psk });
 * for await (const channel of listener) {
 *   channel.readable.pipeTo(channel.writable).catch(console.error);
 * }
 * ```
 *
 * A client:
 *
 * ```ts ignore
 * import { connect } from "@innerlock/innerlock";
 *
 * await using channel = await connect({ port: 5001, caCerts: [cert], psk });
 * await ReadableStream.from(["hello"])
 *   .pipeThrough(new TextEncoderStream()).pipeTo(channel.writable);
 * console.log(await new Response(channel.readable).text());
 * ```
 *
 * {@linkcode connectChannel} and {@linkcode acceptChannel} do the inner lock
 * alone, over any duplex.
 *
 * @module
 */

export {
  acceptChannel,
  Channel,
  type ClientOptions,
  connectChannel,
  type HandshakeOptions,
} from "./channel.ts";
export { ChannelError, type ChannelErrorCode } from "./errors.ts";
export { isIdentity, parsePsk, type PskMap } from "./psk.ts";
export {
  connect,
  type ConnectOptions,
  listen,
  Listener,
  type ListenOptions,
} from "./tls.ts";
export type { FrameTrace } from "./trace.ts";
export type { StreamPair, Transport } from "./transport.ts";
