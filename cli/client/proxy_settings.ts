/**
 * The forward proxy that a client goes through, from `--proxy` or from the
 * environment's variables as curl reads them.
 *
 * @module
 */

import { isIP, isIPv6 } from "node:net";
import { isHost, network } from "../addresses.ts";
import { UsageError } from "../advice/errors.ts";

/** curl's, for a proxy's URL that names none. */
const DEFAULT_PORT = 1080;

/** The variables that name a proxy for TLS, in this order. */
const PROXY_VARIABLES = [
  "https_proxy",
  "HTTPS_PROXY",
  "all_proxy",
  "ALL_PROXY",
];

/** Those that name the hosts to reach without it. */
const EXCEPTION_VARIABLES = ["no_proxy", "NO_PROXY"];

/** A forward proxy. */
export interface ProxySettings {
  /** Its name or address. */
  hostname: string;
  /** Its port. */
  port: number;
  /** What to show it; the password is empty if none was given. */
  credentials?: { username: string; password: string };
  /** What named it: `--proxy`, or a variable. */
  origin: string;
}

/** What {@linkcode chooseProxy} takes. */
export interface ProxyChoice {
  /** The host that is to be reached. */
  host: string;
  /** What `--proxy` says, if it was given: a URL, or `none`. */
  flag: string | undefined;
  /** What the file of `--proxy-password-file` says, if it was given. */
  password: string | undefined;
  /** A variable of the environment. */
  variable: (name: string) => string | undefined;
}

/**
 * The proxy on the way to a host; undefined if there is none.
 *
 * `--proxy` counts for any host. Without it, the first of `https_proxy`,
 * `HTTPS_PROXY`, `all_proxy` and `ALL_PROXY` that is not empty counts, unless
 * `no_proxy`, or else `NO_PROXY`, names the host.
 *
 * @throws {UsageError} If it cannot be used. No message shows a password.
 */
export function chooseProxy(choice: ProxyChoice): ProxySettings | undefined {
  const { host, flag, password, variable } = choice;
  const named = (names: string[]) => names.find((name) => variable(name));
  const origin = flag === undefined ? named(PROXY_VARIABLES) : "--proxy";
  if (origin === undefined || flag === "none") {
    if (password === undefined) return undefined;
    throw new UsageError(
      "--proxy-password-file needs a proxy: name one with --proxy",
    );
  }
  const except = named(EXCEPTION_VARIABLES);
  const isExcepted = except && isException(host, variable(except)!);
  if (flag === undefined && isExcepted) return undefined;
  const proxy = parseProxy(flag ?? variable(origin)!, origin);
  if (password === undefined) return proxy;
  if (!proxy.credentials) {
    throw new UsageError(
      `--proxy-password-file needs a user: write http://USER@HOST:PORT in ` +
        origin,
    );
  }
  proxy.credentials.password = password;
  return proxy;
}

/** `URL` would drop the port 80, as if none had been given. */
const PROXY_URL =
  /^(?:([a-z][a-z\d+.-]*):\/\/)?(?:([^/?#]*)@)?(\[[^\]]*\]|[^:/?#[\]]+)(?::(\d+))?\/?$/i;

function parseProxy(text: string, origin: string): ProxySettings {
  const match = PROXY_URL.exec(text);
  const scheme = match?.[1]?.toLowerCase() ?? "http";
  if (scheme === "https" || scheme.startsWith("socks")) {
    const kind = scheme === "https" ? "an HTTPS proxy" : "a SOCKS proxy";
    throw new UsageError(
      `${origin} names ${kind}, which is not supported; name one with http://, ` +
        "or do without: --proxy none",
    );
  }
  const [, , user, address = "", digits] = match ?? [];
  const hostname = unbracketed(address);
  const port = Number(digits ?? DEFAULT_PORT);
  const isOfPort = Number.isSafeInteger(port) && port > 0 && port < 65_536;
  const isBracketed = address !== hostname;
  if (
    scheme !== "http" || !isOfPort || !isHost(hostname) ||
    isBracketed !== isIPv6(hostname)
  ) {
    throw new UsageError(
      `${origin} must be http://HOST:PORT or http://USER@HOST:PORT` +
        (origin === "--proxy" ? ", or none" : ""),
    );
  }
  const proxy = { hostname, port, origin };
  if (user === undefined) return proxy;
  const colon = user.indexOf(":");
  if (colon >= 0 && origin === "--proxy") {
    throw new UsageError(
      "--proxy takes no password, because any user of this machine could read " +
        "it; put it into a file for --proxy-password-file",
    );
  }
  const username = colon < 0 ? user : user.slice(0, colon);
  const password = colon < 0 ? "" : user.slice(colon + 1);
  try {
    return {
      ...proxy,
      credentials: {
        username: decodeURIComponent(username),
        password: decodeURIComponent(password),
      },
    };
  } catch {
    throw new UsageError(
      `${origin} has a stray % in its user or password; write a % itself as %25`,
    );
  }
}

/** `[::1]` and `[::]/0` without the brackets. */
function unbracketed(text: string): string {
  return text.replace(/^\[(.*)\]/, "$1");
}

/**
 * Whether a list, such as `localhost,.example.com,10.0.0.0/8`, names a host, by
 * curl's rules: a name stands for itself and all names below it, with or without
 * a dot at its beginning; an address for itself, or with a length for its
 * network; a `*` alone for all. Ports and other wildcards are not understood.
 */
function isException(host: string, list: string): boolean {
  if (list.trim() === "*") return true;
  const entries = list.split(/[\s,]+/).filter(Boolean);
  return isIP(host) === 0
    ? entries.some((entry) => isInDomain(host, entry))
    : entries.some((entry) => network(unbracketed(entry))?.(host));
}

function isInDomain(host: string, domain: string): boolean {
  const plain = (name: string) => name.toLowerCase().replace(/\.$/, "");
  const suffix = plain(domain).replace(/^\./, "");
  return `.${plain(host)}`.endsWith(`.${suffix}`);
}
