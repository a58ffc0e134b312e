import { assertEquals, assertRejects } from "@std/assert";
import { stderrLog } from "../cli/server/log.ts";
import { Output, stderr } from "../cli/terminal/output.ts";
import { writeAll } from "../lib/lock/transport.ts";
import { BufferedSink } from "../cli/terminal/standard_streams.ts";

/** A sink whose every write waits until the test lets it go on. */
class Gate {
  text = "";
  #writes: PromiseWithResolvers<number | Error>[] = [];
  #called = Promise.withResolvers<void>();

  async write(bytes: Uint8Array): Promise<number> {
    const write = Promise.withResolvers<number | Error>();
    this.#writes.push(write);
    this.#called.resolve();
    const result = await write.promise;
    if (result instanceof Error) throw result;
    const count = Math.min(result, bytes.length);
    this.text += new TextDecoder().decode(bytes.subarray(0, count));
    return count;
  }

  /** Lets the next write take so many bytes, or fail. */
  async let(result: number | Error): Promise<void> {
    await this.#called.promise;
    const write = this.#writes.shift()!;
    this.#called = Promise.withResolvers();
    write.resolve(result);
  }
}

/** A sink that takes everything, but not while it has an error. */
function fallible(): {
  text: string;
  error: Error | undefined;
  write(bytes: Uint8Array): Promise<number>;
} {
  return {
    text: "",
    error: undefined,
    write(bytes) {
      if (this.error) return Promise.reject(this.error);
      this.text += new TextDecoder().decode(bytes);
      return Promise.resolve(bytes.length);
    },
  };
}

Deno.test("Output: lines in order, each whole, whatever a write takes", async () => {
  const sink = new Gate();
  const output = new Output(sink);
  output.line("one");
  output.line("two");
  const flushed = output.flush();
  for (const count of [1, 2, 100, 3, 100]) await sink.let(count);
  assertEquals(await flushed, undefined);
  assertEquals([sink.text, output.isIdle], ["one\ntwo\n", true]);
});

Deno.test("Output: nobody waits for a sink, and what is lost is counted where it was", async () => {
  const sink = new Gate();
  const output = new Output(sink);
  for (let i = 0; i <= 1003; i++) output.line(`${i}`);
  await sink.let(100);
  await sink.let(0);
  output.line("after");
  const flushed = output.flush();
  await sink.let(10_000);
  await sink.let(10_000);
  assertEquals(await flushed, undefined);
  const lines = sink.text.split("\n");
  assertEquals(lines.slice(999), [
    ...["999", "1000", "3 lines were lost here", "after", ""],
  ]);
});

Deno.test("Output: a result is never lost for its length", async () => {
  const sink = fallible();
  const output = new Output(sink);
  const lines = Array.from({ length: 3000 }, (_, i) => `line ${i}`);
  output.line("first");
  output.result(lines);
  await output.flush();
  assertEquals(sink.text, ["first", ...lines, ""].join("\n"));
});

Deno.test("Output: a sink that fails throws at nobody, and gets all when it mends", async () => {
  const sink = fallible();
  const output = new Output(sink);
  sink.error = new Error("No space left on device");
  output.line("one");
  output.line("two");
  assertEquals(await output.flush(), sink.error);
  assertEquals([sink.text, output.isIdle], ["", false]);
  sink.error = undefined;
  output.line("three");
  assertEquals(await output.flush(), undefined);
  assertEquals(sink.text, "one\ntwo\nthree\n");
});

Deno.test("BufferedSink: a full pipe that does not block is waited for", async () => {
  const gate = new Gate();
  const sink = new BufferedSink(gate, true);
  const output = new Output(sink);
  output.line("one");
  const flushed = output.flush();
  await gate.let(new Deno.errors.WouldBlock());
  await gate.let(new Deno.errors.WouldBlock());
  await gate.let(100);
  assertEquals([await flushed, gate.text], [undefined, "one\n"]);
  const written = writeAll(sink, new TextEncoder().encode("two\n"));
  await gate.let(1);
  await gate.let(new Deno.errors.WouldBlock());
  await gate.let(100);
  await written;
  assertEquals(gate.text, "one\ntwo\n");
});

Deno.test("BufferedSink: what has been kept is flushed, not written again", async () => {
  const gate = new Gate();
  const written = new BufferedSink(gate, true)
    .write(new TextEncoder().encode("one\ntwo"));
  await gate.let(4);
  assertEquals([await written, gate.text], [4, "one\n"]);
  const rest = new BufferedSink(gate, true)
    .write(new TextEncoder().encode("two"));
  await gate.let(new Deno.errors.WouldBlock());
  await gate.let(100);
  assertEquals([await rest, gate.text], [3, "one\n"]);
});

Deno.test("BufferedSink: where it cannot know what was written, it fails", async () => {
  const gate = new Gate();
  const written = new BufferedSink(gate, false).write(new Uint8Array(10));
  await gate.let(new Deno.errors.WouldBlock());
  await assertRejects(() => written, Error, "does not wait");
});

Deno.test("Output: a line is one line, whoever wrote it", async () => {
  const sink = fallible();
  const output = new Output(sink);
  output.line("a\nb\x1b[2J");
  await output.flush();
  assertEquals(sink.text, "a\\u000ab\\u001b[2J\n");
});

Deno.test("stderrLog: lines that were lost are an event as any other", () => {
  stderrLog("json");
  const { time, ...rest } = JSON.parse(stderr.describeLoss(3));
  assertEquals(isNaN(Date.parse(time)), false);
  const message = "3 lines of the log were lost here";
  assertEquals(rest, { event: "lost", message, count: 3 });
});
