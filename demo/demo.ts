/**
 * The demo: the real programs at work with throw-away keys; then a box in between
 * that holds the TLS key forges a frame, and a client tries another inner key.
 *
 * ```sh
 * deno task demo
 * ```
 *
 * @module
 */

import { stripVTControlCharacters } from "node:util";
import { TextLineStream } from "@std/streams";
import { Exit } from "../cli/advice/errors.ts";
import { run } from "../cli/main.ts";
import { encodeFrames, FrameReader } from "../lib/lock/frame.ts";
import { writeAll } from "../lib/lock/transport.ts";

const USAGE = `
Usage: deno task demo

Shows what travels between a server and a client, and what happens when a box
forges a frame or a client has another key. It uses free ports of this machine
and keys of its own, and leaves nothing behind.

  --help, --version

Exit codes: 1 something was not as expected, 2 wrong usage.
`;

const LINES = ["hello", "straße", "no box reads this"];
const TIME_LIMIT = 20_000;
const CONFIG = `${import.meta.dirname}/../deno.json`;

/**
 * The frame that is forged, the first with data: hello, Noise message, ping and
 * open come before it.
 */
const FORGED_FRAME = 5;

/** What an ordinary terminal has. */
const COLUMNS = 80;

/** The width of the column that says who says something. */
const WHO = 14;

const paint = Deno.stdout.isTerminal() && !Deno.noColor;
const bold = (text: string) => paint ? `\x1b[1m${text}\x1b[22m` : text;
const dim = (text: string) => paint ? `\x1b[2m${text}\x1b[22m` : text;
const green = (text: string) => paint ? `\x1b[32m${text}\x1b[39m` : text;
const red = (text: string) => paint ? `\x1b[31m${text}\x1b[39m` : text;

/** Whether all has been as expected so far. */
let isWell = true;

async function main(): Promise<void> {
  await using cleanUp = new AsyncDisposableStack();
  const dir = await Deno.makeTempDir({ prefix: "innerlock-demo-" });
  cleanUp.defer(() => Deno.remove(dir, { recursive: true }));
  const stopped = Promise.withResolvers<never>();
  const giveUp = (why: string) => () => stopped.reject(new Error(why));
  const onInterrupt = giveUp("interrupted");
  Deno.addSignalListener("SIGINT", onInterrupt);
  cleanUp.defer(() => Deno.removeSignalListener("SIGINT", onInterrupt));
  const timer = setTimeout(giveUp("the demo hangs"), TIME_LIMIT);
  cleanUp.defer(() => clearTimeout(timer));
  await Promise.race([show(dir, cleanUp), stopped.promise]);
}

