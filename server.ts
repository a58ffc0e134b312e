/**
 * The server: sends every client's text back in upper case, or carries every
 * client to a backend, or callers of its machine to what clients expose.
 *
 * ```sh
 * deno task server --port 5001
 * deno task server --forward 127.0.0.1:5432
 * ```
 *
 * @module
 */

import { onHangUp } from "./cli/hangup.ts";
import { announceBackend, announceCredentials } from "./cli/server/announce.ts";
import { chooseEngine } from "./cli/engine.ts";
import { Exit, messageOf, UsageError } from "./cli/advice/errors.ts";
import { Entrances, readDoors } from "./cli/server/entrances.ts";
import { watchExpiry } from "./cli/server/expiry.ts";
import {
  credentialFiles,
  listenAs,
  readCredentials,
} from "./cli/server/listen.ts";
import { type Backends, readBackends } from "./cli/backends.ts";
import { LOG_FORMATS, stderrLog } from "./cli/server/log.ts";
import { readNoPipes } from "./cli/files.ts";
import { FollowedFiles } from "./cli/followed_files.ts";
import { type Args, run } from "./cli/main.ts";
import { Metrics, reasonOf } from "./cli/server/metrics.ts";
import { stdout } from "./cli/terminal/output.ts";
import { Refusals } from "./cli/server/refusals.ts";
import { keepOnly, socketFolders, socketPaths } from "./cli/permissions.ts";
import { acceptMounts } from "./cli/secrets.ts";
import { addressOf, Clients } from "./cli/server/clients.ts";
import { stopSignal } from "./cli/signals.ts";
import { count, mayFinish, stopped } from "./cli/terminal/words.ts";
import { withAdvice } from "./cli/advice/tls_advice.ts";
import { CLOCK } from "./lib/lock/clock.ts";
import { echo } from "./handlers/echo.ts";
import { forward } from "./handlers/forward.ts";
import type { Listener, ListenerCredentials } from "./lib/deno.ts";
import { ChannelError } from "./lib/mod.ts";
import type { Handler } from "./handlers/handler.ts";
import { upperCase } from "./handlers/upper_case.ts";

/** People read it, and so does the parser: `listed` of cli/main.ts says how. */
const USAGE = `
Usage: deno task server [flags]

Sends every client's text back in upper case, or carries every client to a
backend, or callers of this machine to what clients expose, through TLS and an
inner lock.

  --host ADDRESS           address to listen on (127.0.0.1)
  --port PORT              port to listen on; 0 takes a free one (5001)
  --forward [SERVICE=]TO   carry clients to HOST:PORT or unix:/path; repeat it
                           for more services
  --listen WHERE=NAME      carry callers of this machine to what client NAME, or
                           NAME@SERVICE, exposes: [HOST:]PORT or unix:/path
                           (HOST: 127.0.0.1); may repeat
  --echo                   send bytes back unchanged, instead of text in upper
                           case
  --dir DIR                the folder of the server's files (INNERLOCK_DIR, or
                           else certs)
  --cert FILE              certificate, PEM (cert.pem in that folder)
  --key FILE               its private key, PEM (key.pem in that folder)
  --passphrase-file FILE   the key's passphrase; without it, the server asks if
                           it needs one
  --psk FILE               key file, identity:hex (psk.txt in that folder)
  --no-tls                 no outer lock: a box on this machine or this private
                           network ends TLS
  --proxies ADDRESSES      boxes whose X-Forwarded-For to believe: addresses or
                           networks (10.0.0.0/8), separated by commas
  --proxy-protocol         these boxes use the PROXY protocol; needs --no-tls
  --reuse-port             share the port with other server processes
  --max-connections N      how many clients at a time; others wait (10000)
  --max-per-client N       how many of them with the same name; more are refused
  --max-handshakes N       how many more may not have proved a key yet; beyond
                           that, the network with most of them loses its oldest
                           (256)
  --handshake-timeout S    seconds a client has to prove its key (10)
  --idle-timeout S         ping a client after this many silent seconds, and
                           drop it after as many more; 0 for never (25)
  --grace S                seconds for clients to finish after SIGTERM (30)
  --log-format FORMAT      text or json (text)
  --openssl [FILE]         seal with the system's OpenSSL 3, which is faster;
                           FILE is its libcrypto (where systems have it)
  --trace                  show each frame on stderr, plaintext included
  --help, --version

Prints "listening on HOST:PORT" on stdout when it is ready. The log goes to
stderr. The server reads certificate and keys again when their files change, and
on SIGHUP; it cuts clients whose key was removed or replaced. On SIGTERM or
SIGINT it takes no new clients and exits when the last one has left. A second
signal, at least half a second later, stops it at once.
Exit codes: 1 the network failed, or clients were cut at the end; 2 wrong usage
or configuration.
`;

