import { assertEquals, assertRejects } from "@std/assert";
import { withDeadline } from "../lib/lock/deadline.ts";

Deno.test("withDeadline: a signal that lives on keeps nothing of it", async () => {
  const { signal } = new AbortController();
  const listeners = new Set<unknown>();
  signal.addEventListener = (_: string, listener: unknown) => {
    listeners.add(listener);
  };
  signal.removeEventListener = (_: string, listener: unknown) => {
    listeners.delete(listener);
  };
  let during = 0;
  const work = () => {
    during = listeners.size;
    return Promise.resolve("done");
  };
  assertEquals(await withDeadline({ signal }, work), "done");
  assertEquals([during, listeners.size], [1, 0]);
  const fail = () => {
    throw new RangeError("broken");
  };
  await assertRejects(
    () => withDeadline({ signal }, fail),
    RangeError,
    "broken",
  );
  assertEquals(listeners.size, 0);
});

Deno.test("withDeadline: what comes too late is abandoned, what comes in time is not", async () => {
  const late = Promise.withResolvers<string>();
  const abandoned: string[] = [];
  const controller = new AbortController();
  const working = withDeadline(
    { signal: controller.signal },
    (signal) => {
      assertEquals(signal.aborted, false);
      return late.promise;
    },
    (value) => abandoned.push(value),
  );
  controller.abort(new RangeError("changed my mind"));
  await assertRejects(() => working, RangeError, "changed my mind");
  late.resolve("late");
  await late.promise;
  assertEquals(abandoned, ["late"]);

  const inTime = withDeadline(
    {},
    () => Promise.resolve("in time"),
    (value) => abandoned.push(value),
  );
  assertEquals(await inTime, "in time");
  assertEquals(abandoned, ["late"]);
});

Deno.test("withDeadline: what no timer can hold is no limit, and no overflow", async () => {
  for (const time of [2 ** 31 - 2, 2 ** 31 - 1, 2 ** 31, 2 ** 40, Infinity]) {
    // What overflows, Deno fires after a millisecond: before this.
    const work = () =>
      new Promise((resolve) => setTimeout(resolve, 20, "done"));
    const options = { handshakeTimeout: time };
    assertEquals(await withDeadline(options, work), "done");
  }
});
