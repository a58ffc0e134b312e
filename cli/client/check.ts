/**
 * `client --check`: the way to the server, step by step, up to the first step
 * that fails.
 *
 * @module
 */

import { X509Certificate } from "node:crypto";
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { HttpError, TlsError } from "../../lib/deno.ts";
import { authority } from "../../lib/carrier/ip_address.ts";
import { type Channel, ChannelError, type FrameTrace } from "../../lib/mod.ts";
import { connectThroughProxy } from "../../lib/carrier/proxy.ts";
import { dial, type DialOptions, inWords } from "./dial.ts";
import { Exit, exitCodeOf, messageOf } from "../advice/errors.ts";
import { stdout } from "../terminal/output.ts";
import { keyFingerprint } from "../keys/certificates.ts";
import { parsePem } from "../keys/pem.ts";

/** The server drops a session that it does not want within this time, in ms. */
const SETTLING_TIME = 300;

/** How long the server may take to reach its backend, in milliseconds. */
const BACKEND_TIME = 1000;

/**
 * Goes the way to the server and prints a line for each step: `✓` and what it
 * found, or `✗` and what to do, which ends the check.
 *
 * @returns The exit code: 0, or that of the step that failed.
 */
export async function check(options: DialOptions): Promise<number> {
  let step = "";
  try {
    for await (const [name, work] of steps(options)) {
      step = name;
      stdout.line(`✓ ${step}: ${await work()}`);
    }
    return Exit.done;
  } catch (error) {
    stdout.line(`✗ ${step}: ${messageOf(error)}`);
    return exitCodeOf(error);
  }
}

type Step = [name: string, work: () => string | Promise<string>];

/** The steps, in order. */
async function* steps(options: DialOptions): AsyncGenerator<Step> {
  const { hostname, port, proxy, websocket, identity } = options;
  const server = authority(hostname, port);
  const first = proxy ?? { hostname, port };

  yield ["name", async () => {
    if (isIP(first.hostname)) return `${first.hostname} is an address`;
    return `${first.hostname} is ${await addressesOf(first.hostname)}`;
  }];

  let tcp: Deno.TcpConn;
  yield ["TCP", async () => {
    tcp = await connectTcp(first, options);
    const { hostname, port } = tcp.remoteAddr;
    return `connected to ${authority(hostname, port)}`;
  }];

  if (proxy) {
    yield ["proxy", async () => {
      await passProxy(tcp, options);
      return `it connects to ${server}`;
    }];
  }

  const shown = await certificateOf(tcp!, options).catch(() => undefined);
  const attempt = await tryToProve(options);
  const unless = (name: Lock, says: string): Step => [name, () => {
    if (attempt.failedAt !== name) return says;
    const { error } = attempt;
    if (name !== "TLS" || !shown || !(error instanceof ChannelError)) {
      throw error;
    }
    const { code, message } = error;
    throw new ChannelError(code, `${message}; it showed ${nameOf(shown)}`);
  }];
  yield unless("TLS", shown ? whose(shown, options) : "the server is trusted");
  if (websocket !== undefined) yield unless("WebSocket", "it is open");
  yield unless("inner lock", `the server has the key of ${identity}`);

  const channel = attempt.channel!;
  yield ["service", () => tryService(channel)];
  yield [
    "round trip",
    async () =>
      `${(await attempt.roundTrip).toFixed(1)} ms, through both locks`,
  ];
  channel.abort();
  if (shown) yield ["clock", () => clockWithin(shown)];
}

async function addressesOf(name: string): Promise<string> {
  try {
    const found = await lookup(name, { all: true });
    return found.map(({ address }) => address).join(", ");
  } catch {
    throw new Error(
      `there is no name ${name}, or the name server does not answer; check ` +
        "--host",
    );
  }
}

/** The time limit that the flags set. */
function deadline({ handshakeTimeout }: DialOptions): AbortSignal {
  return AbortSignal.timeout(handshakeTimeout!);
}

async function connectTcp(
  to: { hostname: string; port: number },
  options: DialOptions,
): Promise<Deno.TcpConn> {
  const signal = deadline(options);
  try {
    const { hostname, port } = to;
    return await Deno.connect({ hostname, port, signal });
  } catch (error) {
    if (!signal.aborted) throw inWords(error, options);
    throw new Error(
      `no answer within ${
        options.handshakeTimeout! / 1000
      } s; the address may ` +
        "be wrong, or a firewall may block it",
    );
  }
}

async function passProxy(
  tcp: Deno.TcpConn,
  options: DialOptions,
): Promise<void> {
  const { hostname, port, proxy } = options;
  const signal = deadline(options);
  try {
    await connectThroughProxy(tcp, { ...proxy, hostname, port, signal });
  } catch (error) {
    throw inWords(error, options);
  }
}

/**
 * The certificate that the other end shows. It is only looked at, not trusted:
 * nothing is sent over this connection, which ends here.
 */
