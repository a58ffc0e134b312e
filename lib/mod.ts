/**
 * Streams with two locks: AES-256-GCM frames under a shared secret, inside TLS.
 * The data stays sealed even where TLS ends early: at a load balancer, a
 * company's inspecting proxy or a CDN. The protocol is `innerlock/1`.
 *
 * This module runs wherever there is WebCrypto. {@linkcode connectChannel} and
 * {@linkcode acceptChannel} put the inner lock on any duplex. On Deno,
 * `@innerlock/innerlock/deno` has both locks:
 *
 * ```ts
 * import { connect, listen } from "@innerlock/innerlock/deno";
 *
 * export async function echo(cert: string, key: string, psk: string) {
 *   const listener = listen({ port: 5001, cert, key, psk });
 *   for await (const channel of listener) {
 *     channel.readable.pipeTo(channel.writable).catch(console.error);
 *   }
 * }
 *
 * export async function hello(cert: string, psk: string): Promise<string> {
 *   await using channel = await connect({ port: 5001, caCerts: [cert], psk });
 *   const sent = new Blob(["hello"]).stream().pipeTo(channel.writable);
 *   const reply = await new Response(channel.readable).text();
 *   await sent;
 *   return reply;
 * }
 * ```
 *
 * @module
 */

export type { Aead, Bytes, Engine } from "./lock/aes_gcm.ts";
export {
  acceptChannel,
  type Channel,
  type ChannelOptions,
  type ClientOptions,
  connectChannel,
} from "./lock/channel.ts";
export {
  ChannelError,
  type ChannelErrorCode,
  type ChannelErrorOptions,
} from "./lock/errors.ts";
export { UnansweredError } from "./lock/handshake.ts";
export { parsePsk, type PskMap } from "./lock/psk.ts";
export type { FrameTrace } from "./lock/trace.ts";
export type {
  Addr,
  StreamPair,
  StreamReader,
  StreamWriter,
  Transport,
} from "./lock/transport.ts";
