/** What the outer lock needs, where no program has to make it. */

import { makeCertificate, makeKey } from "../cli/keys/openssl.ts";

/** A new key, and its certificate for these hosts and so many days, PEM. */
export async function makePair(
  hosts = ["localhost"],
  days = 2,
): Promise<{ cert: string; key: string }> {
  const dir = await Deno.makeTempDir({ prefix: "innerlock-" });
  const key = await makeKey(false);
  return { cert: await makeCertificate(key, hosts, days, dir), key };
}

/** The same, or nothing for tests that are ignored. */
export async function pairUnless(
  reason: string | undefined,
  hosts?: string[],
): Promise<{ cert: string; key: string }> {
  return reason === undefined ? await makePair(hosts) : { cert: "", key: "" };
}
