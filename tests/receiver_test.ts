import { assertRejects } from "@std/assert";
import { encodeFrames, FrameReader } from "../lib/frame.ts";
import { ChannelError } from "../lib/mod.ts";
import type { CipherState } from "../lib/noise.ts";
import { receive } from "../lib/receiver.ts";
import { Tracer } from "../lib/trace.ts";

Deno.test("receive: a forged frame just before a rekey is the one error", async () => {
  const bytes = encodeFrames([new Uint8Array(17), new Uint8Array(17)]);
  const reads = [bytes];
  const source = {
    read(p: Uint8Array) {
      const part = reads.shift();
      if (part) p.set(part);
      return Promise.resolve(part ? part.length : null);
    },
  };
  const forged = {
    n: 65_536n,
    decryptWithAd: () => Promise.reject(new DOMException("", "OperationError")),
    rekey: () => new Promise<void>((resolve) => setTimeout(resolve)),
  };
  const ignore = () => {};
  const sink = {
    data: () => Promise.resolve(),
    end: ignore,
    ping: () => undefined,
    pong: ignore,
    fail: ignore,
  };
  await assertRejects(
    () =>
      receive(
        new FrameReader(source),
        forged as unknown as CipherState,
        new Tracer(),
        sink,
      ),
    ChannelError,
    "forged",
  );
});
