import { assertEquals, assertRejects } from "@std/assert";
import { withDeadline } from "../lib/lock/deadline.ts";
import { ChannelError } from "../lib/mod.ts";
import { FakeClock } from "./clock.ts";
import { settled } from "./pipe.ts";

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

Deno.test("withDeadline: it gives up at its limit, and never where there is none", async () => {
  for (const [limit, time] of [[undefined, 10_000], [2000, 2000]] as const) {
    const clock = new FakeClock();
    const options = { clock, ...(limit && { handshakeTimeout: limit }) };
    let told: unknown;
    const working = withDeadline(options, (signal) => {
      signal.onabort = () => told = signal.reason;
      return new Promise<void>(() => {});
    });
    clock.pass(time - 1);
    assertEquals(told, undefined);
    clock.pass(1);
    const error = await assertRejects(() => working, ChannelError);
    assertEquals([error.code, told], ["timeout", error]);
    assertEquals(
      error.message,
      `The peer did not finish the handshake within ${time / 1000} s`,
    );
  }
  // What no timer can hold overflows nothing: it is never.
  for (const time of [2 ** 31, 2 ** 40, Infinity]) {
    const work = () => settled().then(() => "done");
    assertEquals(await withDeadline({ handshakeTimeout: time }, work), "done");
  }
});
