/**
 * `Noise_NNpsk0_25519_AESGCM_SHA256`, in the objects of the Noise Protocol
 * Framework, revision 34 (section 5). Bytes in, bytes out: no I/O here.
 *
 * @module
 */

import * as aesGcm from "./aes_gcm.ts";
import type { Bytes } from "./aes_gcm.ts";
import { nodeCrypto, plain } from "./runtime.ts";

const PROTOCOL_NAME = "Noise_NNpsk0_25519_AESGCM_SHA256";

/** Length of a Diffie-Hellman public key, in bytes. */
const DHLEN = 32;

/** Length of a hash, in bytes. */
const HASHLEN = 32;

/** Length of a pre-shared key, in bytes. */
export const PSK_LENGTH = 32;

/** Length of either handshake message with an empty payload, in bytes. */
export const HANDSHAKE_MESSAGE_LENGTH = DHLEN + aesGcm.TAG_LENGTH;

/** The empty byte string. */
export const EMPTY: Bytes = new Uint8Array(0);

/** The nonce that only `REKEY` uses (section 4.2). */
const MAX_NONCE = 2n ** 64n - 1n;

/** A cipher key and its nonce counter (section 5.1). */
export class CipherState {
  #k: CryptoKey | Promise<CryptoKey>;
  #n: bigint;

  private constructor(k: CryptoKey, n: bigint) {
    this.#k = k;
    this.#n = n;
  }

  /**
   * `InitializeKey(k)`: takes 32 raw bytes, which the caller then forgets.
   *
   * @param n Where the counter begins: another number is for tests only.
   */
  static async initializeKey(k: Bytes, n = 0n): Promise<CipherState> {
    return new CipherState(await aesGcm.importKey(k), n);
  }

  /** How many messages have been encrypted or decrypted: the next nonce. */
  get n(): bigint {
    return this.#n;
  }

  /**
   * `EncryptWithAd(ad, plaintext)`. The nonce is taken before this returns, so
   * calls that overlap never share one.
   */
  encryptWithAd(ad: Bytes, plaintext: Bytes): Bytes | Promise<Bytes> {
    return this.#use(aesGcm.encrypt, ad, plaintext);
  }

  /**
   * `DecryptWithAd(ad, ciphertext)`. The nonce is taken before this returns, so
   * calls may overlap if they are made in order. Unlike in the specification
   * the counter has moved on after a failure: a channel ends at its first one.
   *
   * @throws {Error} If the ciphertext is not authentic. A promise rejects with it.
   */
  decryptWithAd(ad: Bytes, ciphertext: Bytes): Bytes | Promise<Bytes> {
    return this.#use(aesGcm.decrypt, ad, ciphertext);
  }

  /**
   * `Rekey()`: the key becomes `REKEY(k)`, the counter goes on. Messages that
   * follow wait for the new key by themselves.
   */
  rekey(): void {
    const next = rekeyed(this.#k);
    this.#k = next;
    next.then((k) => {
      if (this.#k === next) this.#k = k;
    }, () => {});
  }

  #use(
    crypt: typeof aesGcm.encrypt,
    ad: Bytes,
    text: Bytes,
  ): Bytes | Promise<Bytes> {
    const k = this.#k;
    const n = this.#nextNonce();
    if (!(k instanceof Promise)) return crypt(k, n, ad, text);
    // The caller may use its buffer again at once, here too.
    const copy = text.slice();
    return k.then((k) => crypt(k, n, ad, copy));
  }

  #nextNonce(): Bytes {
    if (this.#n === MAX_NONCE) {
      throw new RangeError("Cannot use cipher state: its nonces are used up");
    }
    return nonce(this.#n++);
  }
}

/** `REKEY(k)` (section 4.2). */
async function rekeyed(k: CryptoKey | Promise<CryptoKey>): Promise<CryptoKey> {
  const zeros = new Uint8Array(aesGcm.KEY_LENGTH);
  const block = await aesGcm.encrypt(await k, nonce(MAX_NONCE), EMPTY, zeros);
  return await aesGcm.importKey(block.slice(0, aesGcm.KEY_LENGTH));
}

/** 4 zero bytes ‖ u64 big-endian (section 12.4). */
function nonce(n: bigint): Bytes {
  const bytes = new Uint8Array(aesGcm.NONCE_LENGTH);
  new DataView(bytes.buffer).setBigUint64(4, n);
  return bytes;
}

/**
 * The chaining key, the hash, and the cipher made of them (section 5.2). Of the
 * cipher there is only its key until a payload needs it: no key of the pattern
 * below encrypts a second one, and half of them encrypt none.
 */
class SymmetricState {
  #ck: Bytes;
  #h: Bytes;
  #k: Bytes | undefined;

