/**
 * The way to the server: what the client's flags say of it, and the connection.
 *
 * @module
 */

import { getCACertificates } from "node:tls";
import {
  connect,
  type ConnectOptions,
  HttpError,
  TlsError,
  UnansweredError,
} from "../../lib/deno.ts";
import { authority } from "../../lib/carrier/ip_address.ts";
import { type Channel, ChannelError } from "../../lib/mod.ts";
import {
  findPsk,
  IDENTITY_FORM,
  isIdentity,
  nameOf,
  serviceOf,
  type TakenPsks,
} from "../../lib/lock/psk.ts";
import { BY_WEBSOCKET, whyNoWebSocket } from "../advice/box_errors.ts";
import { advise, UsageError } from "../advice/errors.ts";
import { readCertificates, readPair, readPsk, readSecret } from "../files.ts";
import type { Args } from "../main.ts";
import { whyNotThrough } from "../advice/proxy_errors.ts";
import { chooseProxy, type ProxySettings } from "./proxy_settings.ts";
import {
  clientFolders,
  findServer,
  folderOf,
  takeVariables,
} from "../folders.ts";
import { readSettings, settingsPath } from "./settings.ts";
import { whyNot } from "../advice/system_errors.ts";
import { withAdvice } from "../advice/tls_advice.ts";
import { acceptMounts } from "../secrets.ts";
import { stderr } from "../terminal/output.ts";
import { printFrame } from "../terminal/trace.ts";

/** The way to the server, with the proxy as the flags have it. */
export type DialOptions =
  & Omit<ConnectOptions, "hostname" | "identity" | "proxy" | "psk">
  & {
    hostname: string;
    identity: string;
    psk: TakenPsks;
    /** The key file, for errors. */
    pskPath: string;
    proxy?: ProxySettings;
  };

/** Where a client's files are. */
type DialFiles = Awaited<ReturnType<typeof dialFiles>>;

/**
 * Where a client's files are, as its flags and this machine have it. Secrets that
 * are mounted are accepted as they are, with a warning for each, so this comes
 * before the right to write is given up.
 */
export async function dialFiles(args: Args) {
  const name = args.text("server");
  const folders = clientFolders(args.text("dir"), takeVariables());
  const found = findServer(folders, name);
  const [folder, ...tried] = found === undefined
    ? folders.map((folder) => folderOf(folder, name))
    : [found];
  const psk = args.text("psk") ?? `${folder}/psk.txt`;
  const secrets = ["client-key", "proxy-password-file"].flatMap(args.texts);
  for (const warning of await acceptMounts([psk, ...secrets])) {
    stderr.line(`client: ${warning}`);
  }
  return {
    folder: folder!,
    ca: args.text("ca") ?? `${folder}/cert.pem`,
    psk,
    settings: settingsPath(folder!),
    others: [...args.texts("client-cert"), ...secrets],
    /** Where to get one that is missing and was not named. */
    origin: originOf(name, tried),
  };
}

const DEFAULT_PORT = 5001;

/**
 * Where a client gets a file that is missing.
 *
 * @param others Where else it was looked for.
 */
function originOf(name: string | undefined, others: string[]): string {
  const as = name === undefined ? "" : ` --as ${name}`;
  return [
    ...others.map((folder) => `nothing is in ${folder} either`),
    `join the server with 'deno task certs --join${as}', or name the folder ` +
    "that has its files with --dir",
  ].join("; ");
}

/** Reads what the flags say, and the files that they name. */
export async function readDialOptions(
  args: Args,
  files: DialFiles,
): Promise<DialOptions> {
  const settings = await readSettings(files.folder);
  const hostname = args.host("host") ?? settings.host ?? "localhost";
  const port = args.is("port")
    ? args.integer("port", 1, 65_535)
    : settings.port ?? DEFAULT_PORT;
  const originUnless = (flag: string) => args.is(flag) ? "" : files.origin;
  const psk = await readPsk(files.psk, originUnless("psk"));
  const asked = args.text("identity") ?? settings.identity;
  const identity = chooseIdentity(asked, psk, files.psk);
  const serverName = args.host("server-name");
  if (hostname.includes("%") && serverName === undefined) {
    throw new UsageError(
      `Certificates have no zone, as ${hostname} has; give the certificate's ` +
        "name with --server-name",
    );
  }
  const clientPair = await readClientPair(args);
  if (clientPair && serverName && serverName !== hostname) {
    throw new UsageError("--server-name does not go with --client-cert");
  }
  const passwordFile = args.text("proxy-password-file");
  const proxy = chooseProxy({
    host: hostname,
    flag: args.text("proxy"),
    password: passwordFile && await readSecret(passwordFile),
    variable: (name) => Deno.env.get(name),
  });
  if (clientPair && proxy) {
    throw new UsageError("--client-cert does not go with a forward proxy");
  }
  const caCerts = args.is("system-ca") ? [...getCACertificates("system")] : [];
  if (args.is("ca") || !args.is("system-ca")) {
    caCerts.push(await readCertificates(files.ca, originUnless("ca")));
  }
  const websocket = args.text("websocket");
  return {
    hostname,
    port,
    psk,
    pskPath: files.psk,
    identity,
    caCerts,
    handshakeTimeout: 1000 * args.integer("handshake-timeout", 1, 3600),
    idleTimeout: 1000 * args.integer("idle-timeout", 0, 86_400),
    ...(serverName && { serverName }),
    ...clientPair,
    ...(proxy && { proxy }),
    ...(websocket !== undefined && { websocket: websocket || true }),
    ...(args.is("trace") && { trace: printFrame }),
  };
}

