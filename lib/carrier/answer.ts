/**
 * What a server answers where frames should be: some speak HTTP.
 *
 * @module
 */

import { HttpError, readHead } from "./http.ts";
import { Layer } from "./layer.ts";
import { replay } from "./sniff.ts";
import type { Bytes } from "../lock/aes_gcm.ts";
import { ChannelError, shown } from "../lock/errors.ts";
import type { Transport } from "../lock/transport.ts";

/** `H`, which begins no frame that a server may answer. */
const HTTP_START = 0x48;

/**
 * A transport whose answer is expected to be frames: if it is one in HTTP, the
 * first read fails with an {@linkcode HttpError} of the reason `unasked`.
 */
export class ExpectedFrames extends Layer {
  #isBegun = false;

  override read(p: Uint8Array): Promise<number | null> {
    return this.#isBegun ? this.beneath.read(p) : this.#begin(p);
  }

  async #begin(p: Uint8Array): Promise<number | null> {
    const count = await this.beneath.read(p);
    if (count !== null && p[0] === HTTP_START) {
      throw await otherAnswer(p.slice(0, count), this.beneath);
    }
    this.#isBegun = true;
    return count;
  }
}

/**
 * What the server said instead of frames.
 *
 * @param bytes How it begins.
 */
async function otherAnswer(
  bytes: Bytes,
  transport: Transport,
): Promise<ChannelError> {
  const name = "An HTTP server";
  const server = { name, code: "protocol" as const, start: "HTTP/1." };
  const answered = `${name} answered in place of innerlock`;
  try {
    const { head } = await readHead(replay(bytes, transport), server);
    const message = `${answered}: ${shown(head.startLine)}`;
    return new HttpError("protocol", message, "unasked", head);
  } catch (error) {
    if (error instanceof HttpError && error.reason !== "not-http") {
      return new HttpError("protocol", answered, "unasked");
    }
    const message = "The server does not speak innerlock: it sent ";
    return new ChannelError("protocol", `${message}"${shown(bytes)}"`);
  }
}
