/**
 * A terminal where lines are typed, edited and recalled while other text comes
 * in.
 *
 * @module
 */

import {
  clearScreenDown,
  createInterface,
  cursorTo,
  type Interface,
  moveCursor,
} from "node:readline";
import { Readable, Writable } from "node:stream";
import type { ReadableStream as NodeReadableStream } from "node:stream/web";
import { Exit } from "../advice/errors.ts";
import { columns, stderr } from "./output.ts";
import { writeAll } from "../../lib/lock/transport.ts";
import { onSignal } from "../signals.ts";
import { standardError, standardOutput } from "./standard_streams.ts";

/** The prompt. */
const PROMPT = "> ";

/** The line that ends the conversation. */
const LEAVE = "q";

/** How many lines can be recalled. */
const HISTORY_SIZE = 1000;

/**
 * Asks for lines, and keeps what is being typed below all that is shown
 * meanwhile, this program's stderr included.
 *
 * An unfinished line of what is shown, such as a server's `Password: `, takes
 * the place of the prompt.
 */
export class LineEditor implements AsyncDisposable {
  readonly #screen = new Screen();
  readonly #editor: Interface;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #isOpen = true;
  /** Whether the prompt, and what has been typed, is the last on the screen. */
  #isShown = false;
  /** The unfinished line that stands in for the prompt. */
  #unfinished = "";
  /** Whether there is one that is too long for that. */
  #isMidLine = false;

  /** Takes the terminal; it asks from the first {@linkcode note} on. */
  constructor() {
    // Signals stay the terminal's business, so that Ctrl-Z stops the program.
    const cbreak = Deno.build.os !== "windows";
    const input = Object.assign(
      Readable.fromWeb(Deno.stdin.readable as NodeReadableStream),
      { setRawMode: (mode: boolean) => Deno.stdin.setRaw(mode, { cbreak }) },
    );
    this.#editor = createInterface({
      input,
      output: this.#screen,
      terminal: true,
      historySize: HISTORY_SIZE,
      prompt: PROMPT,
    });
    this.#editor.on("line", (line) => this.#entered(line));
    this.#editor.on("close", () => this.#closed());
    const leave = (code: number) => {
      this.#editor.close();
      this.#written().then(() => Deno.exit(code));
    };
    this.#editor.on("SIGINT", () => leave(Exit.interrupted));
    onSignal("SIGINT", () => leave(Exit.interrupted));
    onSignal("SIGTERM", () => leave(Exit.terminated));
    onSignal("SIGWINCH", () => this.#screen.emit("resize"));
    onSignal("SIGCONT", () => {
      if (!this.#isOpen) return;
      input.setRawMode(true);
      this.#draw();
    });
    // However the program ends, the terminal is as it was.
    addEventListener("unload", () => this.#editor.close());
    if (Deno.stderr.isTerminal()) {
      stderr.sink = {
        write: async (bytes) => {
          await this.#above(() => this.#screen.text(bytes));
          return bytes.length;
        },
      };
    }
  }

  /** Whether lines may still come. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** The lines that are typed, with their ends, until `q` or Ctrl-D. */
  async *lines(): AsyncGenerator<Uint8Array> {
    const encoder = new TextEncoder();
    for await (const line of this.#editor) {
      if (line === LEAVE) return;
      yield encoder.encode(`${line}\n`);
    }
  }

  /** Shows a text in pieces, which may end in the middle of a line. */
  async show(bytes: Uint8Array): Promise<void> {
    await this.#above(() => {
      const text = this.#unfinished +
        this.#decoder.decode(bytes, { stream: true });
      const end = text.lastIndexOf("\n") + 1;
      const rest = text.slice(end);
      // What is too long to be drawn again stays where it is, without a prompt.
      this.#isMidLine = !this.#isOpen || rest.length >= this.#screen.columns;
      this.#unfinished = this.#isMidLine ? "" : rest;
      return this.#screen.text(this.#isMidLine ? text : text.slice(0, end));
    });
  }

  /** Shows a line of its own. */
  note(line: string): void {
    this.#above(() => this.#screen.text(`${line}\n`)).catch(() => {});
  }

  /** Leaves the terminal as it was, and the cursor at the start of a line. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#editor.close();
    await this.#written();
    await stderr.flush();
    stderr.sink = standardError;
  }

  /** Resolves when all is on the screen that can be. */
  #written(): Promise<void> {
    return this.#screen.text("").catch(() => {});
  }

  /** Writes above what is being typed: all at once, lest keys come between. */
  #above(write: () => Promise<void>): Promise<void> {
    this.#erase();
    const written = write();
    this.#draw();
    return written;
  }

  #erase(): void {
    if (!this.#isShown) return;
    this.#isShown = false;
    moveCursor(this.#screen, 0, -this.#editor.getCursorPos().rows);
    cursorTo(this.#screen, 0);
    clearScreenDown(this.#screen);
    // So many rows above the cursor it would begin to draw again.
    (this.#editor as { prevRows?: number }).prevRows = 0;
  }

  #draw(): void {
    if (!this.#isOpen || this.#isMidLine) return;
    this.#isShown = true;
    this.#editor.setPrompt(this.#unfinished || PROMPT);
    this.#editor.prompt(true);
  }

  #entered(line: string): void {
    this.#isShown = false;
    this.#unfinished = "";
    this.#isMidLine = false;
    if (line === LEAVE) this.#editor.close();
    else this.#draw();
  }

  #closed(): void {
    this.#isOpen = false;
    if (this.#isShown) this.#screen.write("\n");
    this.#isShown = false;
  }
}

/** The terminal as a stream of Node's: all that is shown goes through it. */
class Screen extends Writable {
  readonly isTTY = true;

  constructor() {
    const sink = Deno.stdout.isTerminal() ? standardOutput : standardError;
    super({
      write: (bytes: Uint8Array, _, done) => {
        writeAll(sink, bytes).then(() => done(), done);
      },
    });
    // Whoever writes is told.
    this.on("error", () => {});
  }

  get columns(): number {
    return columns();
  }

  /** Resolves when it is written. */
  text(text: string | Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.write(text, (error) => error ? reject(error) : resolve());
    });
  }
}