async function certificateOf(
  tcp: Deno.TcpConn,
  options: DialOptions,
): Promise<X509Certificate> {
  const { serverName = options.hostname, websocket, cert, key } = options;
  const { readable, writable } = tcp;
  const { promise, resolve, reject } = Promise.withResolvers<X509Certificate>();
  let socket: TLSSocket | undefined;
  const signal = deadline(options);
  signal.addEventListener("abort", () => reject(signal.reason));
  try {
    socket = connectTls({
      // deno-lint-ignore no-explicit-any -- Node's types of Web streams.
      socket: Duplex.fromWeb({ readable, writable } as any),
      rejectUnauthorized: false,
      // Without a list, Deno refuses any certificate while its store is empty.
      ca: [],
      ALPNProtocols: [
        ...websocket === undefined ? ["innerlock/1"] : [],
        "http/1.1",
      ],
      ...(!isIP(serverName) && { servername: serverName }),
      ...(cert !== undefined && key !== undefined && { cert, key }),
    });
    socket.on("secureConnect", () => {
      resolve(new X509Certificate(socket!.getPeerCertificate(true).raw));
    });
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("The connection was closed")));
    return await promise;
  } finally {
    socket?.destroy();
  }
}

/** What can fail once there is a connection. */
type Lock = "TLS" | "WebSocket" | "inner lock";

interface Attempt {
  channel?: Channel;
  error?: unknown;
  failedAt?: Lock;
  /** How long the first ping took, in milliseconds. */
  roundTrip: Promise<number>;
}

/** Connects as the client always does, and says how far it got. */
async function tryToProve(options: DialOptions): Promise<Attempt> {
  const { promise: roundTrip, resolve } = Promise.withResolvers<number>();
  let saidHello = false;
  let pinged = 0;
  const trace = (frame: FrameTrace) => {
    options.trace?.(frame);
    saidHello = true;
    const what = `${frame.direction} ${frame.type}`;
    if (what === "sent ping") pinged ||= performance.now();
    if (what === "received pong") resolve(performance.now() - pinged);
  };
  try {
    const channel = await dial({ ...options, standby: true, trace });
    return { channel, roundTrip };
  } catch (error) {
    const { cause } = error as Error;
    const failedAt = !saidHello && cause instanceof HttpError
      ? "WebSocket"
      : saidHello && !(cause instanceof TlsError)
      ? "inner lock"
      : "TLS";
    return { error, failedAt, roundTrip };
  }
}

/** Whose certificate it is that Deno has found trustworthy. */
function whose(shown: X509Certificate, { caCerts = [] }: DialOptions): string {
  const trusted = caCerts.flatMap((pem) =>
    parsePem("--ca", pem, "CERTIFICATE")
  );
  // The certificate may have been renewed since; its key is the same then.
  const key = keyFingerprint(shown);
  const isOwn = trusted.some(({ der }) =>
    keyFingerprint(new X509Certificate(der)) === key
  );
  return isOwn
    ? `the server's own certificate, whose key --ca has; ${timeOf(shown)}`
    : `${
      nameOf(shown)
    }; trusted through its issuer; it belongs to the server ` +
      `or to a box in front of it; ${timeOf(shown)}`;
}

function nameOf(shown: X509Certificate): string {
  const oneLine = (name: string) => name.replaceAll("\n", ", ") || "nobody";
  return `a certificate of ${oneLine(shown.subject)}, issued by ` +
    `${oneLine(shown.issuer)}, key ${keyFingerprint(shown)}`;
}

function timeOf({ validTo }: X509Certificate): string {
  return `it expires on ${dayOf(new Date(validTo))}`;
}

function dayOf(time: Date): string {
  return time.toISOString().slice(0, 10);
}

/**
 * Opens the stream and ends it at once. A server without the service cuts the
 * session before that, and one whose backend cannot be reached cuts it then.
 */
async function tryService(channel: Channel): Promise<string> {
  const { service } = channel;
  const what = service === undefined
    ? "the default service"
    : `the service ${service}`;
  const another = service === undefined ? " (--connect names another)" : "";
  const within = async (time: number, why: string) => {
    try {
      await Promise.race([channel.closed, sleep(time)]);
    } catch (error) {
      throw new Error(`${messageOf(error)}: ${why}; its log says more`);
    }
  };
  await within(
    SETTLING_TIME,
    `the server does not have ${what}${another}, or is stopping`,
  );
  const ended = (async () => {
    await channel.closeWrite();
    const buffer = new Uint8Array(1024);
    while (await channel.read(buffer) !== null);
  })();
  ended.catch(() => {});
  await within(BACKEND_TIME, `the server cannot reach the backend of ${what}`);
  return `the server has ${what}`;
}

/** A clock within the certificate's dates is all that can be checked. */
function clockWithin({ validFrom, validTo }: X509Certificate): string {
  const now = new Date().toISOString().slice(0, 16).replace("T", " at ");
  return `it is ${now} UTC here, within the certificate's dates, ` +
    `${dayOf(new Date(validFrom))} to ${dayOf(new Date(validTo))}`;
}
