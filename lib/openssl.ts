/**
 * AES-256-GCM by the system's OpenSSL: an engine for whoever wants the speed. On
 * Deno, and only there; nobody who does not import this module loads foreign code.
 *
 * Memory safety is this module's duty. Every length is checked before a pointer is
 * passed. A context belongs to one key, and is freed when that is closed, or once
 * nobody can reach it. No call keeps a pointer after it has returned. A plaintext
 * is handed on only after its tag was checked, and overwritten otherwise.
 *
 * @module
 */

import {
  type Aead,
  type Bytes,
  checkKey,
  type Engine,
  lengthOf,
  NONCE_LENGTH,
  TAG_LENGTH,
} from "./lock/aes_gcm.ts";

/** Where OpenSSL 3 is by default. */
export const OPENSSL_FILES: readonly string[] = {
  linux: [
    // Debian and its relatives.
    "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
    "/usr/lib/aarch64-linux-gnu/libcrypto.so.3",
    // Fedora and its relatives, then Alpine.
    "/usr/lib64/libcrypto.so.3",
    "/usr/lib/libcrypto.so.3",
    "/lib/libcrypto.so.3",
  ],
  darwin: [
    // Homebrew on either processor, then MacPorts.
    "/opt/homebrew/opt/openssl@3/lib/libcrypto.3.dylib",
    "/usr/local/opt/openssl@3/lib/libcrypto.3.dylib",
    "/opt/local/libexec/openssl3/lib/libcrypto.3.dylib",
    "/opt/local/lib/libcrypto.3.dylib",
  ],
}[Deno.build.os as string] ?? [];

/** What is used of OpenSSL: EVP_EncryptInit(3), OPENSSL_malloc(3). */
const SYMBOLS = {
  OpenSSL_version_num: { parameters: [], result: "u64" },
  EVP_aes_256_gcm: { parameters: [], result: "pointer" },
  EVP_CIPHER_CTX_new: { parameters: [], result: "pointer" },
  EVP_CIPHER_CTX_free: { parameters: ["pointer"], result: "void" },
  EVP_CipherInit_ex: {
    parameters: ["pointer", "pointer", "pointer", "buffer", "buffer", "i32"],
    result: "i32",
  },
  EVP_CipherUpdate: {
    parameters: ["pointer", "buffer", "buffer", "buffer", "i32"],
    result: "i32",
  },
  EVP_CipherFinal_ex: {
    parameters: ["pointer", "buffer", "buffer"],
    result: "i32",
  },
  EVP_CIPHER_CTX_ctrl: {
    parameters: ["pointer", "i32", "i32", "buffer"],
    result: "i32",
  },
  OPENSSL_cleanse: { parameters: ["buffer", "usize"], result: "void" },
} as const;

type Library = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

/** The major version that the symbols are those of. */
const MAJOR_VERSION = 3;

/** Of `EVP_CIPHER_CTX_ctrl`. */
const GET_TAG = 0x10;
const SET_TAG = 0x11;

/** What an `int` of C can hold. */
const MAX_LENGTH = 2 ** 31 - 1;

/**
 * Loads the system's OpenSSL, for the option `engine` of a channel.
 *
 * It needs `--allow-ffi` for the file. After that, the right can be given up:
 * what is loaded can still be called.
 *
 * @example
 * ```ts
 * import { acceptChannel, connectChannel } from "@innerlock/innerlock";
 * import { openssl } from "@innerlock/innerlock/openssl";
 *
 * export async function both(near: Deno.Conn, far: Deno.Conn, psk: string) {
 *   const engine = openssl();
 *   Deno.permissions.revokeSync({ name: "ffi" });
 *   return await Promise.all([
 *     connectChannel(near, { psk, engine }),
 *     acceptChannel(far, { psk, engine }),
 *   ]);
 * }
 * ```
 *
 * @param files Where it may be, in order. The first that can be loaded is taken.
 * @returns The engine, whose name has OpenSSL's version.
 * @throws {OpenSslError} If no file can be loaded, or is OpenSSL 3.
 */
export function openssl(files: readonly string[] = OPENSSL_FILES): Engine {
  const failures: string[] = [];
  for (const file of files) {
    try {
      return engineOf(Deno.dlopen(file, SYMBOLS).symbols);
    } catch (error) {
      const why = (error as Error).message.split("\n")[0]!;
      failures.push(why.includes(file) ? why : `${file}: ${why}`);
    }
  }
  const why = failures.join("; ") || `no file is known for ${Deno.build.os}`;
  throw new OpenSslError(`Cannot load OpenSSL: ${why}`);
}

/** The system's OpenSSL cannot be loaded, or one of its calls has failed. */
export class OpenSslError extends Error {
  /** The class's name. */
  override readonly name = "OpenSslError";
}

