/**
 * Callbacks that only observe.
 *
 * @module
 */

/**
 * Wraps a callback so that it neither throws nor leaves a rejected promise: a
 * channel or a listener must not end because an observer has failed.
 *
 * Where the runtime has `ErrorEvent` (browsers, Deno), the error is not lost: an
 * `error` event of `globalThis` carries it, as with `reportError`, but the
 * program goes on if nobody listens.
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
