/**
 * The limits of a listener: how many channels, and how many connections that
 * have not proved a key yet.
 *
 * @module
 */

import { CLOCK, type Clock } from "./lock/clock.ts";
import { ChannelError } from "./lock/errors.ts";
import { Notice } from "./notice.ts";
import { canonicalAddress } from "./carrier/ip_address.ts";

/** How many channels there may be, unless told otherwise. */
const MAX_CONNECTIONS = 10_000;

/** How many handshakes. */
const MAX_HANDSHAKES = 256;

/**
 * How long a client may take to prove a key, or its network after a proof, before
 * it makes room for others, in milliseconds. A burst of honest clients is through
 * by then, and so is whoever waits behind it.
 */
const GOOD_TIME = 2000;

/** In good time, there may be so many times as many handshakes. */
const BURST = 4;

/** What may run out. */
export type Limit = "connections" | "handshakes" | "descriptors";

/** What {@linkcode Admission} takes. */
export interface AdmissionOptions {
  /** How many channels there may be. @default {10000} */
  maxConnections?: number;
  /** How many handshakes may be under way beyond good time. @default {256} */
  maxHandshakes?: number;
  /** Is called when a limit is reached, at most once a minute. */
  onLimit?: (limit: Limit) => void;
}

/** A connection that has not proved a key yet. */
interface Handshake {
  network: Network;
  /** The order in which they came. */
  number: number;
  /** When, by the clock. */
  start: number;
  /** Ends it. */
  drop: (reason: ChannelError) => void;
}

/** Where handshakes come from that are under way. */
interface Network {
  name: string;
  /** Oldest first. */
  handshakes: Set<Handshake>;
  /** When a client last proved a key, by the clock. */
  lastProof: number;
}

/**
 * Decides who is let in.
 *
 * Handshakes have a limit of their own, so whoever cannot prove a key takes no
 * place from those who can. If there are too many, the network with most of them
 * loses its oldest. So a flood displaces itself, and others have the time that
 * they need.
 *
 * A burst of honest clients is no flood: a handshake that began just now is in
 * good time, and so is one whose neighbours have just proved a key. It makes room
 * only if there are several times as many.
 */
export class Admission {
  readonly #maxConnections: number;
  readonly #maxHandshakes: number;
  readonly #onLimit: (limit: Limit) => void;
  readonly #clock: Clock;
  readonly #networks = new Map<string, Network>();
  readonly #notices: Record<Limit, Notice>;
  #count = 0;
  #handshakes = 0;

  /**
   * Nobody is in yet.
   *
   * @param clock Stands in for time in tests.
   */
  constructor(options: AdmissionOptions, clock: Clock = CLOCK) {
    this.#maxConnections = options.maxConnections ?? MAX_CONNECTIONS;
    this.#maxHandshakes = options.maxHandshakes ?? MAX_HANDSHAKES;
    this.#onLimit = options.onLimit ?? (() => {});
    this.#clock = clock;
    this.#notices = {
      connections: new Notice(clock),
      handshakes: new Notice(clock),
      descriptors: new Notice(clock),
    };
  }

  /** How many handshakes are under way. */
  get handshakes(): number {
    return this.#handshakes;
  }

  /** Whether there is room for one channel more than these. */
  hasRoom(channels: number): boolean {
    return channels < this.#maxConnections;
  }

  /**
   * Counts a connection that begins its handshake. Another may have to make
   * room.
   *
   * @param drop Is called if this one has to make room later.
   * @returns A function to call when the handshake has ended, with whether the
   * client has proved a key.
   */
  begin(
    address: string,
    drop: (reason: ChannelError) => void,
  ): (isProved?: boolean) => void {
    const network = this.#networkNamed(networkOf(address));
    const start = this.#clock.now();
    const handshake = { network, number: this.#count++, start, drop };
    network.handshakes.add(handshake);
    this.#handshakes++;
    if (this.#handshakes > this.#maxHandshakes) this.#makeRoom();
    return (isProved = false) => {
      if (isProved) network.lastProof = this.#clock.now();
      this.#end(handshake);
    };
  }

  /** Drops all handshakes. */
  dropAll(reason: ChannelError): void {
    for (const { handshakes } of this.#networks.values()) {
      for (const handshake of handshakes) this.#drop(handshake, reason);
    }
  }

  /** Reports that a limit was reached, but not too often. */
  notice(limit: Limit): void {
    if (this.#notices[limit].isDue()) this.#onLimit(limit);
  }

  #networkNamed(name: string): Network {
    const known = this.#networks.get(name);
    if (known) return known;
    const network = { name, handshakes: new Set<Handshake>(), lastProof: 0 };
    this.#networks.set(name, network);
    return network;
  }

  /** Drops one that is not in good time, or any if there are far too many. */
  #makeRoom(): void {
    const isFull = this.#handshakes > BURST * this.#maxHandshakes;
    const oldest = this.#oldestOfMost(
      (handshake) => isFull || this.#isLate(handshake),
    );
    if (!oldest) return;
    this.notice("handshakes");
    const message = "Its handshake made room for another connection";
    this.#drop(oldest, new ChannelError("limit", message));
  }

  #isLate({ start, network }: Handshake): boolean {
    const since = Math.max(start, network.lastProof);
    return this.#clock.now() - since >= GOOD_TIME;
  }

  #drop(handshake: Handshake, reason: ChannelError): void {
    this.#end(handshake);
    handshake.drop(reason);
  }

  #end(handshake: Handshake): void {
    const { name, handshakes } = handshake.network;
    if (!handshakes.delete(handshake)) return;
    if (handshakes.size === 0) this.#networks.delete(name);
    this.#handshakes--;
  }

  /** Of the networks whose oldest may go, that one of the network with most. */
  #oldestOfMost(
    mayGo: (handshake: Handshake) => boolean,
  ): Handshake | undefined {
    let most = 0;
    let oldest: Handshake | undefined;
    for (const { handshakes } of this.#networks.values()) {
      const [first] = handshakes;
      const isOlder = first!.number < (oldest?.number ?? Infinity);
      const isMore = handshakes.size > most ||
        (handshakes.size === most && isOlder);
      if (isMore && mayGo(first!)) [most, oldest] = [handshakes.size, first];
    }
    return oldest;
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
