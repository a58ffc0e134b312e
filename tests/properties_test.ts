import fc from "fast-check";
import { PROPERTIES } from "./properties.ts";

for (const [name, property] of Object.entries(PROPERTIES)) {
  Deno.test(name, async () => {
    await fc.assert(property, { numRuns: 200 });
  });
}
