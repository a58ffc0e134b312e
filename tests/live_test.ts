import { assertEquals } from "@std/assert";
import { Live } from "../cli/live.ts";
import { settled } from "./pipe.ts";

Deno.test("Live: waiting for room keeps nothing on work that lives long", async () => {
  const live = new Live();
  const long = Promise.withResolvers<void>();
  let watchers = 0;
  const then = long.promise.then.bind(long.promise);
  long.promise.then = ((...args: Parameters<typeof then>) => {
    watchers++;
    return then(...args);
  }) as typeof then;
  live.add(() => long.promise);
  const before = watchers;
  for (let i = 0; i < 10; i++) {
    const short = Promise.withResolvers<void>();
    live.add(() => short.promise);
    const waiting = live.left;
    short.resolve();
    await waiting;
    assertEquals(live.size, 1);
  }
  assertEquals(watchers, before);
  long.resolve();
  await settled();
  assertEquals(live.size, 0);
});

Deno.test("Live: what is not done when time is up is ended", async () => {
  const live = new Live(1);
  const long = Promise.withResolvers<void>();
  let reason: Error | undefined;
  live.add((signal) => {
    signal.addEventListener("abort", () => {
      reason = signal.reason;
      long.resolve();
    });
    return long.promise;
  });
  assertEquals([live.size, live.free], [1, 0]);
  const over = new Error("Time is up");
  assertEquals(await live.drain(0, over), 1);
  assertEquals(reason, over);
  assertEquals([live.size, live.free], [0, 1]);
});
