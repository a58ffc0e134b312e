/**
 * The server: sends every client's text back in upper case.
 *
 * ```sh
 * deno task server --port 5001
 * ```
 *
 * @module
 */

import { readPrivateKey, readPsk, readText } from "./cli/files.ts";
import { type Args, messageOf, run, UsageError } from "./cli/main.ts";
import { printFrame } from "./cli/trace.ts";
import { type Handler, upperCase } from "./handlers/upper_case.ts";
import {
  type Channel,
  ChannelError,
  listen,
  type Listener,
} from "./lib/mod.ts";

const USAGE = `
Usage: deno task server [flags]

Sends every client's text back in upper case, through TLS and an inner lock.

  --host ADDRESS           address to listen on (127.0.0.1)
  --port PORT              port to listen on; 0 takes a free one (5001)
  --cert FILE              certificate, PEM (certs/cert.pem)
  --key FILE               its private key, PEM (certs/key.pem)
  --passphrase-file FILE   the key's passphrase; asked for if it needs one
  --psk FILE               key file, identity:hex (certs/psk.txt)
  --handshake-timeout S    seconds a client has to prove its key (10)
  --trace                  show each frame on stderr, plaintext included
  --help, --version

Prints "listening on HOST:PORT" when ready; the log goes to stderr.
Exit codes: 1 network, 2 usage or configuration.
`;

const FLAGS = {
  string: [
    "host",
    "port",
    "cert",
    "key",
    "passphrase-file",
    "psk",
    "handshake-timeout",
  ],
  boolean: ["trace"],
  default: {
    host: "127.0.0.1",
    port: "5001",
    cert: "certs/cert.pem",
    key: "certs/key.pem",
    psk: "certs/psk.txt",
    "handshake-timeout": "10",
  },
};

async function main(args: Args): Promise<void> {
  const listener = await open(args);
  const { hostname, port } = listener.addr;
  const host = hostname.includes(":") ? `[${hostname}]` : hostname;
  console.log(`listening on ${host}:${port}`);
  for await (const channel of listener) serve(channel, upperCase);
}

async function open(args: Args): Promise<Listener> {
  const [hostname, certFile, keyFile] = [
    args.text("host")!,
    args.text("cert")!,
    args.text("key")!,
  ];
  const port = args.integer("port", 0, 65_535);
  const options = {
    hostname,
    port,
    cert: await readText(certFile),
    key: await readPrivateKey(keyFile, args.text("passphrase-file")),
    psk: await readPsk(args.text("psk")!),
    handshakeTimeout: 1000 * args.integer("handshake-timeout", 1, 3600),
    ...(args.is("trace") && { trace: printFrame }),
    onRefused: (error: unknown, { hostname, port }: Deno.NetAddr) =>
      log(`${hostname}:${port}`, `not let in: ${reason(error)}`),
  };
  try {
    return listen(options);
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) {
      throw new Error(
        `Cannot listen on ${hostname}:${port}: the port is in use; ` +
          "stop what uses it or choose another with --port",
      );
    }
    if (error instanceof Deno.errors.InvalidData) {
      throw new UsageError(
        `Cannot use ${certFile} with ${keyFile}: ${messageOf(error)}`,
      );
    }
    throw new Error(
      `Cannot listen on ${hostname}:${port}: ${messageOf(error)}`,
    );
  }
}

async function serve(channel: Channel, handler: Handler): Promise<void> {
  await using _ = channel;
  const { hostname, port } = channel.remoteAddr as Deno.NetAddr;
  const who = `${hostname}:${port} ${channel.identity}`;
  const start = performance.now();
  log(who, "connected");
  let why = "end";
  try {
    await handler(channel);
  } catch (error) {
    why = reason(error);
  }
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const { bytesReceived, bytesSent } = channel;
  log(
    who,
    `closed: ${bytesReceived} bytes in, ${bytesSent} out, ${seconds} s, ${why}`,
  );
}

function reason(error: unknown): string {
  const code = error instanceof ChannelError ? error.code : "failed";
  return `${code} (${messageOf(error)})`;
}

function log(who: string, what: string): void {
  console.error(`${new Date().toISOString()} ${who} ${what}`);
}

if (import.meta.main) await run("server", USAGE, FLAGS, main);