  private constructor(h: Bytes) {
    this.#ck = h;
    this.#h = h;
  }

  /** `InitializeSymmetric(protocol_name)`: the name is just HASHLEN long. */
  static initializeSymmetric(): SymmetricState {
    return new SymmetricState(new TextEncoder().encode(PROTOCOL_NAME));
  }

  /** `GetHandshakeHash()`. */
  get h(): Bytes {
    return this.#h;
  }

  async mixHash(data: Bytes): Promise<void> {
    this.#h = await sha256(concat(this.#h, data));
  }

  async mixKey(inputKeyMaterial: Bytes): Promise<void> {
    const [ck, tempK] = await hkdf(this.#ck, inputKeyMaterial, 2);
    this.#ck = ck;
    this.#k = tempK;
  }

  async mixKeyAndHash(inputKeyMaterial: Bytes): Promise<void> {
    const [ck, tempH, tempK] = await hkdf(this.#ck, inputKeyMaterial, 3);
    this.#ck = ck;
    await this.mixHash(tempH);
    this.#k = tempK;
  }

  async encryptAndHash(plaintext: Bytes): Promise<Bytes> {
    const cipher = await this.#takeCipher();
    const ciphertext = await cipher.encryptWithAd(this.#h, plaintext);
    await this.mixHash(ciphertext);
    return ciphertext;
  }

  async decryptAndHash(ciphertext: Bytes): Promise<Bytes> {
    const cipher = await this.#takeCipher();
    const plaintext = await cipher.decryptWithAd(this.#h, ciphertext);
    await this.mixHash(ciphertext);
    return plaintext;
  }

  // In a psk0 pattern there is a key before the first payload, always.
  #takeCipher(): Promise<CipherState> {
    const k = this.#k!;
    this.#k = undefined;
    return CipherState.initializeKey(k);
  }

  async split(): Promise<[CipherState, CipherState]> {
    const [tempK1, tempK2] = await hkdf(this.#ck, EMPTY, 2);
    return await Promise.all([
      CipherState.initializeKey(tempK1),
      CipherState.initializeKey(tempK2),
    ]);
  }
}

/** What a {@linkcode HandshakeState} starts from. */
export interface HandshakeOptions {
  /** Bytes that both sides must agree on, mixed into the handshake hash. */
  prologue: Bytes;
  /** The pre-shared key, 32 bytes. */
  psk: Bytes;
  /** A fixed ephemeral key pair, for test vectors only; drawn by default. */
  e?: CryptoKeyPair;
}

/**
 * One side of an NNpsk0 handshake (section 5.3). The initiator writes a message
 * and reads one, the responder reads one and writes one, then both split.
 *
 * ```text
 * NNpsk0:
 *   -> psk, e
 *   <- e, ee
 * ```
 *
 * Where a step wakes another thread, that takes longer than its work: steps that
 * do not need each other's results are taken side by side.
 */
export class HandshakeState {
  readonly #symmetric: SymmetricState;
  readonly #psk: Bytes;
  readonly #e: CryptoKeyPair;
  readonly #ePublic: Bytes;
  #re: CryptoKey | undefined;

  private constructor(
    symmetric: SymmetricState,
    psk: Bytes,
    e: CryptoKeyPair,
    ePublic: Bytes,
  ) {
    this.#symmetric = symmetric;
    this.#psk = psk;
    this.#e = e;
    this.#ePublic = ePublic;
  }

  /** `Initialize(handshake_pattern, initiator, prologue, …)`. */
  static async initialize(options: HandshakeOptions): Promise<HandshakeState> {
    const symmetric = SymmetricState.initializeSymmetric();
    const e = options.e ?? await crypto.subtle.generateKey(
      "X25519",
      false,
      ["deriveBits"],
    ) as CryptoKeyPair;
    const [ePublic] = await Promise.all([
      crypto.subtle.exportKey("raw", e.publicKey),
      symmetric.mixHash(options.prologue),
    ]);
    const { psk } = options;
    return new HandshakeState(symmetric, psk, e, new Uint8Array(ePublic));
  }

  /** The hash of all that the two sides have said. */
  get handshakeHash(): Bytes {
    return this.#symmetric.h;
  }

  /** Initiator: `-> psk, e`. */
  async writeMessage1(payload: Bytes = EMPTY): Promise<Bytes> {
    await this.#symmetric.mixKeyAndHash(this.#psk);
    await this.#mixE(this.#ePublic);
    return concat(
      this.#ePublic,
      await this.#symmetric.encryptAndHash(payload),
    );
  }

  /** Responder: `-> psk, e`. Throws if the initiator has another psk. */
  async readMessage1(message: Bytes): Promise<Bytes> {
    await this.#symmetric.mixKeyAndHash(this.#psk);
    await this.#mixE(await this.#readE(message));
    return await this.#symmetric.decryptAndHash(message.slice(DHLEN));
  }

  /** Responder: `<- e, ee`. */
  async writeMessage2(payload: Bytes = EMPTY): Promise<Bytes> {
    await this.#mixEAndEe(this.#ePublic);
    return concat(
      this.#ePublic,
      await this.#symmetric.encryptAndHash(payload),
    );
  }

  /** Initiator: `<- e, ee`. Throws if the responder has another psk. */
  async readMessage2(message: Bytes): Promise<Bytes> {
    await this.#mixEAndEe(await this.#readE(message));
    return await this.#symmetric.decryptAndHash(message.slice(DHLEN));
  }

  /** `Split()`: the initiator's sending cipher, then the responder's. */
  split(): Promise<[CipherState, CipherState]> {
    return this.#symmetric.split();
  }

  /** Takes the peer's public key from the front of its message. */
  async #readE(message: Bytes): Promise<Bytes> {
    const e = message.slice(0, DHLEN);
    this.#re = await crypto.subtle.importKey("raw", e, "X25519", false, []);
    return e;
  }

  // In a psk handshake an `e` is mixed into the key as well (section 9.2).
  async #mixE(e: Bytes): Promise<void> {
    await Promise.all([this.#symmetric.mixHash(e), this.#symmetric.mixKey(e)]);
  }

  // WebCrypto refuses an all-zero shared secret (RFC 7748, section 6.1).
  async #mixEAndEe(e: Bytes): Promise<void> {
    const [ee] = await Promise.all([
      crypto.subtle.deriveBits(
        { name: "X25519", public: this.#re! },
        this.#e.privateKey,
        DHLEN * 8,
      ),
      this.#mixE(e),
    ]);
    await this.#symmetric.mixKey(new Uint8Array(ee));
  }
}

/**
 * `HKDF(chaining_key, input_key_material, num_outputs)` (section 4.3): that of
 * RFC 5869 with the chaining key as salt and an empty info.
 */
async function hkdf(ck: Bytes, ikm: Bytes, outputs: 2): Promise<[Bytes, Bytes]>;
async function hkdf(
  ck: Bytes,
  ikm: Bytes,
  outputs: 3,
): Promise<[Bytes, Bytes, Bytes]>;
async function hkdf(ck: Bytes, ikm: Bytes, outputs: number): Promise<Bytes[]> {
  const length = outputs * HASHLEN;
  const bits = nodeCrypto
    ? nodeCrypto.hkdfSync("sha256", ikm, ck, EMPTY, length)
    : await hkdfBits(ck, ikm, length);
  return Array.from(
    { length: outputs },
    (_, i) => new Uint8Array(bits.slice(i * HASHLEN, (i + 1) * HASHLEN)),
  );
}

async function hkdfBits(
  salt: Bytes,
  ikm: Bytes,
  length: number,
): Promise<ArrayBuffer> {
  const key = await crypto.subtle.importKey("raw", ikm, "HKDF", false, [
    "deriveBits",
  ]);
  return await crypto.subtle.deriveBits(
    { name: "HKDF", hash: "SHA-256", salt, info: EMPTY },
    key,
    length * 8,
  );
}

async function sha256(data: Bytes): Promise<Bytes> {
  return nodeCrypto
    ? plain(nodeCrypto.createHash("sha256").update(data).digest())
    : new Uint8Array(await crypto.subtle.digest("SHA-256", data));
}

function concat(a: Bytes, b: Bytes): Bytes {
  const bytes = new Uint8Array(a.length + b.length);
  bytes.set(a);
  bytes.set(b, a.length);
  return bytes;
}