async function readClientPair(args: Args) {
  const certPath = args.text("client-cert");
  const keyPath = args.text("client-key");
  if (certPath === undefined && keyPath === undefined) return undefined;
  if (certPath === undefined || keyPath === undefined) {
    throw new UsageError("--client-cert and --client-key go together");
  }
  return await readPair(certPath, keyPath, { mayAsk: false });
}

/** The identity that was asked for, or else `default`, or the only one. */
export function chooseIdentity(
  asked: string | undefined,
  psk: TakenPsks,
  file: string,
): string {
  const [only] = psk.size === 1 ? psk.keys() : ["default"];
  const identity = asked ?? only!;
  if (!isIdentity(identity)) {
    throw new UsageError(`--identity takes ${IDENTITY_FORM}, not ${identity}`);
  }
  if (findPsk(identity, psk)) return identity;
  throw new UsageError(
    `There is no identity ${identity} in ${file}; choose one with --identity: ` +
      namesIn(psk),
  );
}

/** How many identities of a key file an error names. */
const MANY = 10;

/** The identities in a key file, or the first of many. */
function namesIn(psk: TakenPsks): string {
  const names = [...psk.keys().take(MANY)].join(", ");
  return psk.size > MANY ? `${names} and ${psk.size - MANY} more` : names;
}

/**
 * The same for a service of the server, by the client's key that opens it.
 *
 * @throws {UsageError} If there is none: a key for one service opens no other.
 */
export function forService(
  options: DialOptions,
  service: string | undefined,
): DialOptions {
  const { identity, psk, pskPath } = options;
  if (service === undefined || serviceOf(identity) === service) return options;
  const wanted = `${nameOf(identity)}@${service}`;
  if (!isIdentity(wanted)) {
    throw new UsageError(
      `There can be no service ${service}: ${wanted} is not ${IDENTITY_FORM}`,
    );
  }
  if (findPsk(wanted, psk)) return { ...options, identity: wanted };
  throw new UsageError(
    `There is no key for ${wanted} in ${pskPath}, which has ${namesIn(psk)}; ` +
      `get one with 'deno task certs --invite ${wanted}' on the server`,
  );
}

/** Connects; its errors are written for people. */
export async function dial(
  options: DialOptions & {
    standby?: boolean;
    offer?: boolean;
    signal?: AbortSignal | undefined;
  },
): Promise<Channel> {
  try {
    return await connect(options);
  } catch (error) {
    throw inWords(error, options);
  }
}

/** The same error, written for people. */
export function inWords(error: unknown, options: DialOptions): unknown {
  const { hostname, port, proxy, websocket = false } = options;
  const server = authority(hostname, port);
  if (error instanceof HttpError && error.code === "proxy") {
    return new Error(whyNotThrough(error, proxy!, server));
  }
  if (error instanceof TlsError) {
    const mayLookIn = error.reason === "issuer" && proxy;
    const also = "; if the proxy looks into TLS, name its CA with --ca";
    const message = withAdvice(error) + (mayLookIn ? also : "");
    return new ChannelError(error.code, message, { cause: error });
  }
  if (error instanceof ChannelError) {
    if (websocket !== false) {
      return error instanceof HttpError
        ? new Error(whyNoWebSocket(error, server), { cause: error })
        : error;
    }
    // If the server has refused the key, no other way leads in.
    const isUnanswered = error instanceof HttpError ||
      error instanceof UnansweredError && error.code !== "refused";
    return isUnanswered ? advise(error, BY_WEBSOCKET) : error;
  }
  if (proxy) {
    const where = authority(proxy.hostname, proxy.port);
    const why = whyNot(error, "connect to proxy");
    return new Error(
      `Cannot connect to the proxy ${where}: ${why}; check ${proxy.origin}`,
    );
  }
  return new Error(`Cannot connect to ${server}: ${whyNot(error, "dial")}`);
}
