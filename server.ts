/**
 * The server: sends every client's text back in upper case, or carries every
 * client to a backend.
 *
 * ```sh
 * deno task server --port 5001
 * deno task server --forward 127.0.0.1:5432
 * ```
 *
 * @module
 */

import { isPrivateAddress } from "./cli/addresses.ts";
import { checkPair, timeWarning } from "./cli/certificates.ts";
import { readCertificates, readPrivateKey, readPsk } from "./cli/files.ts";
import { LOG_FORMATS, stderrLog } from "./cli/log.ts";
import { type Args, Exit, messageOf, run, UsageError } from "./cli/main.ts";
import { Metrics } from "./cli/metrics.ts";
import { whyNot } from "./cli/system_errors.ts";
import { keepOnly, socketPaths } from "./cli/permissions.ts";
import { addressOf, reasonOf, Sessions } from "./cli/sessions.ts";
import { onSignal, stopSignal } from "./cli/signals.ts";
import { printFrame } from "./cli/trace.ts";
import { forward } from "./handlers/forward.ts";
import type { Handler } from "./handlers/handler.ts";
import { upperCase } from "./handlers/upper_case.ts";
import {
  listen,
  type Listener,
  type ListenerCredentials,
  type ListenOptions,
} from "./lib/deno.ts";
import { format, parseAddress } from "./tunnel/address.ts";

const USAGE = `
Usage: deno task server [flags]

Sends every client's text back in upper case, or carries every client to a
backend, through TLS and an inner lock.

  --host ADDRESS           address to listen on (127.0.0.1)
  --port PORT              port to listen on; 0 takes a free one (5001)
  --forward TO             backend: HOST:PORT or unix:/path
  --cert FILE              certificate, PEM (certs/cert.pem)
  --key FILE               its private key, PEM (certs/key.pem)
  --passphrase-file FILE   the key's passphrase; asked for if it needs one
  --psk FILE               key file, identity:hex (certs/psk.txt)
  --no-tls                 no outer lock: a proxy on this machine or this
                           private network ends TLS
  --reuse-port             share the port with other server processes
  --max-connections N      how many clients at a time (10000)
  --max-handshakes N       how many of them may be unproved (256)
  --handshake-timeout S    seconds a client has to prove its key (10)
  --idle-timeout S         silent for so long, a client is pinged, and given up
                           after as long again; 0 for never (25)
  --grace S                at SIGTERM, seconds for clients to finish (30)
  --log-format FORMAT      text or json (text)
  --trace                  show each frame on stderr, plaintext included
  --help, --version

Prints "listening on HOST:PORT" when ready; the log goes to stderr. SIGHUP reads
certificate and keys again. SIGTERM or SIGINT: no new clients, and the end when
the last has gone; a second one, half a second later or more: at once.
Exit codes: 1 network, or clients cut at the end; 2 usage or configuration.
`;

/** The flags that name a file to read, now and at each reload. */
const FILES = ["cert", "key", "passphrase-file", "psk"];

const FLAGS = {
  string: [
    ...FILES,
    "host",
    "port",
    "forward",
    "max-connections",
    "max-handshakes",
    "handshake-timeout",
    "idle-timeout",
    "grace",
    "log-format",
  ],
  boolean: ["no-tls", "reuse-port", "trace"],
  default: {
    host: "127.0.0.1",
    port: "5001",
    cert: "certs/cert.pem",
    key: "certs/key.pem",
    psk: "certs/psk.txt",
    "max-connections": "10000",
    "max-handshakes": "256",
    "handshake-timeout": "10",
    "idle-timeout": "25",
    grace: "30",
    "log-format": "text",
  },
};

