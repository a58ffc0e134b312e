/**
 * The client: sends text and prints what comes back, or carries local
 * connections to the server.
 *
 * ```sh
 * deno task client hello world
 * deno task client --listen 5432
 * ```
 *
 * @module
 */

import { TextLineStream } from "@std/streams";
import { dirname } from "node:path";
import { getCACertificates } from "node:tls";
import { checkPair } from "./cli/certificates.ts";
import { readCertificates, readPrivateKey, readPsk } from "./cli/files.ts";
import { Live } from "./cli/live.ts";
import { type Args, Exit, messageOf, run, UsageError } from "./cli/main.ts";
import { whyNot } from "./cli/system_errors.ts";
import { giveUpNetwork, keepOnly, socketPaths } from "./cli/permissions.ts";
import { showProgress } from "./cli/progress.ts";
import { stopSignal } from "./cli/signals.ts";
import { printFrame } from "./cli/trace.ts";
import { connect, type ConnectOptions } from "./lib/deno.ts";
import { type Channel, ChannelError } from "./lib/mod.ts";
import { format, parseAddress } from "./tunnel/address.ts";
import { carry } from "./tunnel/entrance.ts";
import { listenPlain } from "./tunnel/plain.ts";
import { Reserve } from "./tunnel/reserve.ts";

const USAGE = `
Usage: deno task client [flags] [words...]

Sends the words as one line and prints the reply. Without words it streams
stdin to the server and the reply to stdout; at a terminal it asks for lines
until 'q' or Ctrl-D. With --listen it carries each local connection to the
server.

  --host NAME              the server's name or address (localhost)
  --port PORT              its port (5001)
  --listen [HOST:]PORT     accept local connections (HOST: 127.0.0.1), or those
                           of unix:/path, a channel for each
  --server-name NAME       the name its certificate has, if it is another
  --ca FILE                certificate to trust, PEM (certs/cert.pem)
  --system-ca              trust this system's public CAs, and of files only
                           what --ca says
  --psk FILE               key file, identity:hex (certs/psk.txt)
  --identity NAME          whose key to use (default)
  --client-cert FILE       certificate to show to a proxy that wants one
  --client-key FILE        its private key
  --handshake-timeout S    seconds the server has to prove its key (10)
  --idle-timeout S         silent for so long, the server is pinged, and given up
                           after as long again; 0 for never (25)
  --grace S                with --listen: at SIGTERM, seconds for connections to
                           finish (30)
  --max-connections N      with --listen: how many local connections at a time;
                           others wait in the system's queue (1000)
  --reserve N              with --listen: how many sessions may be kept ready for
                           connections to come (8)
  --quiet                  no progress of a transfer at a terminal
  --trace                  show each frame on stderr, plaintext included
  --help, --version

Exit codes: 1 network or server, 2 usage or configuration, 3 refused.
`;

const FLAGS = {
  string: [
    "host",
    "port",
    "server-name",
    "ca",
    "psk",
    "identity",
    "client-cert",
    "client-key",
    "handshake-timeout",
    "idle-timeout",
    "listen",
    "max-connections",
    "reserve",
    "grace",
  ],
  boolean: ["system-ca", "quiet", "trace"],
  default: {
    host: "localhost",
    port: "5001",
    ca: "certs/cert.pem",
    psk: "certs/psk.txt",
    identity: "default",
    "handshake-timeout": "10",
    "idle-timeout": "25",
    "max-connections": "1000",
    reserve: "8",
    grace: "30",
  },
  takesWords: true,
};

const PROMPT = "-> ";

/** Of the reply, what is read at a time, in bytes. */
const BUFFER_LENGTH = 65_536;

async function main(args: Args): Promise<number | void> {
  const options = await readOptions(args);
  const local = args.text("listen");
  // All files are read; a socket is made beside its place, then moved there.
  const folders = socketPaths(local).map((path) => dirname(path));
  keepOnly("read", folders);
  keepOnly("write", folders);
  if (local !== undefined) return await serve(local, options, args);
  await using channel = await open(options);
  giveUpNetwork();
  if (args.words.length > 0) {
    const line = new Blob([args.words.join(" ") + "\n"]);
    await talk(channel, line.stream());
  } else if (Deno.stdin.isTerminal()) {
    await talk(channel, typedLines(), PROMPT);
  } else {
    const isSeen = Deno.stderr.isTerminal() && !Deno.stdout.isTerminal();
    using _ = isSeen && !args.is("quiet") && !args.is("trace")
      ? showProgress(channel)
      : null;
    await talk(channel, Deno.stdin.readable);
  }
}

/** Where a client gets the files that `deno task certs` makes. */
const ORIGIN = "copy it from the server, where 'deno task certs' makes it";

