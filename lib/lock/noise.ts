/**
 * `Noise_NNpsk0_25519_AESGCM_SHA256`, in the objects of the Noise Protocol
 * Framework, revision 34 (section 5). Bytes in, bytes out: no I/O here.
 *
 * @module
 */

import {
  type Aead,
  type Bytes,
  type Engine,
  KEY_LENGTH,
  NONCE_LENGTH,
  TAG_LENGTH,
  webCrypto,
} from "./aes_gcm.ts";
import { hkdf, sha256 } from "./hash.ts";
import { subtle } from "./runtime.ts";

const PROTOCOL_NAME = "Noise_NNpsk0_25519_AESGCM_SHA256";

/** Length of a Diffie-Hellman public key, in bytes. */
const DHLEN = 32;

/** Length of a pre-shared key, in bytes. */
export const PSK_LENGTH = 32;

/** Length of either handshake message with an empty payload, in bytes. */
export const HANDSHAKE_MESSAGE_LENGTH = DHLEN + TAG_LENGTH;

/** The empty byte string. */
export const EMPTY: Bytes = new Uint8Array(0);

/** The nonce that only `REKEY` uses (section 4.2). */
const MAX_NONCE = 2n ** 64n - 1n;

/** A cipher key and its nonce counter (section 5.1). */
export class CipherState {
  readonly #engine: Engine;
  #k: Aead;
  #n: bigint;
  /** Of each message in turn: a new buffer for each takes as long as AES. */
  #nonce: Bytes = new Uint8Array(NONCE_LENGTH);

  private constructor(engine: Engine, k: Aead, n: bigint) {
    this.#engine = engine;
    this.#k = k;
    this.#n = n;
  }

  /**
   * `InitializeKey(k)`: takes 32 raw bytes, and overwrites them.
   *
   * @param engine What encrypts.
   * @param n Where the counter begins: another number is for tests only.
   */
  static initializeKey(
    k: Bytes,
    engine: Engine = webCrypto,
    n = 0n,
  ): CipherState {
    return new CipherState(engine, engine.createAead(k), n);
  }

  /** Whether every call gives its result at once. */
  get isSynchronous(): boolean {
    return this.#engine.isSynchronous;
  }

  /** How many messages have been encrypted or decrypted: the next nonce. */
  get n(): bigint {
    return this.#n;
  }

  /**
   * `EncryptWithAd(ad, plaintext)`, in place: {@linkcode Aead.seal}. The nonce is
   * taken before this returns, so calls that overlap never share one.
   */
  encryptWithAd(ad: Bytes, bytes: Bytes): void | Promise<void> {
    return this.#leaveNonce(this.#k.seal(this.#nextNonce(), ad, bytes));
  }

  /**
   * `DecryptWithAd(ad, ciphertext)`: {@linkcode Aead.open}. The nonce is taken
   * before this returns, so calls may overlap if they are made in order. Unlike in
   * the specification the counter has moved on after a failure: a channel ends at
   * its first one.
   *
   * @throws {Error} If the ciphertext is not authentic. A promise rejects with it.
   */
  decryptWithAd(ad: Bytes, ciphertext: Bytes): Bytes | Promise<Bytes> {
    return this.#leaveNonce(this.#k.open(this.#nextNonce(), ad, ciphertext));
  }

  /**
   * `Rekey()`: the key becomes `REKEY(k)` (section 4.2), the counter goes on.
   * Messages that follow wait for the new key by themselves.
   */
  rekey(): void {
    const old = this.#k;
    const block = new Uint8Array(KEY_LENGTH + TAG_LENGTH);
    const nonce = putNonce(MAX_NONCE, new Uint8Array(NONCE_LENGTH));
    const sealing = old.seal(nonce, EMPTY, block);
    const key = () => block.subarray(0, KEY_LENGTH);
    this.#k = this.#engine.createAead(sealing ? sealing.then(key) : key());
    if (sealing) sealing.finally(() => old.close()).catch(() => {});
    else old.close();
  }

  /** Lets the key go: nothing more is encrypted or decrypted. */
  close(): void {
    this.#k.close();
  }

  #nextNonce(): Bytes {
    if (this.#n === MAX_NONCE) {
      throw new RangeError("Cannot use cipher state: its nonces are used up");
    }
    return putNonce(this.#n++, this.#nonce);
  }

  /** An engine that is still at work keeps its nonce: the next gets another. */
  #leaveNonce<T>(result: T): T {
    const isOver = result === undefined || result instanceof Uint8Array;
    if (!isOver) this.#nonce = new Uint8Array(NONCE_LENGTH);
    return result;
  }
}

