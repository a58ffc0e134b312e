/**
 * The limits of a listener: how many channels, and how many connections that
 * have not proved a key yet.
 *
 * @module
 */

import { ChannelError } from "./lock/errors.ts";
import { Notice } from "./notice.ts";
import { canonicalAddress } from "./carrier/ip_address.ts";

/** How many channels there may be, unless told otherwise. */
const MAX_CONNECTIONS = 10_000;

/** How many handshakes. */
const MAX_HANDSHAKES = 256;

/** What may run out. */
export type Limit = "connections" | "handshakes" | "descriptors";

/** What {@linkcode Admission} takes. */
export interface AdmissionOptions {
  /** How many channels there may be. @default {10000} */
  maxConnections?: number;
  /** How many handshakes may be under way. @default {256} */
  maxHandshakes?: number;
  /** Is called when a limit is reached, at most once a minute. */
  onLimit?: (limit: Limit) => void;
}

/** A connection that has not proved a key yet. */
interface Handshake {
  network: string;
  /** The order in which they came. */
  number: number;
  /** Ends it. */
  drop: (reason: ChannelError) => void;
}

/**
 * Decides who is let in.
 *
 * Handshakes have a limit of their own, so whoever cannot prove a key takes no
 * place from those who can. If there are too many, the network with most of them
 * loses its oldest. So a flood displaces itself, and others have the time that
 * they need.
 */
export class Admission {
  readonly #maxConnections: number;
  readonly #maxHandshakes: number;
  readonly #onLimit: (limit: Limit) => void;
  /** In each network, oldest first. */
  readonly #networks = new Map<string, Set<Handshake>>();
  readonly #notices: Record<Limit, Notice> = {
    connections: new Notice(),
    handshakes: new Notice(),
    descriptors: new Notice(),
  };
  #count = 0;
  #handshakes = 0;

  /** Nobody is in yet. */
  constructor(options: AdmissionOptions) {
    this.#maxConnections = options.maxConnections ?? MAX_CONNECTIONS;
    this.#maxHandshakes = options.maxHandshakes ?? MAX_HANDSHAKES;
    this.#onLimit = options.onLimit ?? (() => {});
  }

  /** How many handshakes are under way. */
  get handshakes(): number {
    return this.#handshakes;
  }

  /** Whether there is room for one channel more than these. */
  hasRoom(channels: number): boolean {
    const hasRoom = channels < this.#maxConnections;
    if (!hasRoom) this.notice("connections");
    return hasRoom;
  }

  /**
   * Counts a connection that begins its handshake. Another may have to make
   * room.
   *
   * @param drop Is called if this one has to make room later.
   * @returns A function to call when the handshake has ended.
   */
  begin(address: string, drop: (reason: ChannelError) => void): () => void {
    const network = networkOf(address);
    const handshake = { network, number: this.#count++, drop };
    const neighbours = this.#networks.get(network);
    if (neighbours) neighbours.add(handshake);
    else this.#networks.set(network, new Set([handshake]));
    this.#handshakes++;
    if (this.#handshakes > this.#maxHandshakes) {
      this.notice("handshakes");
      const message = "Its handshake made room for another connection";
      this.#drop(this.#oldestOfMost(), new ChannelError("limit", message));
    }
    return () => this.#end(handshake);
  }

  /** Drops all handshakes. */
  dropAll(reason: ChannelError): void {
    for (const neighbours of this.#networks.values()) {
      for (const handshake of neighbours) this.#drop(handshake, reason);
    }
  }

  /** Reports that a limit was reached, but not too often. */
  notice(limit: Limit): void {
    if (this.#notices[limit].isDue()) this.#onLimit(limit);
  }

  #drop(handshake: Handshake, reason: ChannelError): void {
    this.#end(handshake);
    handshake.drop(reason);
  }

  #end(handshake: Handshake): void {
    const neighbours = this.#networks.get(handshake.network);
    if (!neighbours?.delete(handshake)) return;
    if (neighbours.size === 0) this.#networks.delete(handshake.network);
    this.#handshakes--;
  }

  #oldestOfMost(): Handshake {
    let most = 0;
    let oldest: Handshake | undefined;
    for (const neighbours of this.#networks.values()) {
      const [first] = neighbours;
      const isOlder = first!.number < (oldest?.number ?? Infinity);
      if (
        neighbours.size > most || (neighbours.size === most && isOlder)
      ) [most, oldest] = [neighbours.size, first];
    }
    return oldest!;
  }
}

/**
 * The network of one party: an IPv4 address, or 64 bits of IPv6 (RFC 6177),
 * where a host may take as many addresses as it likes.
 */
export function networkOf(address: string): string {
  const canonical = canonicalAddress(address.split("%")[0]!);
  if (!canonical?.includes(":")) return canonical ?? address;
  const [front, back = []] = canonical.split("::")
    .map((text) => text === "" ? [] : text.split(":"));
  const zeros = Array<string>(8 - front!.length - back.length).fill("0");
  return [...front!, ...zeros, ...back].slice(0, 4).join(":") + "::/64";
}
