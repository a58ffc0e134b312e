/**
 * How many descriptors the system still has for this program.
 *
 * @module
 */

/** So long a shortage may explain what else has failed, in milliseconds. */
const RECENTLY = 1000;

let lastShortage = -Infinity;

/** Whether there are so many to be had at this moment. */
export function areLeft(count: number): boolean {
  const taken: Deno.Listener[] = [];
  try {
    // Without one more, those that are just looking up a name have none.
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

/** Whether there are none, or have been none a moment ago. */
export function areShort(): boolean {
  return !areLeft(1) || performance.now() - lastShortage < RECENTLY;
}
