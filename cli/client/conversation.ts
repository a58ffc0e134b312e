/**
 * The client's conversation with the server, over stdin and stdout.
 *
 * @module
 */

import { type Channel, ChannelError } from "../../lib/mod.ts";
import { messageOf, Unread } from "../advice/errors.ts";
import { LineEditor } from "../terminal/line_editor.ts";
import { writeAll } from "../../lib/lock/transport.ts";
import { stderr } from "../terminal/output.ts";
import { Replacements } from "../terminal/replacements.ts";
import { standardOutput } from "../terminal/standard_streams.ts";
import { visibleText } from "../terminal/visible.ts";

/** Of the reply, what is read at a time, in bytes. */
const BUFFER_LENGTH = 65_536;

/** What the two directions are. */
interface TalkOptions {
  /** What goes to the server. */
  input: AsyncIterable<Uint8Array>;
  /** Takes the reply. @default It is written to stdout. */
  print?: (bytes: Uint8Array) => Promise<void>;
  /**
   * Whether the reply goes to a terminal as it is, and not with its control
   * characters made visible.
   *
   * @default {false}
   */
  isRaw?: boolean;
  /** Is told when the server has ended its direction. */
  onEnd?: () => void;
}

/**
 * Both directions at once; done when both have ended.
 *
 * @returns Whether the server has replaced bytes that are no text.
 */
export async function talk(
  channel: Channel,
  { input, print = writeReply, isRaw = false, onEnd }: TalkOptions,
): Promise<boolean> {
  const replacements = new Replacements();
  const send = async () => {
    for await (const bytes of readable(input)) {
      replacements.sent(bytes);
      await channel.write(bytes);
    }
    await channel.closeWrite();
  };
  const receive = async () => {
    const isShown = Deno.stdout.isTerminal() && !isRaw;
    const reply = isShown ? visibleText(channel.readable) : chunks(channel);
    for await (const bytes of reply) {
      replacements.received(bytes);
      await print(bytes);
    }
    onEnd?.();
  };
  try {
    await Promise.all([send(), receive()]);
    await channel.closed;
  } catch (error) {
    if (!(error instanceof ChannelError && error.code === "cut")) throw error;
    throw new Error(`${error.message}; the server's log may say why`);
  }
  return replacements.areSeen;
}

/**
 * The same with lines that are typed at a terminal, until `q` or Ctrl-D.
 *
 * @param to Whom one talks to, and as whom.
 */
export async function converse(channel: Channel, to: string): Promise<void> {
  // What comes later is shown by the editor.
  await stderr.flush();
  await using editor = new LineEditor();
  editor.note(`connected to ${to}; q or Ctrl-D leaves`);
  await talk(channel, {
    input: editor.lines(),
    ...(Deno.stdout.isTerminal() && { print: (bytes) => editor.show(bytes) }),
    onEnd: () => {
      if (editor.isOpen) {
        editor.note("the server has ended its side; q or Ctrl-D leaves");
      }
    },
  });
}

/** A stream whose failure is said to be that of stdin. */
async function* readable<T>(input: AsyncIterable<T>): AsyncGenerator<T> {
  try {
    yield* input;
  } catch (error) {
    throw new Error(`Cannot read stdin: ${messageOf(error)}`);
  }
}

async function writeReply(bytes: Uint8Array): Promise<void> {
  try {
    await writeAll(standardOutput, bytes);
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) throw new Unread();
    throw new Error(
      `Cannot write the whole reply to stdout: ${messageOf(error)}`,
    );
  }
}

/** What comes, each time in the same buffer. */
async function* chunks(channel: Channel): AsyncGenerator<Uint8Array> {
  const buffer = new Uint8Array(BUFFER_LENGTH);
  for (let count; (count = await channel.read(buffer)) !== null;) {
    yield buffer.subarray(0, count);
  }
}