function engineOf(library: Library): Engine {
  const version = Number(library.OpenSSL_version_num());
  const [major, minor] = [version >>> 28, version >>> 20 & 0xff];
  if (major !== MAJOR_VERSION) {
    throw new OpenSslError(`It is OpenSSL ${major}.${minor}, not 3`);
  }
  return {
    name: `OpenSSL ${major}.${minor}.${version >>> 4 & 0xff}`,
    isSynchronous: true,
    createAead(raw) {
      // Rekeying a synchronous engine gives the next key at once.
      if (raw instanceof Promise) throw new TypeError("The key must be bytes");
      return new OpenSslAead(library, raw);
    },
  };
}

/** Frees the context of a key that nobody can reach any more. */
const contexts = new FinalizationRegistry(
  ({ library, context }: { library: Library; context: Deno.PointerObject }) =>
    library.EVP_CIPHER_CTX_free(context),
);

/** Written by OpenSSL and not read: lengths that are known, and an empty rest. */
const OUT_LENGTH = new Uint8Array(4);
const NO_MORE = new Uint8Array(TAG_LENGTH);

class OpenSslAead implements Aead {
  readonly #library: Library;
  #context: Deno.PointerObject | null;

  constructor(library: Library, raw: Bytes) {
    checkKey(raw);
    this.#library = library;
    const context = this.#context = library.EVP_CIPHER_CTX_new();
    if (context === null) throw failed("EVP_CIPHER_CTX_new");
    contexts.register(this, { library, context }, this);
    const { EVP_aes_256_gcm: cipher, EVP_CipherInit_ex: init } = library;
    const result = init(context, cipher(), null, raw, null, 1);
    library.OPENSSL_cleanse(raw, BigInt(raw.length));
    this.#check(result, "EVP_CipherInit_ex");
  }

  seal(nonce: Bytes, ad: Bytes, bytes: Bytes): void {
    const length = lengthOf(bytes);
    const context = this.#begin(nonce, ad, bytes, length, 1);
    const { EVP_CipherFinal_ex, EVP_CIPHER_CTX_ctrl } = this.#library;
    this.#check(EVP_CipherFinal_ex(context, NO_MORE, OUT_LENGTH), "final");
    const tag = bytes.subarray(length);
    this.#check(EVP_CIPHER_CTX_ctrl(context, GET_TAG, TAG_LENGTH, tag), "tag");
  }

  open(nonce: Bytes, ad: Bytes, bytes: Bytes): Bytes {
    const length = lengthOf(bytes);
    const context = this.#begin(nonce, ad, bytes, length, 0);
    const { EVP_CipherFinal_ex, EVP_CIPHER_CTX_ctrl } = this.#library;
    const tag = bytes.subarray(length);
    const isAuthentic =
      EVP_CIPHER_CTX_ctrl(context, SET_TAG, TAG_LENGTH, tag) === 1 &&
      EVP_CipherFinal_ex(context, NO_MORE, OUT_LENGTH) === 1;
    if (!isAuthentic) {
      bytes.fill(0);
      throw new OpenSslError("Cannot decrypt: the message is not authentic");
    }
    return bytes.subarray(0, length);
  }

  close(): void {
    if (this.#context === null) return;
    contexts.unregister(this);
    this.#library.EVP_CIPHER_CTX_free(this.#context);
    this.#context = null;
  }

  /** Encrypts or decrypts in place, up to the tag. */
  #begin(
    nonce: Bytes,
    ad: Bytes,
    bytes: Bytes,
    length: number,
    enc: 0 | 1,
  ): Deno.PointerObject {
    const context = this.#context;
    if (context === null) throw new OpenSslError("The key is closed");
    if (nonce.length !== NONCE_LENGTH) {
      throw new RangeError(`A nonce has ${NONCE_LENGTH} bytes`);
    }
    if (Math.max(ad.length, bytes.length) > MAX_LENGTH) {
      throw new RangeError("A message has less than 2 GiB");
    }
    const { EVP_CipherInit_ex: init, EVP_CipherUpdate: update } = this.#library;
    this.#check(init(context, null, null, null, nonce, enc), "nonce");
    if (ad.length > 0) {
      const result = update(context, null, OUT_LENGTH, ad, ad.length);
      this.#check(result, "additional data");
    }
    if (length > 0) {
      const result = update(context, bytes, OUT_LENGTH, bytes, length);
      this.#check(result, "text");
    }
    return context;
  }

  #check(result: number, step: string): void {
    if (result !== 1) throw failed(step);
  }
}

function failed(step: string): OpenSslError {
  return new OpenSslError(`OpenSSL has failed (${step})`);
}
