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
  live.add(long.promise, () => {});
  const before = watchers;
  for (let i = 0; i < 10; i++) {
    const short = Promise.withResolvers<void>();
    live.add(short.promise, () => {});
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

Deno.test("Live: what begins waits for a place, and for its turn", async () => {
  const live = new Live(1);
  const [first, second] = [1, 2].map(() => Promise.withResolvers<void>());
  const begun: string[] = [];
  const work = (name: string, until: Promise<void>) => () => {
    begun.push(name);
    return until;
  };
  live.begin(work("first", first!.promise), () => {});
  live.begin(work("second", second!.promise), () => {});
  live.begin(work("third", Promise.resolve()), () => {});
  assertEquals([begun, live.size, live.free], [["first"], 3, 0]);
  first!.resolve();
  await live.left;
  assertEquals([begun, live.size, live.free], [["first", "second"], 2, 0]);
  second!.resolve();
  assertEquals(await live.drain(60_000), 0);
  assertEquals(begun, ["first", "second", "third"]);
});

Deno.test("Live: what has no place when time is up is ended, and never begins", async () => {
  const live = new Live(1);
  const long = Promise.withResolvers<void>();
  const ended: string[] = [];
  live.begin(() => long.promise, () => {
    ended.push("first");
    long.resolve();
  });
  live.begin(() => {
    throw new Error("It has begun");
  }, () => ended.push("second"));
  assertEquals(await live.drain(0), 2);
  assertEquals([ended.sort(), live.size], [["first", "second"], 0]);
});
