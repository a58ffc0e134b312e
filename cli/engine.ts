/**
 * What seals: WebCrypto, or the system's OpenSSL where `--openssl` says so.
 *
 * @module
 */

import { resolve } from "node:path";
import type { Engine } from "../lib/mod.ts";
import { openssl, OPENSSL_FILES, OpenSslError } from "../lib/openssl.ts";
import { UsageError } from "./advice/errors.ts";
import type { Args } from "./main.ts";
import { keep } from "./permissions.ts";

/**
 * The engine that the flags ask for; none for the default. Afterwards no foreign
 * code can be loaded any more.
 */
export function chooseEngine(args: Args): { engine?: Engine } {
  const file = args.text("openssl");
  const files = file === undefined
    ? []
    : file === ""
    ? OPENSSL_FILES
    : [resolve(file)];
  keep("ffi", files);
  try {
    return file === undefined ? {} : { engine: openssl(files) };
  } catch (error) {
    if (!(error instanceof OpenSslError)) throw error;
    throw new UsageError(
      `${error.message}; install OpenSSL 3, name its libcrypto with --openssl ` +
        "FILE, or leave the flag out",
    );
  } finally {
    keep("ffi", []);
  }
}
