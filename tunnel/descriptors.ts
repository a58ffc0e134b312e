/**
 * How many descriptors the system still has for this program.
 *
 * @module
 */

/** Whether there are so many to be had at this moment. */
export function areLeft(count: number): boolean {
  const taken: Deno.Listener[] = [];
  try {
    while (taken.length < count) {
      taken.push(Deno.listen({ hostname: "127.0.0.1", port: 0 }));
    }
    return true;
  } catch (error) {
    const { code } = error as { code?: string };
    return code !== "EMFILE" && code !== "ENFILE";
  } finally {
    for (const listener of taken) listener.close();
  }
}
