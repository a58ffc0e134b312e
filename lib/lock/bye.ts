/**
 * The bye: why a side gives a session up.
 *
 * @module
 */

import type { Bytes } from "./aes_gcm.ts";
import { ChannelError } from "./errors.ts";
import { Type, TYPE_LENGTH } from "./message.ts";

/** The reasons that a bye can tell, in the order of their codes, from 1. */
const REASONS = [
  "service",
  "backend",
  "limit",
  "revoked",
  "stopping",
  "aborted",
  "timeout",
] as const;

/** One of the reasons that a bye can tell. */
export type Reason = typeof REASONS[number];

/** A bye that tells the error's code; what is none of the reasons is `aborted`. */
export function encodeBye(error: unknown): Bytes {
  const code = error instanceof ChannelError ? error.code : "aborted";
  const reason = REASONS.find((reason) => reason === code) ?? "aborted";
  return new Uint8Array([Type.bye, REASONS.indexOf(reason) + 1]);
}

/** The reason that a bye tells; an unknown one is `aborted`. */
export function reasonOf(bye: Bytes): Reason {
  return REASONS[bye[TYPE_LENGTH]! - 1] ?? "aborted";
}

/** What is said of a bye. */
export interface Circumstances {
  /** Who said it. */
  peer: "client" | "server";
  /** Whose key the session is under. */
  identity: string;
  /** The service that it asks for. */
  service: string | undefined;
  /** Whether the client has offered it, in place of a call. */
  isOffered: boolean;
  /** Whether the stream had brought anything before. */
  hasTalked: boolean;
}

/** The error that a peer's bye stands for. */
export function byeError(
  reason: Reason,
  { peer, identity, service, isOffered, hasTalked }: Circumstances,
): ChannelError {
  const behind = service === undefined ? "" : ` behind ${service}`;
  const messages: Record<Reason, string> = {
    service: isOffered
      ? `The ${peer} takes no offer of ${identity}`
      : service === undefined
      ? `The ${peer} has no service without a name`
      : `The ${peer} has no service ${service}`,
    backend: hasTalked
      ? `The ${peer} lost what stands${behind || " behind it"}`
      : `The ${peer} cannot reach what stands${behind || " behind it"}`,
    limit: `The ${peer} has no room for more connections of ${identity}`,
    revoked: `The key of ${identity} was revoked or replaced`,
    stopping: `The ${peer} is stopping`,
    aborted: `The ${peer} gave the connection up`,
    timeout: `The ${peer} gave the connection up: it had heard nothing`,
  };
  return new ChannelError(reason, messages[reason], { isFromPeer: true });
}
