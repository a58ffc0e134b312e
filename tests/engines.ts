/** The engines that this runtime has, and what tests seal and open with them. */

import {
  type Aead,
  type Bytes,
  type Engine,
  NodeAead,
  NONCE_LENGTH,
  SHORT_LENGTH,
  SubtleAead,
  TAG_LENGTH,
  webCrypto,
} from "../lib/lock/aes_gcm.ts";
import { openssl } from "../lib/openssl.ts";
import type { Seal } from "../lib/lock/message.ts";
import type { CipherState } from "../lib/lock/noise.ts";
import { inCi } from "./requirements.ts";

/** By what they are called in a test's name. */
export const ENGINES: Record<string, Engine> = {
  "WebCrypto": webCrypto,
  "WebCrypto alone": {
    name: "WebCrypto alone",
    isSynchronous: false,
    createAead: (raw) => new SubtleAead(raw),
  },
  "node:crypto": {
    name: "node:crypto",
    isSynchronous: true,
    createAead: (raw) => new NodeAead(raw as Bytes),
  },
};

const mayLoad = Deno.permissions.querySync({ name: "ffi" }).state === "granted";

// A machine without OpenSSL 3 tests the others; under CI it must be there.
try {
  if (mayLoad) ENGINES["OpenSSL"] = openssl();
} catch (error) {
  if (inCi) throw error;
}

/** An engine of which a test can tell when it is idle. */
export class WatchedEngine implements Engine {
  readonly name: string;
  readonly isSynchronous: boolean;
  readonly #engine: Engine;
  readonly #aeads: Aead[] = [];
  readonly #calls: unknown[] = [];

  constructor(engine: Engine) {
    ({ name: this.name, isSynchronous: this.isSynchronous } = engine);
    this.#engine = engine;
  }

  createAead(raw: Bytes | Promise<Bytes>): Aead {
    const aead = this.#engine.createAead(raw);
    const watch = <T>(result: T): T => {
      this.#calls.push(result);
      return result;
    };
    this.#aeads.push(aead);
    return {
      seal: (...args) => watch(aead.seal(...args)),
      open: (...args) => watch(aead.open(...args)),
      close: () => aead.close(),
    };
  }

  /** Waits for all calls, and for keys that are imported and were not used. */
  async idle(): Promise<void> {
    if (this.isSynchronous) return;
    const nonce = new Uint8Array(NONCE_LENGTH);
    const long = () => new Uint8Array(SHORT_LENGTH + 1 + TAG_LENGTH);
    for (const aead of this.#aeads) {
      this.#calls.push(aead.seal(nonce, new Uint8Array(0), long()));
    }
    await Promise.allSettled(this.#calls);
  }
}

/** A plaintext with room for its tag. */
export function withRoom(plaintext: Uint8Array): Bytes {
  const bytes = new Uint8Array(plaintext.length + TAG_LENGTH);
  bytes.set(plaintext);
  return bytes;
}

/** What a seal makes of a plaintext. */
export async function sealed(
  seal: Pick<Seal, "seal">,
  plaintext: Uint8Array,
): Promise<Bytes> {
  const bytes = withRoom(plaintext);
  await seal.seal(bytes);
  return bytes;
}

/** What a cipher state makes of a plaintext. */
export async function encrypted(
  cipher: CipherState,
  ad: Bytes,
  plaintext: Uint8Array,
): Promise<Bytes> {
  const bytes = withRoom(plaintext);
  await cipher.encryptWithAd(ad, bytes);
  return bytes;
}

/** Ciphertext ‖ tag, under 32 raw bytes, which stay as they are. */
export async function encrypt(
  raw: Bytes,
  nonce: Bytes,
  ad: Bytes,
  plaintext: Bytes,
  engine: Engine = webCrypto,
): Promise<Bytes> {
  const aead = engine.createAead(raw.slice());
  const bytes = withRoom(plaintext);
  await aead.seal(nonce, ad, bytes);
  aead.close();
  return bytes;
}

/** The plaintext of ciphertext ‖ tag, which stays as it is. */
export async function decrypt(
  raw: Bytes,
  nonce: Bytes,
  ad: Bytes,
  ciphertext: Bytes,
  engine: Engine = webCrypto,
): Promise<Bytes> {
  const aead = engine.createAead(raw.slice());
  try {
    return await aead.open(nonce, ad, ciphertext.slice());
  } finally {
    aead.close();
  }
}
