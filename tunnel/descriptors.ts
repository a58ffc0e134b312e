/**
 * How many descriptors the system still has for this program.
 *
 * @module
 */

/** How long a shortage may explain other failures, in milliseconds. */
const RECENTLY = 1000;

let lastShortage = -Infinity;

/** Whether this many are available now. */
export function areLeft(count: number): boolean {
  const taken: Deno.Listener[] = [];
  try {
    // One more, for a name that is being looked up.
    while (taken.length <= count) {
      taken.push(Deno.listen({ hostname: "127.0.0.1", port: 0 }));
    }
    return true;
  } catch (error) {
    const { code } = error as { code?: string };
    if (code !== "EMFILE" && code !== "ENFILE") return true;
    lastShortage = performance.now();
    return taken.length === count;
  } finally {
    for (const listener of taken) listener.close();
  }
}

/** Whether there are none, or were none a moment ago. */
export function areShort(): boolean {
  return !areLeft(1) || performance.now() - lastShortage < RECENTLY;
}