async function main(args: Args): Promise<number> {
  const log = stderrLog(args.choice("log-format", LOG_FORMATS));
  const grace = 1000 * args.integer("grace", 0, 86_400);
  const handler = handlerOf(args);
  const socket = socketPaths(args.text("forward"));
  keepOnly("read", [
    ...FILES.flatMap((name) => args.text(name) ?? []),
    ...socket,
  ]);
  keepOnly("write", socket);
  const metrics = new Metrics();
  const sessions = new Sessions(log, metrics);
  const credentials = await readCredentials(args);
  const listener = open(args, {
    ...credentials,
    onHandshake: ({ remoteAddr, duration, error }) => {
      if (error === undefined) return metrics.accepted(duration);
      const reason = reasonOf(error);
      metrics.refused(reason);
      const message = `not let in: ${reason} (${messageOf(error)})`;
      log("refused", message, { address: addressOf(remoteAddr), reason });
    },
    onLimit: (limit) => log("limit", LIMITS[limit], { limit }),
  });
  const warn = ({ cert }: ListenerCredentials) => {
    const warning = cert && timeWarning(args.text("cert")!, cert);
    if (warning) log("warning", warning);
  };
  onSignal("SIGHUP", async () => {
    try {
      const credentials = await readCredentials(args, { mayAsk: false });
      await listener.reload(credentials);
      log("reload", "certificate and keys read again");
      warn(credentials);
    } catch (error) {
      const message = `nothing reloaded: ${messageOf(error)}`;
      log("reload", message, { reason: "failed" });
    }
  });
  let stopAt: number | undefined;
  stopSignal().then(() => {
    log("stopping", `stopping: ${sessions.live.size} clients may finish`);
    stopAt = performance.now() + grace;
    listener.shutdown();
    // Nor may handshakes take longer.
    Deno.unrefTimer(setTimeout(() => listener.close(), grace));
  });
  warn(credentials);
  if (args.is("no-tls")) {
    log(
      "warning",
      "no TLS: whoever sees this network sees who talks, and when",
    );
  }
  console.log(`listening on ${addressOf(listener.addr)}`);
  for await (const channel of listener) sessions.serve(channel, handler);
  const hasFailed = stopAt === undefined;
  if (hasFailed) log("stopping", "stopping: the port could not be kept");
  const left = (stopAt ?? performance.now() + grace) - performance.now();
  const cut = await sessions.live.drain(Math.max(0, left));
  log("stopped", `stopped: ${cut} clients had to be cut`, { cut });
  return cut === 0 && !hasFailed ? Exit.done : Exit.failed;
}

/** What is said when a limit is reached: once a minute at most. */
const LIMITS = {
  connections:
    "--max-connections is reached: others wait in the system's queue",
  handshakes: "--max-handshakes is reached: the oldest make room for new ones",
  descriptors: "out of file descriptors: others wait in the system's queue",
};

function handlerOf(args: Args): Handler {
  const backend = args.text("forward");
  if (backend === undefined) return upperCase;
  const address = parseAddress(backend);
  if (address) return forward(address);
  throw new UsageError(
    `--forward takes HOST:PORT or unix:/path, not ${backend}`,
  );
}

/** Where a server gets its files. */
const ORIGIN = "'deno task certs' makes one";

async function readCredentials(
  args: Args,
  { mayAsk = true } = {},
): Promise<ListenerCredentials> {
  const psk = await readPsk(args.text("psk")!, ORIGIN);
  if (args.is("no-tls")) return { psk };
  const [certPath, keyPath] = [args.text("cert")!, args.text("key")!];
  const file = args.text("passphrase-file");
  const cert = await readCertificates(certPath, ORIGIN);
  const key = await readPrivateKey(keyPath, {
    file,
    mayAsk,
    advice: "give --passphrase-file FILE",
    origin: ORIGIN,
  });
  checkPair({ certPath, cert, keyPath, key });
  return { psk, cert, key };
}

function open(
  args: Args,
  given: Omit<ListenOptions, "port">,
): Listener {
  const hostname = args.host("host")!;
  const port = args.integer("port", 0, 65_535);
  const tls = !args.is("no-tls");
  if (!tls && !isPrivateAddress(hostname)) {
    throw new UsageError(
      `--no-tls does not go with --host ${hostname}: ` +
        "it takes a loopback or private address",
    );
  }
  const options = {
    ...given,
    hostname,
    port,
    tls,
    reusePort: args.is("reuse-port"),
    maxConnections: args.integer("max-connections", 1, 1_000_000),
    maxHandshakes: args.integer("max-handshakes", 1, 1_000_000),
    handshakeTimeout: 1000 * args.integer("handshake-timeout", 1, 3600),
    idleTimeout: 1000 * args.integer("idle-timeout", 0, 86_400),
    ...(args.is("trace") && { trace: printFrame }),
  };
  try {
    return listen(options);
  } catch (error) {
    const where = format({ host: hostname, port });
    const message = `Cannot listen on ${where}: ${whyNot(error, "serve")}`;
    // Who uses a port may go; all else is wrong until it is changed.
    throw error instanceof Deno.errors.AddrInUse
      ? new Error(message)
      : new UsageError(message);
  }
}

if (import.meta.main) await run("server", USAGE, FLAGS, main);