const FLAGS = {
  default: {
    host: "127.0.0.1",
    port: "5001",
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
  const sealing = chooseEngine(args);
  const grace = 1000 * args.integer("grace", 0, 86_400);
  const backends = readBackends(args, "forward");
  const doors = readDoors(args);
  const services = handlersOf(backends, doors.length > 0, args.is("echo"));
  const files = credentialFiles(args);
  const { cert: _, ...secrets } = files;
  const paths: string[] = Object.values(files);
  const sockets = socketPaths([...backends.values()]);
  const warnings = await acceptMounts(Object.values(secrets));
  const folders = socketFolders(doors.map(({ address }) => address));
  const both = [...sockets, ...folders];
  keepOnly({ read: [...paths, ...both], write: both });
  for (const warning of warnings) log("warning", warning);
  const metrics = new Metrics();
  const max = args.integer("max-connections", 1, 1_000_000);
  const clients = new Clients(log, metrics, max);
  const refusals = new Refusals(log);
  const followed = new FollowedFiles(
    paths,
    (isFirst) => readCredentials(args, files, isFirst),
  );
  const first = await followed.read();
  readNoPipes();
  const listener: Listener = listenAs(args, {
    ...first,
    ...sealing,
    hasService: (service) => services.has(service),
    takesOffer: (identity) => entrances.takes(identity),
    onOffer: (channel) => entrances.add(channel),
    onHandshake: ({ remoteAddr, duration, error }) => {
      if (error === undefined) return metrics.accepted(duration);
      const reason = reasonOf(error);
      metrics.refused(reason);
      refusals.add(remoteAddr, reason, withAdvice(error));
    },
    onLimit: (limit) => log("limit", LIMITS[limit], { limit }),
  });
  const entrances = new Entrances(doors, listener, clients, log);
  const watch = files.cert && watchExpiry(files.cert, log);
  const announce = (credentials: ListenerCredentials) => {
    announceCredentials(credentials, log);
    entrances.checkKeys(credentials);
    metrics.certificate = credentials.cert;
    if (watch) watch(credentials.cert);
  };
  followed.follow({
    take: (credentials) => listener.reload(credentials),
    taken: (credentials) => {
      log("reload", "certificate and keys read again");
      announce(credentials);
    },
    failed: (error) => {
      const message = `nothing reloaded: ${messageOf(error)}`;
      log("reload", message, { reason: "failed" });
    },
  });
  onHangUp(() => followed.reload());
  let stopAt: number | undefined;
  let closing: Promise<void> | undefined;
  stopSignal().then(() => {
    closing = entrances.close();
    listener.shutdown();
    stopAt = CLOCK.now() + grace;
    const live = count(clients.live.size, "client");
    log(
      "stopping",
      clients.live.size > 0 ? mayFinish(live, grace) : "stopping",
    );
    // Handshakes may not take longer either.
    CLOCK.after(grace, () => listener.close());
  });
  if (backends.size === 0 && services.size > 0) {
    log(
      "echo",
      args.is("echo")
        ? "sending bytes back unchanged"
        : "sending text back in upper case",
    );
  }
  if (sealing.engine) log("engine", `sealing with ${sealing.engine.name}`);
  announce(first);
  if (args.is("no-tls")) {
    log(
      "warning",
      "no TLS: whoever sees this network sees who talks, and when",
    );
  }
  await entrances.open();
  stdout.line(`listening on ${addressOf(listener.addr)}`);
  for (const [service, to] of backends) announceBackend(service, to, log);
  for await (const channel of listener) {
    clients.serve(channel, services.get(channel.service)!);
  }
  const hasFailed = stopAt === undefined;
  if (hasFailed) {
    log("stopping", "stopping: another program has taken the port");
  }
  const left = (stopAt ?? CLOCK.now() + grace) - CLOCK.now();
  const cut = await clients.live.drain(
    Math.max(0, left),
    new ChannelError("stopping", "The server stopped"),
  );
  await (closing ?? entrances.close());
  refusals.tellRepeated();
  entrances.tellRest();
  log("stopped", stopped(cut, "client"), { cut });
  return cut === 0 && !hasFailed ? Exit.done : Exit.failed;
}

/** What is said when a limit is reached: once a minute at most. */
const LIMITS = {
  connections: "--max-connections is reached: more clients wait",
  handshakes:
    "--max-handshakes is reached: the network with most of them loses its oldest",
  descriptors: "out of file descriptors: sessions in reserve make room, then " +
    "more clients wait in the system's queue; raise 'ulimit -n'",
};

/**
 * What is done for each service: without backends, what comes goes back, unless
 * it is callers of this machine who are carried.
 */
function handlersOf(
  backends: Backends,
  hasDoors: boolean,
  isEcho: boolean,
): Map<string | undefined, Handler> {
  if (backends.size === 0 && (isEcho || !hasDoors)) {
    return new Map([[undefined, isEcho ? echo : upperCase]]);
  }
  if (isEcho) throw new UsageError("--echo does not go with --forward");
  return new Map(
    Array.from(backends, ([service, to]) => [service, forward(to)]),
  );
}

if (import.meta.main) await run("server", USAGE, FLAGS, main);