async function readOptions(args: Args): Promise<ConnectOptions> {
  const hostname = args.host("host")!;
  const port = args.integer("port", 1, 65_535);
  const identity = args.text("identity")!;
  const pskFile = args.text("psk")!;
  const psk = await readPsk(pskFile, ORIGIN);
  if (!psk.has(identity)) {
    throw new UsageError(
      `There is no identity ${identity} in ${pskFile}; choose with ` +
        `--identity: ${[...psk.keys()].join(", ")}`,
    );
  }
  const serverName = args.host("server-name");
  if (hostname.includes("%") && serverName === undefined) {
    throw new UsageError(
      `No certificate has the zone of ${hostname}: give the name that it has ` +
        "as --server-name",
    );
  }
  const clientPair = await readClientPair(args);
  if (clientPair && serverName && serverName !== hostname) {
    throw new UsageError("--server-name does not go with --client-cert");
  }
  return {
    hostname,
    port,
    psk,
    identity,
    caCerts: await readCas(args),
    handshakeTimeout: 1000 * args.integer("handshake-timeout", 1, 3600),
    idleTimeout: 1000 * args.integer("idle-timeout", 0, 86_400),
    ...(serverName && { serverName }),
    ...clientPair,
    ...(args.is("trace") && { trace: printFrame }),
  };
}

async function readCas(args: Args): Promise<string[]> {
  const isSystem = args.is("system-ca");
  const system = isSystem ? getCACertificates("system") : [];
  if (isSystem && args.texts("ca").length === 0) return system;
  return [await readCertificates(args.text("ca")!, ORIGIN), ...system];
}

async function readClientPair(
  args: Args,
): Promise<{ cert: string; key: string } | undefined> {
  const certPath = args.text("client-cert");
  const keyPath = args.text("client-key");
  if (certPath === undefined && keyPath === undefined) return undefined;
  if (certPath === undefined || keyPath === undefined) {
    throw new UsageError("--client-cert and --client-key go together");
  }
  const cert = await readCertificates(certPath);
  const key = await readPrivateKey(keyPath, { mayAsk: false });
  checkPair({ certPath, cert, keyPath, key });
  return { cert, key };
}

async function open(options: ConnectOptions): Promise<Channel> {
  try {
    return await connect(options);
  } catch (error) {
    if (error instanceof ChannelError) throw error;
    const { hostname = "localhost", port } = options;
    const server = format({ host: hostname, port });
    throw new Error(`Cannot connect to ${server}: ${whyNot(error, "dial")}`);
  }
}

/** Carries local callers, until a signal says to stop. */
async function serve(
  local: string,
  options: ConnectOptions,
  args: Args,
): Promise<number> {
  const address = parseAddress(local, "127.0.0.1");
  if (address === undefined || args.words.length > 0) {
    throw new UsageError(
      `--listen takes [HOST:]PORT or unix:/path, and no words, not ${local}`,
    );
  }
  const grace = 1000 * args.integer("grace", 0, 86_400);
  const maxConnections = args.integer("max-connections", 1, 1_000_000);
  const report = (message: string) => console.error(`client: ${message}`);
  const listener = await listenPlain(address).catch((error) => {
    throw new Error(`${messageOf(error)}; choose another with --listen`);
  });
  const reserve = new Reserve({
    dial: (signal) => open({ ...options, standby: true, signal }),
    report,
    max: args.integer("reserve", 0, 1000),
  });
  const live = new Live();
  const accepting = (async () => {
    while (true) {
      await live.below(maxConnections);
      const caller = await listener.accept();
      if (!caller) return;
      const stop = new AbortController();
      const work = carry(caller, reserve, report, stop.signal);
      live.add(work, () => stop.abort());
    }
  })();
  console.log(`listening on ${format(listener.address)}`);
  await stopSignal();
  await listener.close();
  report(`stopping: ${live.size} connections may finish`);
  const cut = await live.drain(grace);
  reserve.close();
  await accepting;
  report(`stopped: ${cut} connections had to be cut`);
  return cut === 0 ? Exit.done : Exit.failed;
}

/** Both directions at once; done when both have ended. */
async function talk(
  channel: Channel,
  input: ReadableStream<Uint8Array<ArrayBuffer>>,
  prompt = "",
): Promise<void> {
  try {
    await Promise.all([
      // Not aborted on failure: the first error is the one to tell.
      input.pipeTo(channel.writable, { preventAbort: true }).catch((error) => {
        if (error instanceof ChannelError) throw error;
        throw new Error(`Cannot read stdin: ${messageOf(error)}`);
      }),
      print(channel.readable, prompt),
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
): Promise<void> {
  const promptBytes = new TextEncoder().encode(prompt);
  const stdout = Deno.stdout.writable.getWriter();
  const write = (bytes: Uint8Array) =>
    stdout.write(bytes).catch((error) => {
      throw new Error(
        `Cannot write the whole reply to stdout: ${messageOf(error)}`,
      );
    });
  if (prompt) await write(promptBytes);
  const reader = replies.getReader({ mode: "byob" });
  for (let buffer = new Uint8Array(BUFFER_LENGTH);;) {
    const { value, done } = await reader.read(buffer);
    if (done) return;
    await write(value);
    if (prompt && value.at(-1) === 0x0a) await write(promptBytes);
    buffer = new Uint8Array(value.buffer);
  }
}

/** The lines that are typed, until `q` or the end of input. */
function typedLines(): ReadableStream<Uint8Array<ArrayBuffer>> {
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

if (import.meta.main) await run("client", USAGE, FLAGS, main);
