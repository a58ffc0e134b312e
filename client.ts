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

import { onHangUp } from "./cli/hangup.ts";
import { check } from "./cli/client/check.ts";
import { converse, talk } from "./cli/client/conversation.ts";
import {
  dial,
  dialFiles,
  forService,
  readDialOptions,
} from "./cli/client/dial.ts";
import { readBackends } from "./cli/backends.ts";
import { carryAll } from "./cli/client/listen.ts";
import { listServers } from "./cli/client/list.ts";
import { chooseEngine } from "./cli/engine.ts";
import { Exit, UsageError } from "./cli/advice/errors.ts";
import { type Args, run } from "./cli/main.ts";
import { stderr } from "./cli/terminal/output.ts";
import { giveUp, keepOnly, socketPaths } from "./cli/permissions.ts";
import { showProgress } from "./cli/terminal/progress.ts";
import { authority } from "./lib/carrier/ip_address.ts";

/** People read it, and so does the parser: `listed` of cli/main.ts says how. */
const USAGE = `
Usage: deno task client [flags] [words...]

Sends the words as one line and prints the reply. Without words, it sends stdin
and prints the reply; at a terminal, it asks for lines until 'q' or Ctrl-D. With
--listen, it carries each local connection to the server; with --expose, it
carries the server's callers to a service of this machine. With either, it reads
certificates and keys again when their files change, and on SIGHUP.

  --server NAME            a server joined with --as NAME (the unnamed one)
  --dir DIR                the folder of the servers joined (INNERLOCK_DIR; else
                           certs here, or else the user's own)
  --list                   list the servers joined, as whom, and until when
  --host NAME              its name or address (as joined, or localhost)
  --port PORT              its port (as joined, or 5001)
  --listen WHERE[=SERVICE] carry local connections: [HOST:]PORT or unix:/path
                           (HOST: 127.0.0.1); may repeat
  --expose [SERVICE=]TO    offer HOST:PORT or unix:/path to the server's
                           callers; may repeat
  --connect SERVICE        carry stdin and stdout to a service
  --check                  try each step on the way to the server, and say what
                           to do; with --expose, whether it takes the offer
  --websocket [PATH]       go through boxes that speak HTTP (/innerlock)
  --proxy URL              go through a forward proxy, http://[USER@]HOST:PORT;
                           none for no proxy (what HTTPS_PROXY, ALL_PROXY and
                           NO_PROXY say)
  --proxy-password-file F  its password
  --server-name NAME       the name in the certificate, if it differs
  --ca FILE                certificate to trust, PEM (in that folder)
  --system-ca              trust this system's public CAs, and no file unless
                           --ca names it
  --psk FILE               key file, identity:hex (in that folder)
  --identity NAME          whose key to use (the only one, or default)
  --client-cert FILE       certificate to show to a box that asks for one
  --client-key FILE        its private key
  --handshake-timeout S    seconds to connect, until the server has proved its
                           key (10)
  --idle-timeout S         ping the server after this many silent seconds, and
                           drop it after as many more; 0 for never (25)
  --max-connections N      with --listen or --expose: how many connections at a
                           time, both ways together; others wait (1000)
  --reserve N              with --listen or --expose: how many sessions to keep
                           ready (8; with --expose at least 1)
  --grace S                with --listen or --expose: seconds for connections to
                           finish after SIGTERM (30)
  --quiet                  do not show a transfer's progress at a terminal
  --openssl [FILE]         seal with the system's OpenSSL 3, which is faster;
                           FILE is its libcrypto (where systems have it)
  --trace                  show each frame on stderr, plaintext included
  --help, --version

Exit codes: 1 the network or the server failed, 2 wrong usage or configuration,
3 refused.
`;

/** Flags that mean something to tunnels alone. */
const OF_TUNNELS = ["max-connections", "reserve", "grace"];

const FLAGS = {
  default: {
    "handshake-timeout": "10",
    "idle-timeout": "25",
    "max-connections": "1000",
    reserve: "8",
    grace: "30",
  },
  takesWords: true,
};

/** Refuses flags that would be ignored. */
function refuseUseless(args: Args): void {
  args.refuse("list", (name) => name !== "dir");
  const isListen = (name: string) => name === "listen";
  const advice = "; name a service with --connect";
  args.refuse("check", isListen, advice);
  args.refuse("check", (name) => OF_TUNNELS.includes(name));
  for (const tunnel of ["listen", "expose"]) {
    args.refuse(tunnel, (name) => name === "connect");
  }
}

async function main(args: Args): Promise<number | void> {
  const isCheck = args.is("check");
  refuseUseless(args);
  const sealing = chooseEngine(args);
  const isTunnel = args.is("listen") || args.is("expose");
  if (isTunnel && !isCheck) return await carryAll(args, sealing);
  const useless = OF_TUNNELS.find(args.is);
  if (useless) throw new UsageError(`--${useless} needs --listen or --expose`);
  // As if this program did not listen for SIGHUP.
  onHangUp(() => Deno.exit(Exit.hungUp));
  const [exposure, another] = readBackends(args, "expose");
  if (another) throw new UsageError("--check tries one --expose at a time");
  const [service, backend] = exposure ?? [args.text("connect")];
  if (isCheck) args.takesNoWords("--check");
  if (service !== undefined) args.takesNoWords("--connect");
  if (args.is("list")) return await listServers(args);
  const read = async () => {
    const files = await dialFiles(args);
    const given = { ...await readDialOptions(args, files), ...sealing };
    const options = forService(given, service);
    // All files have been read.
    const sockets = socketPaths(backend ? [backend] : []);
    keepOnly({ read: sockets, write: sockets });
    giveUp("sys");
    return options;
  };
  if (isCheck) return await check(read, backend);
  const options = await read();
  await using channel = await dial(options);
  giveUp("net");
  const [isTyped, isRead, isTold] = [Deno.stdin, Deno.stdout, Deno.stderr]
    .map((stream) => stream.isTerminal());
  if (service !== undefined) {
    await talk(channel, { input: Deno.stdin.readable, isRaw: true });
  } else if (args.words.length > 0) {
    const line = new Blob([args.words.join(" ") + "\n"]);
    await talk(channel, { input: line.stream() });
  } else if (isTyped && (isRead || isTold)) {
    const { hostname, port, identity } = options;
    await converse(channel, `${authority(hostname, port)} as ${identity}`);
  } else {
    const isSeen = isTold && !isRead;
    const progress = isSeen && !args.is("quiet") && !args.is("trace")
      ? showProgress(channel)
      : undefined;
    const isReplaced = await talk(channel, { input: Deno.stdin.readable })
      .finally(() => progress?.[Symbol.dispose]());
    if (isReplaced) {
      stderr.line(
        "client: the server replaced bytes that are not text; for binary data, " +
          "start it with --echo",
      );
    }
  }
}

if (import.meta.main) await run("client", USAGE, FLAGS, main);
