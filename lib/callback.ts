/**
 * Callbacks that only look on.
 *
 * @module
 */

/**
 * A callback whose failure is its own: it neither throws nor leaves a promise
 * that rejects, for a channel or a listener must not end because something that
 * looks on has failed.
 *
 * The error is not lost where the runtime has `ErrorEvent` (browsers, Deno): an
 * `error` event of `globalThis` carries it, as one from `reportError`, but
 * nothing ends if nobody listens.
 */
export function guarded<Args extends unknown[]>(
  callback: (...args: Args) => unknown,
): (...args: Args) => void {
  return (...args) => {
    try {
      const result = callback(...args);
      // A function that returns a promise may stand where one returns nothing.
      if (result instanceof Promise) result.catch(tell);
    } catch (error) {
      tell(error);
    }
  };
}

function tell(error: unknown): void {
  // Node has no such event.
  if (typeof ErrorEvent !== "function") return;
  globalThis.dispatchEvent?.(new ErrorEvent("error", { error }));
}
