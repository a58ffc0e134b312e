/**
 * How many descriptors the system still has for this program.
 *
 * @module
 */

/** How long a shortage may explain other failures, in milliseconds. */
const RECENTLY = 1000;

let lastShortage = -Infinity;

/**
 * How many are available now. To count them takes time: some 10 µs each.
 *
 * @param max Counts no further.
 * @param needed If there are not more, they are short.
 */
export function countLeft(max: number, needed: number): number {
  const taken: Deno.Listener[] = [];
  try {
    // One more, for a name that is being looked up.
    while (taken.length <= max) {
      taken.push(Deno.listen({ hostname: "127.0.0.1", port: 0 }));
    }
    return max;
  } catch (error) {
    const { code } = error as { code?: string };
    if (code !== "EMFILE" && code !== "ENFILE") return max;
    if (taken.length <= needed) lastShortage = performance.now();
    return taken.length;
  } finally {
    for (const listener of taken) listener.close();
  }
}

/** Whether there are none, or were none a moment ago. */
export function areShort(): boolean {
  return countLeft(1, 1) < 1 || performance.now() - lastShortage < RECENTLY;
}
