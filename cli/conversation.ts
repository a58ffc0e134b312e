/**
 * The client's conversation with the server, over stdin and stdout.
 *
 * @module
 */

import { TextLineStream } from "@std/streams";
import { type Channel, ChannelError } from "../lib/mod.ts";
import { messageOf, Unread } from "./main.ts";
import { writeAll } from "./output.ts";
import { VisibleText } from "./visible.ts";

/** What a line is asked for with. */
export const PROMPT = "-> ";

/** Of the reply, what is read at a time, in bytes. */
const BUFFER_LENGTH = 65_536;

/**
 * Both directions at once; done when both have ended.
 *
 * At a terminal the reply's control characters are made visible, unless it is to
 * be raw.
 */
export async function talk(
  channel: Channel,
  input: ReadableStream<Uint8Array<ArrayBuffer>>,
  { prompt = "", isRaw = false } = {},
): Promise<void> {
  try {
    await Promise.all([
      // Not aborted on failure: the first error is the one to tell.
      input.pipeTo(channel.writable, { preventAbort: true }).catch((error) => {
        if (error instanceof ChannelError) throw error;
        throw new Error(`Cannot read stdin: ${messageOf(error)}`);
      }),
      print(channel.readable, prompt, isRaw),
    ]);
    await channel.closed;
  } catch (error) {
    if (!(error instanceof ChannelError && error.code === "cut")) throw error;
    throw new Error(`${error.message}; the server's log may say why`);
  }
}

/** Writes what comes to stdout, and a prompt where a line may be typed. */
async function print(
  replies: ReadableStream<Uint8Array<ArrayBuffer>>,
  prompt: string,
  isRaw: boolean,
): Promise<void> {
  const promptBytes = new TextEncoder().encode(prompt);
  const write = (bytes: Uint8Array) =>
    writeAll(Deno.stdout, bytes).catch((error) => {
      if (error instanceof Deno.errors.BrokenPipe) throw new Unread();
      throw new Error(
        `Cannot write the whole reply to stdout: ${messageOf(error)}`,
      );
    });
  await write(promptBytes);
  const shown = Deno.stdout.isTerminal() && !isRaw
    ? replies.pipeThrough(new VisibleText())
    : chunks(replies);
  for await (const bytes of shown) {
    await write(bytes);
    if (bytes.at(-1) === 0x0a) await write(promptBytes);
  }
}

/** The bytes of a stream, each time in the same buffer. */
async function* chunks(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const reader = stream.getReader({ mode: "byob" });
  for (let buffer = new Uint8Array(BUFFER_LENGTH);;) {
    const { value, done } = await reader.read(buffer);
    if (done) return;
    yield value;
    buffer = new Uint8Array(value.buffer);
  }
}

/** The lines that are typed, until `q` or the end of input. */
export function typedLines(): ReadableStream<Uint8Array<ArrayBuffer>> {
  const untilQ = new TransformStream<string, string>({
    transform(line, controller) {
      if (line === "q") controller.terminate();
      else controller.enqueue(line + "\n");
    },
  });
  return Deno.stdin.readable
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new TextLineStream())
    .pipeThrough(untilQ)
    .pipeThrough(new TextEncoderStream());
}
