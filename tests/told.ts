/** What becomes of what a callback throws. */

/** What the work told the world, as the errors of `error` events. */
export async function told(work: () => unknown): Promise<unknown[]> {
  const errors: unknown[] = [];
  const listener = (event: ErrorEvent) => {
    event.stopImmediatePropagation();
    errors.push(event.error);
  };
  globalThis.addEventListener("error", listener);
  try {
    await work();
    return errors;
  } finally {
    globalThis.removeEventListener("error", listener);
  }
}
