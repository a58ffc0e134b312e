/**
 * How many promises the work takes is the same on every machine, so a test can
 * hold it: what grows here is a new place where something waits.
 */

import { assert } from "@std/assert";
import {
  canCount,
  ofBareFrame,
  ofFullFrame,
  ofRoundTrip,
} from "../bench/promises.ts";
import { ENGINES } from "./engines.ts";
import { makePair } from "./pair.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const reason = lacksPermissions("net", "read", "run", "ffi") ??
  (canCount() ? undefined : "this runtime does not count promises");

const ENGINE = ENGINES["OpenSSL"];
const engines = [undefined, ...(ENGINE ? [ENGINE] : [])];

for (const engine of engines) {
  const name = engine ? "OpenSSL" : "WebCrypto";

  testUnless(
    reason,
    `promises: a tunnel's round trip, by ${name}`,
    async () => {
      const count = await ofRoundTrip(await makePair(), engine);
      assert(count <= 44, `${count}`);
    },
  );

  testUnless(reason, `promises: a full frame, by ${name}`, async () => {
    const count = await ofFullFrame(engine) - await ofBareFrame();
    // WebCrypto's two calls take 8 of them.
    assert(count <= (engine ? 6 : 28), `${count}`);
  });
}