/** 4 zero bytes ‖ u64 big-endian (section 12.4). */
function putNonce(n: bigint, into: Bytes): Bytes {
  new DataView(into.buffer).setBigUint64(4, n);
  return into;
}

/**
 * The chaining key, the hash, and the cipher made of them (section 5.2). Of the
 * cipher there is only its key until a payload needs it: no key of the pattern
 * below encrypts a second one, and half of them encrypt none.
 */
class SymmetricState {
  readonly #engine: Engine;
  #ck: Bytes;
  #h: Bytes;
  #k: Bytes | undefined;

  private constructor(engine: Engine, h: Bytes) {
    this.#engine = engine;
    this.#ck = h.slice();
    this.#h = h;
  }

  /** `InitializeSymmetric(protocol_name)`: the name is just HASHLEN long. */
  static initializeSymmetric(engine: Engine): SymmetricState {
    return new SymmetricState(engine, new TextEncoder().encode(PROTOCOL_NAME));
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
    this.#replace(ck!, tempK!);
  }

  async mixKeyAndHash(inputKeyMaterial: Bytes): Promise<void> {
    const [ck, tempH, tempK] = await hkdf(this.#ck, inputKeyMaterial, 3);
    await this.mixHash(tempH!);
    this.#replace(ck!, tempK!);
  }

  async encryptAndHash(plaintext: Bytes): Promise<Bytes> {
    const bytes = new Uint8Array(plaintext.length + TAG_LENGTH);
    bytes.set(plaintext);
    const cipher = this.#takeCipher();
    await cipher.encryptWithAd(this.#h, bytes);
    cipher.close();
    await this.mixHash(bytes);
    return bytes;
  }

  async decryptAndHash(ciphertext: Bytes): Promise<Bytes> {
    // It may be decrypted where it stands.
    const copy = ciphertext.slice();
    const cipher = this.#takeCipher();
    try {
      const plaintext = await cipher.decryptWithAd(this.#h, ciphertext);
      await this.mixHash(copy);
      return plaintext;
    } finally {
      cipher.close();
    }
  }

  /** Nothing that is replaced stays in memory. */
  #replace(ck: Bytes, k: Bytes): void {
    this.#ck.fill(0);
    this.#k?.fill(0);
    this.#ck = ck;
    this.#k = k;
  }

  // In a psk0 pattern there is a key before the first payload, always.
  #takeCipher(): CipherState {
    const k = this.#k!;
    this.#k = undefined;
    return CipherState.initializeKey(k, this.#engine);
  }

  async split(): Promise<[CipherState, CipherState]> {
    const [tempK1, tempK2] = await hkdf(this.#ck, EMPTY, 2);
    this.#ck.fill(0);
    return [
      CipherState.initializeKey(tempK1!, this.#engine),
      CipherState.initializeKey(tempK2!, this.#engine),
    ];
  }
}

/** What a {@linkcode HandshakeState} starts from. */
export interface HandshakeOptions {
  /** Bytes that both sides must agree on, mixed into the handshake hash. */
  prologue: Bytes;
  /** The pre-shared key, 32 bytes. */
  psk: Bytes;
  /** What encrypts. @default {webCrypto} */
  engine?: Engine | undefined;
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
    const { engine = webCrypto, psk } = options;
    const symmetric = SymmetricState.initializeSymmetric(engine);
    const e = options.e ?? await subtle().generateKey(
      "X25519",
      false,
      ["deriveBits"],
    ) as CryptoKeyPair;
    const [ePublic] = await Promise.all([
      crypto.subtle.exportKey("raw", e.publicKey),
      symmetric.mixHash(options.prologue),
    ]);
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
    return await this.#withE(payload);
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
    return await this.#withE(payload);
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

  /** Our public key in front of a payload. */
  async #withE(payload: Bytes): Promise<Bytes> {
    const sealed = await this.#symmetric.encryptAndHash(payload);
    return concat(this.#ePublic, sealed);
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
    const dh = { name: "X25519", public: this.#re! };
    const [ee] = await Promise.all([
      crypto.subtle.deriveBits(dh, this.#e.privateKey, DHLEN * 8),
      this.#mixE(e),
    ]);
    const secret = new Uint8Array(ee);
    await this.#symmetric.mixKey(secret);
    secret.fill(0);
  }
}

function concat(a: Bytes, b: Bytes): Bytes {
  const bytes = new Uint8Array(a.length + b.length);
  bytes.set(a);
  bytes.set(b, a.length);
  return bytes;
}
