/**
 * The server's listener and credentials, as the flags have them.
 *
 * @module
 */

import { join } from "node:path";
import {
  listen,
  type Listener,
  type ListenerCredentials,
  type ListenOptions,
} from "../../lib/deno.ts";
import { authority } from "../../lib/carrier/ip_address.ts";
import { isPrivateAddress, network } from "../addresses.ts";
import { UsageError } from "../advice/errors.ts";
import { serverFolder, takeVariables } from "../folders.ts";
import { readPair, readPsk } from "../files.ts";
import type { Args } from "../main.ts";
import { cannotListen, whyNot } from "../advice/system_errors.ts";
import { printFrame } from "../terminal/trace.ts";

/** The files that a server reads, now and at each reload. */
interface CredentialFiles {
  psk: string;
  /** Those of TLS, if there is TLS. */
  cert?: string;
  key?: string;
  passphrase?: string;
}

/** Where a server's files are, as its flags and this machine have it. */
export function credentialFiles(args: Args): CredentialFiles {
  const ofTls = ["cert", "key", "passphrase-file"];
  args.refuse("no-tls", (name) => ofTls.includes(name));
  const folder = serverFolder(args.text("dir"), takeVariables());
  const psk = args.text("psk") ?? join(folder, "psk.txt");
  if (args.is("no-tls")) return { psk };
  const passphrase = args.text("passphrase-file");
  return {
    psk,
    cert: args.text("cert") ?? join(folder, "cert.pem"),
    key: args.text("key") ?? join(folder, "key.pem"),
    ...(passphrase !== undefined && { passphrase }),
  };
}

/**
 * What to do where a file is missing that was not named. A second set of keys is seldom what is
 * meant: clients would be refused.
 */
const ORIGIN =
  "start the server where its folder certs is, or name that folder with --dir; " +
  "for a new server, 'deno task certs' makes one";

/**
 * Reads certificate and keys.
 *
 * @param mayAsk Whether a person may be asked for a passphrase.
 */
export async function readCredentials(
  args: Args,
  files: CredentialFiles,
  mayAsk: boolean,
): Promise<ListenerCredentials> {
  const isNamed = ["psk", "cert", "key"].some(args.is);
  const origin = isNamed ? "" : ORIGIN;
  const psk = await readPsk(files.psk, origin);
  const { cert, key, passphrase } = files;
  if (cert === undefined || key === undefined) return { psk };
  const pair = await readPair(cert, key, {
    file: passphrase,
    mayAsk,
    advice: "give --passphrase-file FILE",
    origin,
  });
  return { psk, ...pair };
}

/** Whether an address is in one of the networks that a text names. */
function networksOf(text: string): (address: string) => boolean {
  const networks = text.split(",").filter(Boolean).map((part) => {
    const has = network(part.trim());
    if (has) return has;
    throw new UsageError(
      `--proxies takes addresses or networks, such as 10.0.0.0/8, not ${part}`,
    );
  });
  return (address) => networks.some((has) => has(address));
}

/**
 * Listens where and as the flags say; its errors are written for people.
 *
 * @param given What they do not say.
 */
export function listenAs(
  args: Args,
  given: Omit<ListenOptions, "port">,
): Listener {
  const hostname = args.host("host")!;
  const port = args.integer("port", 0, 65_535);
  const tls = !args.is("no-tls");
  if (!tls && !isPrivateAddress(hostname)) {
    throw new UsageError(
      `--no-tls needs a loopback or private address as --host, not ${hostname}`,
    );
  }
  const proxies = args.text("proxies");
  const proxyProtocol = args.is("proxy-protocol");
  if (proxyProtocol && (tls || proxies === undefined)) {
    throw new UsageError(
      "--proxy-protocol needs --no-tls, because its header comes before TLS, " +
        "and --proxies, because nobody else may be believed",
    );
  }
  const options = {
    ...given,
    proxyProtocol,
    isProxy: networksOf(proxies ?? ""),
    hostname,
    port,
    tls,
    reusePort: args.is("reuse-port"),
    maxConnections: args.integer("max-connections", 1, 1_000_000),
    ...(args.is("max-per-client") && {
      maxPerClient: args.integer("max-per-client", 1, 1_000_000),
    }),
    maxHandshakes: args.integer("max-handshakes", 1, 1_000_000),
    handshakeTimeout: 1000 * args.integer("handshake-timeout", 1, 3600),
    idleTimeout: 1000 * args.integer("idle-timeout", 0, 86_400),
    ...(args.is("trace") && { trace: printFrame }),
  };
  try {
    return listen(options);
  } catch (error) {
    const where = authority(hostname, port);
    const message = `Cannot listen on ${where}: ${whyNot(error, "serve")}`;
    throw cannotListen(message, error);
  }
}
