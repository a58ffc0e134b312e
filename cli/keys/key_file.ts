/**
 * Changes a key file: who has a key in it.
 *
 * @module
 */

import { PSK_LENGTH } from "../../lib/lock/noise.ts";
import {
  linesOf,
  nameOf,
  parsePsk,
  type PskMap,
  serviceOf,
} from "../../lib/lock/psk.ts";
import { messageOf, UsageError } from "../advice/errors.ts";

/** What a new file begins with. */
const HEAD = "# identity:key, one per line; keep it secret\n";

/** The text of a key file, which may be empty yet. */
export class KeyFile {
  readonly #path: string;
  #text: string;

  /**
   * @param path Where it is, for errors.
   * @param text Undefined if there is none yet.
   * @throws {UsageError} If it is malformed.
   */
  constructor(path: string, text: string | undefined) {
    this.#path = path;
    this.#text = text ?? HEAD;
    this.keys();
  }

  /** Its text now. */
  get text(): string {
    return this.#text;
  }

  /** The keys that are in it now. */
  keys(): PskMap {
    const isEmpty = [...linesOf(this.#text)].every(({ entry }) => !entry);
    try {
      return isEmpty ? new Map() : parsePsk(this.#text);
    } catch (error) {
      throw new UsageError(
        `${messageOf(error)} (${this.#path}); fix or remove it`,
      );
    }
  }

  /** Gives an identity a new key, instead of the one that it has. */
  setKey(identity: string): void {
    this.remove(identity);
    if (this.#text !== "" && !/[\r\n]$/.test(this.#text)) this.#text += "\n";
    const key = crypto.getRandomValues(new Uint8Array(PSK_LENGTH));
    this.#text += `${identity}:${key.toHex()}\n`;
  }

  /** Removes an identity, and says whether it was there. */
  remove(identity: string): boolean {
    const lines = [...linesOf(this.#text)];
    const kept = lines.filter(({ entry }) => entry?.identity !== identity);
    this.#text = kept.map(({ text }) => text).join("");
    return kept.length < lines.length;
  }

  /**
   * The other lines by which whoever had this one still comes in: of `alice` all
   * `alice@…`, of `alice@db` the line `alice`, which opens every service.
   */
  related(identity: string): string[] {
    const name = nameOf(identity);
    return [...this.keys().keys()].filter((other) =>
      other !== identity &&
      (serviceOf(identity) === undefined ? nameOf(other) : other) === name
    );
  }
}
