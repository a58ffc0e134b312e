/**
 * What not every runtime has.
 *
 * In addition to WebCrypto, Node, Deno and Bun have the synchronous primitives of
 * `node:crypto`; browsers do not. A WebCrypto call changes threads twice. For a
 * short message, that takes several times as long as the work itself. The results
 * are the same bytes.
 *
 * @module
 */

/** What is used of `node:crypto`. */
interface NodeCrypto {
  createSecretKey(raw: Uint8Array): KeyObject;
  createCipheriv: CreateCipher;
  createDecipheriv: CreateCipher;
  createHash(algorithm: string): Hash;
  hkdfSync(
    digest: string,
    ikm: Uint8Array,
    salt: Uint8Array,
    info: Uint8Array,
    length: number,
  ): ArrayBuffer;
}

/** A key of `node:crypto`, which holds its own copy of the raw bytes. */
export interface KeyObject {
  export(): Uint8Array<ArrayBuffer>;
}

type CreateCipher = (
  algorithm: string,
  key: KeyObject,
  iv: Uint8Array,
  options: { authTagLength: number },
) => Cipher;

/** One encrypts and gives the tag, the other takes it and decrypts. */
interface Cipher {
  setAAD(data: Uint8Array): unknown;
  update(data: Uint8Array): Uint8Array<ArrayBuffer>;
  final(): Uint8Array<ArrayBuffer>;
  getAuthTag(): Uint8Array<ArrayBuffer>;
  setAuthTag(tag: Uint8Array): unknown;
}

interface Hash {
  update(data: Uint8Array): Hash;
  digest(): Uint8Array<ArrayBuffer>;
}

const { process } = globalThis as {
  process?: { getBuiltinModule?(name: string): unknown };
};

/**
 * `node:crypto`, if there is one. It is looked up at run time, because an
 * `import` would fail in a browser.
 */
export const nodeCrypto = process?.getBuiltinModule?.("node:crypto") as
  | NodeCrypto
  | undefined;

/**
 * The bytes of a `Buffer`, not copied. A `Buffer` is a `Uint8Array`, but not one
 * to hand out: its `slice()` shares the memory, and others test for its class.
 */
export function plain(
  buffer: Uint8Array<ArrayBuffer>,
): Uint8Array<ArrayBuffer> {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}

/**
 * WebCrypto's methods.
 *
 * @throws {Error} If there are none: a browser hides them from a page that came
 * over plain HTTP, and Node 18 behind a flag.
 */
export function subtle(): SubtleCrypto {
  const found = (globalThis as { crypto?: Partial<Crypto> }).crypto?.subtle;
  if (found) return found;
  throw new Error(
    "There is no WebCrypto here: a page needs HTTPS, and Node 18 needs " +
      "--experimental-global-webcrypto",
  );
}

/** `Promise.withResolvers()`, which Node 20 does not have. */
export function withResolvers<T>(): PromiseWithResolvers<T> {
  let resolve: PromiseWithResolvers<T>["resolve"];
  let reject: PromiseWithResolvers<T>["reject"];
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve: resolve!, reject: reject! };
}

/** The same of a promise that may reject though nobody hears it. */
export function withQuietResolvers<T>(): PromiseWithResolvers<T> {
  const resolvers = withResolvers<T>();
  resolvers.promise.catch(() => {});
  return resolvers;
}

const { setImmediate = (callback: () => void) => setTimeout(callback) } =
  globalThis as { setImmediate?: (callback: () => void) => unknown };

/** Waits until pending work has run and the system's events have been polled. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
