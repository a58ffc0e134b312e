import { assertEquals } from "@std/assert";
import { guarded } from "../lib/lock/callback.ts";
import { told } from "./told.ts";

Deno.test("guarded: the callback gets the arguments", () => {
  const seen: unknown[] = [];
  guarded((...args: [string, number]) => seen.push(...args))("a", 1);
  assertEquals(seen, ["a", 1]);
});

Deno.test("guarded: what it throws ends nothing, and is told", async () => {
  const error = new Error("Its disk is full");
  const callback = guarded(() => {
    throw error;
  });
  assertEquals(await told(callback), [error]);
  const odd = guarded(() => {
    throw Object.create(null);
  });
  assertEquals((await told(odd)).length, 1);
});

Deno.test("guarded: a promise that rejects ends nothing, and is told", async () => {
  const { promise, reject } = Promise.withResolvers<void>();
  const callback = guarded(() => promise);
  const error = new Error("Too late");
  const errors = await told(async () => {
    callback();
    reject(error);
    await promise.catch(() => {});
  });
  assertEquals(errors, [error]);
});
