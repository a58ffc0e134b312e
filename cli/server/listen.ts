/**
 * The server's listener, credentials and backends, as the flags have them.
 *
 * @module
 */

import {
  listen,
  type Listener,
  type ListenerCredentials,
  type ListenOptions,
} from "../../lib/deno.ts";
import { authority } from "../../lib/carrier/ip_address.ts";
import { type Address, parseAddress } from "../../tunnel/address.ts";
import { isPrivateAddress, network } from "../addresses.ts";
import { UsageError } from "../advice/errors.ts";
import { readPair, readPsk } from "../files.ts";
import type { Args } from "../main.ts";
import { mayPass, whyNot } from "../advice/system_errors.ts";
import { printFrame } from "../terminal/trace.ts";

/** The backends by service; the default one has no name. */
export function readBackends(args: Args): Map<string | undefined, Address> {
  const backends = new Map<string | undefined, Address>();
  for (const text of args.texts("forward")) {
    const [, service, to] = /^(?:([\w.-]+)=)?(.+)$/.exec(text)!;
    const address = parseAddress(to!);
    if (!address) {
      throw new UsageError(
        `--forward takes [SERVICE=]HOST:PORT or [SERVICE=]unix:/path, not ${text}`,
      );
    }
    if (backends.has(service)) {
      throw new UsageError(
        "--forward is given more than once " +
          (service === undefined ? "without a service" : `for ${service}`),
      );
    }
    backends.set(service, address);
  }
  return backends;
}

/** Where a server gets its files. */
const ORIGIN = "'deno task certs' makes one";

/**
 * Reads certificate and keys.
 *
 * @param mayAsk Whether a person may be asked for a passphrase.
 */
export async function readCredentials(
  args: Args,
  mayAsk: boolean,
): Promise<ListenerCredentials> {
  const psk = await readPsk(args.text("psk")!, ORIGIN);
  if (args.is("no-tls")) return { psk };
  const [certPath, keyPath] = [args.text("cert")!, args.text("key")!];
  const file = args.text("passphrase-file");
  const pair = await readPair(certPath, keyPath, {
    file,
    mayAsk,
    advice: "give --passphrase-file FILE",
    origin: ORIGIN,
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
    ...(args.text("max-per-client") !== undefined && {
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
    throw mayPass(error) ? new Error(message) : new UsageError(message);
  }
}
