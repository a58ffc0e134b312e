/** Peers of `innerlock/1` that can say anything, spoken by hand. */

import { TAG_LENGTH } from "../lib/lock/aes_gcm.ts";
import { encodeFrames, FrameReader } from "../lib/lock/frame.ts";
import { MessageSeal, type Seal, Type } from "../lib/lock/message.ts";
import {
  acceptChannel,
  type Channel,
  type ChannelOptions,
  type StreamPair,
  type Transport,
} from "../lib/mod.ts";
import { HandshakeState } from "../lib/lock/noise.ts";
import { closeQuietly, toTransport, writeAll } from "../lib/lock/transport.ts";
import { duplex, KEY, PSK } from "./duplex.ts";
import { sealed } from "./engines.ts";

type Bytes = Uint8Array<ArrayBuffer>;

export const ping = new Uint8Array([Type.ping]);
export const pong = new Uint8Array([Type.pong]);
export const end = new Uint8Array([Type.end]);
export const open = new Uint8Array([Type.open]);
export const offer = new Uint8Array([Type.offer]);

/** Seals nothing, at once: no thread is at work when a test ends. */
export const PLAIN: Seal = {
  isSynchronous: true,
  seal: (bytes) => void bytes.fill(0, -TAG_LENGTH),
  open: (frame) => frame.subarray(0, -TAG_LENGTH),
  close() {},
};

/** A message of data. */
export function data(text: string): Bytes {
  return new Uint8Array([Type.data, ...new TextEncoder().encode(text)]);
}

/** Says what a test wants, frame by frame or not at all. */
export class RawPeer {
  readonly #transport: Transport;
  readonly #frames: FrameReader;
  /** Once the handshake is done. */
  seals: { sending: Seal; receiving: Seal } | undefined;

  constructor(duplex: StreamPair | Transport) {
    this.#transport = toTransport(duplex);
    this.#frames = new FrameReader(this.#transport);
  }

  /** The client's part of a handshake, up to what the server answers. */
  async initiate(identity = "default"): Promise<void> {
    const hello = new TextEncoder().encode(`innerlock/1 ${identity}`);
    const psk = Uint8Array.fromHex(KEY);
    const state = await HandshakeState.initialize({ prologue: hello, psk });
    await this.write(encodeFrames([hello, await state.writeMessage1()]));
    await state.readMessage2((await this.readFrame())!);
    const [up, down] = await state.split();
    this.seals = {
      sending: new MessageSeal(up),
      receiving: new MessageSeal(down),
    };
  }

  /** The server's part of a handshake, up to the client's ping. */
  async respond(): Promise<void> {
    const prologue = (await this.readFrame())!;
    const psk = Uint8Array.fromHex(KEY);
    const state = await HandshakeState.initialize({ prologue, psk });
    await state.readMessage1((await this.readFrame())!);
    await this.write(encodeFrames([await state.writeMessage2()]));
    const [up, down] = await state.split();
    this.seals = {
      sending: new MessageSeal(down),
      receiving: new MessageSeal(up),
    };
  }

  /** Seals plaintexts in order into one write. */
  async say(...plaintexts: Bytes[]): Promise<void> {
    await this.write(await this.sealed(...plaintexts));
  }

  /** What {@linkcode say} writes. */
  async sealed(...plaintexts: Bytes[]): Promise<Bytes> {
    const { sending } = this.seals!;
    return encodeFrames(
      await Promise.all(plaintexts.map((text) => sealed(sending, text))),
    );
  }

  /** The next message's plaintext; undefined once the other side has closed. */
  async hear(): Promise<Bytes | undefined> {
    const frame = await this.readFrame();
    return frame && await this.seals!.receiving.open(frame);
  }

  /** Hears messages up to one of that type, and returns it. */
  async hearUntil(type: Type): Promise<Bytes> {
    while (true) {
      const message = await this.hear();
      if (!message) throw new Error("The other side has closed");
      if (message[0] === type) return message;
    }
  }

  /** The next frame's bytes; undefined once the other side has closed. */
  async readFrame(): Promise<Bytes | undefined> {
    try {
      return (await this.#frames.next(0))?.slice();
    } catch {
      return undefined;
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    await writeAll(this.#transport, bytes);
  }

  /** Ends the connection's direction, not the stream's. */
  async close(): Promise<void> {
    await this.#transport.closeWrite();
  }

  /** Breaks the connection. */
  cut(): void {
    closeQuietly(this.#transport);
  }
}

/**
 * A channel of the server's whose client is spoken by hand.
 *
 * @param say What the client says behind the handshake, the ping first; meanwhile
 * the channel is accepted.
 */
export async function rawClient(
  say: (peer: RawPeer) => Promise<unknown>,
  options: Partial<ChannelOptions> = {},
): Promise<[Channel, RawPeer]> {
  const [near, far] = duplex();
  const peer = new RawPeer(near);
  const [channel] = await Promise.all([
    acceptChannel(far, { psk: PSK, idleTimeout: 0, ...options }),
    peer.initiate().then(() => say(peer)),
  ]);
  return [channel, peer];
}
