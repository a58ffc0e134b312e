/**
 * What the process and its page tell each other: JSON in text messages, on a
 * WebSocket of their own, beside the one that carries the client's bytes.
 *
 * @module
 */

/** Whom a frame may be on its way to. */
export const DIRECTIONS = ["server", "client"] as const;

/** Whom a frame is on its way to. */
export type Direction = typeof DIRECTIONS[number];

/** What the box can do to a frame, beside letting it pass. */
export const ACTS = ["flip", "drop", "repeat"] as const;

/** One of these. */
export type Act = typeof ACTS[number];

/** What the process tells every page; the client is the tab it is about. */
export type Report =
  /** The first message: the tab's name, which is its identity, and its key. */
  | { type: "welcome"; tab: string; psk: string }
  | Frame
  /** The server has closed the connection. It waits as a frame does. */
  | { type: "closed"; tab: string; id: number }
  /** The box has cut the connection. */
  | { type: "cut"; tab: string }
  | ServerReport & { tab: string };

/** What the server tells of a connection. */
export type ServerReport =
  /** It takes a client; its identity is known only from a proof. */
  | { type: "accepted"; identity: string | null }
  /** It got this text, or answers it. */
  | { type: "got" | "answered"; text: string }
  /** To the server, the client has said all. */
  | { type: "ended" }
  /** It gave the connection up. */
  | { type: "failed"; code: string; message: string };

/** What the box sees pass. */
export interface Frame {
  type: "frame";
  tab: string;
  /** It waits at the box until its tab has {@linkcode Command | shown} it. */
  id: number;
  to: Direction;
  /** As it came, in hex. */
  hex: string;
  /** What it says as it goes on, if that is text. */
  text: string | null;
  /** What the box does to it. */
  act: Act | null;
  /** Which byte is changed, and into what. */
  flipped: { at: number; hex: string } | null;
}

/** What a page asks of the process, for its own tab. */
export type Command =
  /** Do this to the next frame that goes there. */
  | { type: "arm"; act: Act | null; to: Direction }
  | { type: "cut" }
  /** The page shows the frame: it may go on. */
  | { type: "shown"; id: number };