async function show(dir: string, cleanUp: AsyncDisposableStack): Promise<void> {
  const run = (task: string, ...args: string[]) =>
    cleanUp.use(new Program(task, args));

  title("Two locks", "made by gen_certs.ts for this demo only");
  const made = run("certs", "--out", `${dir}/certs`);
  const wrong = run("certs", "--out", `${dir}/wrong`);
  await Promise.all([made.done(), wrong.done()]);
  const failed = [made, wrong].find(({ code }) => code !== 0);
  expect("certificate, TLS key and inner key are made", !failed);
  if (failed) throw new Error(failed.stderr.lines.at(-1));

  const file = (name: string) => `${dir}/certs/${name}`;
  const [cert, key, psk] = ["cert.pem", "key.pem", "psk.txt"].map(file);
  const files = ["--cert", cert!, "--key", key!, "--psk", psk!];
  const server = run("server", "--port", "0", ...files);
  const port = Number(
    (await server.stdout.find(/^listening on .*:\d+$/))
      .split(":").at(-1),
  );
  const client = (port: number, psk: string, ...rest: string[]) =>
    run("client", "--port", `${port}`, "--ca", cert!, "--psk", psk, ...rest);

  title("A conversation", "server.ts and client.ts --trace");
  await converse(client(port, psk!, "--trace"));

  title("A forged frame", "a box with the server's TLS key flips one bit");
  {
    const tls = {
      cert: await Deno.readTextFile(cert!),
      key: await Deno.readTextFile(key!),
    };
    await using box = new ForgingBox(port, tls);
    const victim = client(box.port, psk!, "pay", "10");
    await victim.done();
    const { hello, lengths, before, after } = await box.seen;
    const [, identity] = hello.split(" ");
    say(
      "box saw",
      `who talks (${identity}), when, and in frames of ${listed(lengths)} ` +
        "bytes, but not what is said",
    );
    const [flipped, ...rest] = marked(before.toHex(), after.toHex());
    say("box gets", before.toHex());
    say("box sends", flipped!);
    for (const line of rest) say("", line);
    const logged = await server.stderr.find(/ closed: .*protocol/);
    say("server logs", logged.replace(/^\S+ /, ""));
    say("client says", victim.stderr.lines.join(" "));
    say("exit code", String(victim.code));
    expect("no byte of it reached the handler", / 0 bytes in,/.test(logged));
    expect(
      "the client printed nothing and failed",
      victim.code === 1 && victim.stdout.lines.length === 0,
    );
  }

  title("A wrong key", "a client with another psk.txt");
  const stranger = client(port, `${dir}/wrong/psk.txt`, "let me in");
  await stranger.done();
  const refused = await server.stderr.find(/: refused \(/);
  say("server logs", refused.replace(/^\S+ /, ""));
  say("client says", stranger.stderr.lines.join(" "));
  say("exit code", String(stranger.code));
  expect("the server refused it", refused.includes("does not hold the key"));
  expect("the client's exit code is 3", stranger.code === 3);
}

/** Sends each line when the one before has come back. */
async function converse(client: Program): Promise<void> {
  const width = Math.max(...LINES.map((line) => line.length));
  console.log(dim(
    `  ${"typed".padEnd(width)}  ${"inside TLS, client to server".padEnd(39)}` +
      `  came back`,
  ));
  const replies: string[] = [];
  for (const line of LINES) {
    await client.write(line + "\n");
    const frame = await client.stderr.find(/^-> #\d+ data /);
    const [, wire = ""] = / wire (\S+)/.exec(frame) ?? [];
    const [, length = ""] = /data (\d+) bytes/.exec(frame) ?? [];
    const reply = await client.stdout.find(/./);
    replies.push(reply);
    const inside = `${wire.padEnd(33)} ${length.padStart(3)} B`;
    console.log(`  ${line.padEnd(width)}  ${inside}  ${reply}`);
  }
  await client.done();
  expect(
    "each line came back in upper case",
    replies.join() === LINES.join().toUpperCase(),
  );
  expect("both directions ended, exit code 0", client.code === 0);
}

/** A program of this project, as its task runs it. */
class Program implements AsyncDisposable {
  readonly stdout: Lines;
  readonly stderr: Lines;
  /** The exit code, once it is {@linkcode done}. */
  code = -1;
  readonly #child: Deno.ChildProcess;
  readonly #stdin: WritableStreamDefaultWriter<Uint8Array>;

  constructor(task: string, args: string[]) {
    this.#child = new Deno.Command(Deno.execPath(), {
      // By its path: npm's package is in a folder where Deno looks for no config.
      args: ["task", "--quiet", "--config", CONFIG, task, ...args],
      env: { NO_COLOR: "1" },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#stdin = this.#child.stdin.getWriter();
    this.stdout = new Lines(this.#child.stdout);
    this.stderr = new Lines(this.#child.stderr);
  }

  /** Writes to its stdin. */
  async write(text: string): Promise<void> {
    await this.#stdin.write(new TextEncoder().encode(text));
  }

  /** Ends its stdin and waits for it. */
  async done(): Promise<void> {
    await this.#stdin.close().catch(() => {});
    // It could not end while nobody takes what it writes.
    const [{ code }] = await Promise.all([
      this.#child.status,
      this.stdout.end(),
      this.stderr.end(),
    ]);
    this.code = code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill();
    } catch {
      // It has ended.
    }
    await this.done();
  }
}

/** The lines of an output. */
class Lines {
  /** Those that have been read. */
  readonly lines: string[] = [];
  readonly #coming: AsyncIterableIterator<string>;

  constructor(output: ReadableStream<Uint8Array<ArrayBuffer>>) {
    this.#coming = output.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream()).values();
  }

  /** The next line that matches; those before it are passed over. */
  async find(pattern: RegExp): Promise<string> {
    for (let next; !(next = await this.#coming.next()).done;) {
      this.lines.push(next.value);
      if (pattern.test(next.value)) return next.value;
    }
    throw new Error(`no ${pattern} in: ${this.lines.join(" | ")}`);
  }

  /** Reads the rest. */
  async end(): Promise<void> {
    for await (const line of this.#coming) this.lines.push(line);
  }
}

/** What the box saw, and what it made of it. */
interface Forgery {
  hello: string;
  lengths: number[];
  before: Uint8Array;
  after: Uint8Array;
}

/**
 * Ends TLS with the server's own certificate and speaks TLS to the server. It
 * forwards every byte but one, for one connection.
 */
class ForgingBox implements AsyncDisposable {
  readonly port: number;
  readonly seen: Promise<Forgery>;
  readonly #listener: Deno.TlsListener;
  readonly #seen = Promise.withResolvers<Forgery>();
  readonly #over: Promise<void>;

  constructor(serverPort: number, tls: { cert: string; key: string }) {
    this.#listener = Deno.listenTls({ hostname: "127.0.0.1", port: 0, ...tls });
    this.port = this.#listener.addr.port;
    this.seen = this.#seen.promise;
    this.seen.catch(() => {});
    this.#over = this.#serve(serverPort, tls.cert)
      .catch((error) => this.#seen.reject(error));
  }

  async #serve(port: number, cert: string): Promise<void> {
    using client = await this.#listener.accept();
    using server = await Deno.connectTls({
      hostname: "localhost",
      port,
      caCerts: [cert],
    });
    const back = this.#forwardReplies(server, client);
    await this.#forwardAndForge(client, server).catch(() => {});
    await back;
    this.#seen.reject(new Error("the box saw no data frame"));
  }

  async #forwardReplies(from: Deno.TlsConn, to: Deno.TlsConn): Promise<void> {
    const buffer = new Uint8Array(65_536);
    try {
      for (let n; (n = await from.read(buffer)) !== null;) {
        await writeAll(to, buffer.subarray(0, n));
      }
    } catch {
      // The server has cut the connection.
    }
    await to.closeWrite().catch(() => {});
  }

  async #forwardAndForge(from: Deno.TlsConn, to: Deno.TlsConn): Promise<void> {
    let hello = "";
    const lengths: number[] = [];
    const frames = new FrameReader(from);
    for (let frame, number = 1; (frame = await frames.next(0)); number++) {
      const before = frame.slice();
      lengths.push(frame.length);
      if (number === 1) hello = new TextDecoder().decode(frame);
      if (number === FORGED_FRAME) {
        frame[0]! ^= 1;
        const after = frame.slice();
        this.#seen.resolve({ hello, lengths: [...lengths], before, after });
      }
      await writeAll(to, encodeFrames([frame]));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.#over;
  }
}

function title(what: string, how: string): void {
  console.log(`\n${bold(what)} ${dim(`(${how})`)}`);
}

/** Says something in lines that fit. */
function say(who: string, what: string): void {
  const width = COLUMNS - WHO - 3;
  const fits = stripVTControlCharacters(what).length <= width;
  const [first = "", ...others] = fits ? [what] : wrapped(what, width);
  console.log(`  ${dim(who.padEnd(WHO))} ${first}`);
  for (const line of others) console.log(" ".repeat(WHO + 3) + line);
}

/** A text in lines of so many characters at most, broken between words. */
function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && `${line} ${word}`.length > width) {
      lines.push(line);
      line = word;
    } else line += line === "" ? word : ` ${word}`;
  }
  return [...lines, line];
}

/** What was made of a text, and a line that points at the difference. */
function marked(before: string, after: string): string[] {
  const at = [...after].findIndex((digit, i) => digit !== before[i]);
  const [from, to] = [before, after].map((text) =>
    parseInt(text[at]!, 16).toString(2).padStart(4, "0")
  );
  return [
    after.slice(0, at) + red(bold(after[at]!)) + after.slice(at + 1),
    " ".repeat(at) + red(`^ the flipped bit: ${from} became ${to}`),
  ];
}

/** `48, 17 and 24`. */
function listed(numbers: number[]): string {
  return new Intl.ListFormat("en-GB").format(numbers.map(String));
}

function expect(what: string, isSo: boolean): void {
  console.log(`  ${isSo ? green("ok") : red("NOT SO")}: ${what}`);
  isWell &&= isSo;
}

if (import.meta.main) {
  await run("demo", USAGE, {}, async () => {
    await main();
    return isWell ? Exit.done : Exit.failed;
  });
}
