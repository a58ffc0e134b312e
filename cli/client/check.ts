/**
 * `client --check`: the way to the server, step by step, up to the first step
 * that fails.
 *
 * @module
 */

import { abortable } from "@std/async/abortable";
import type { X509Certificate } from "node:crypto";
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { HttpError, TlsError } from "../../lib/deno.ts";
import { authority } from "../../lib/carrier/ip_address.ts";
import { type Channel, ChannelError, type FrameTrace } from "../../lib/mod.ts";
import { connectThroughProxy } from "../../lib/carrier/proxy.ts";
import { nameOf as ownerOf } from "../../lib/lock/psk.ts";
import { certificateOf, nameOf, whose } from "./certificate.ts";
import { dial, type DialOptions, inWords } from "./dial.ts";
import { type Address, format } from "../../tunnel/address.ts";
import { connectPlain } from "../../tunnel/plain.ts";
import { dayOf } from "../keys/certificates.ts";
import { advise, Exit, exitCodeOf, messageOf } from "../advice/errors.ts";
import { stdout } from "../terminal/output.ts";

/** How long a backend may take to say or to end something, in milliseconds. */
const BACKEND_TIME = 3000;

/**
 * Goes the way to the server and prints a line for each step: `✓` and what it
 * found, `?` and what is not known, or `✗` and what to do, which ends the check.
 * No step takes longer than a handshake may.
 *
 * @param read Reads the files.
 * @param exposed What would be offered to the server's callers, if that is what
 * is to be checked.
 * @returns The exit code: 0, or that of the step that failed, or 1 if something
 * is not known.
 */
export async function check(
  read: () => Promise<DialOptions>,
  exposed?: Address,
): Promise<number> {
  let step = "files";
  let code: number = Exit.done;
  try {
    const options = await read();
    const { hostname, port, identity } = options;
    const server = authority(hostname, port);
    stdout.line(`✓ files: for ${server} as ${identity}`);
    await takeSteps(options, exposed, async (name, work) => {
      step = name;
      const found = await work();
      const isKnown = typeof found === "string";
      stdout.line(
        isKnown ? `✓ ${step}: ${found}` : `? ${step}: ${found.guess}`,
      );
      if (!isKnown) code = Exit.failed;
    });
    return code;
  } catch (error) {
    stdout.line(`✗ ${step}: ${messageOf(error)}`);
    return exitCodeOf(error);
  }
}

/** What a step has found, or what that may be if it cannot be known. */
type Found = string | { guess: string };

/** Takes a step. */
type Take = (
  name: string,
  work: () => Found | Promise<Found>,
) => Promise<void>;

/** Something took too long. */
class Late extends Error {}

/**
 * What comes of the work.
 *
 * @param advice What may be the reason if it takes too long.
 * @throws {Late} If it does.
 */
async function within<T>(
  time: number,
  work: (signal: AbortSignal) => Promise<T>,
  advice = "",
): Promise<T> {
  const signal = AbortSignal.timeout(time);
  try {
    return await abortable(work(signal), signal);
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new Late(`no answer within ${time / 1000} s${advice}`);
  }
}

/** Takes the steps, in order. */
async function takeSteps(
  options: DialOptions,
  exposed: Address | undefined,
  take: Take,
): Promise<void> {
  const { hostname, port, proxy, websocket } = options;
  const time = options.handshakeTimeout!;
  const first = proxy ?? { hostname, port };

  await take("name", async () => {
    const { hostname: name } = first;
    if (isIP(name)) return `${name} is an address`;
    try {
      const found = await within(time, () => lookup(name, { all: true }));
      return `${name} is ${found.map(({ address }) => address).join(", ")}`;
    } catch {
      throw new Error(
        `there is no name ${name}, or the name server does not answer; check ` +
          (proxy?.origin ?? "--host"),
      );
    }
  });

  let tcp: Deno.TcpConn;
  await take("TCP", async () => {
    const { hostname, port } = first;
    tcp = await within(
      time,
      (signal) => Deno.connect({ hostname, port, signal }),
      "; the address may be wrong, or a firewall may block it",
    ).catch((error) => {
      throw inWords(error, options);
    });
    return `connected to ${authority(tcp.remoteAddr.hostname, port)}`;
  });

  if (proxy) {
    await take("proxy", async () => {
      const to = { ...proxy, hostname, port };
      await within(
        time,
        (signal) => connectThroughProxy(tcp, { ...to, signal }),
        "; it may be no proxy, or still trying to reach the server; check " +
          `${proxy.origin}, --host and --port`,
      ).catch((error) => {
        throw error instanceof Late ? error : inWords(error, options);
      });
      return `it connects to ${authority(hostname, port)}`;
    });
  }

  const attempt = await tryToProve(options, exposed !== undefined);
  // Two limits do not stand one behind the other.
  const roundTrip = attempt.channel &&
    tryService(attempt.channel, options, exposed !== undefined);
  roundTrip?.catch(() => {});
  const isLate = attempt.error instanceof ChannelError &&
    attempt.error.code === "timeout";
  // Whoever has been silent for so long shows nothing in the same time again. If
  // it does in a WebSocket's case, TLS was not what it was silent in.
  const shown = isLate && websocket === undefined
    ? undefined
    : await certificateOf(tcp!, options, attempt.channel !== undefined)
      .catch(() => undefined);
  if (isLate && shown && attempt.failedAt === "TLS") {
    attempt.failedAt = "WebSocket";
  }
  const takeUnless = (name: Lock, says: string) =>
    take(name, () => {
      if (attempt.failedAt !== name) return says;
      throw name === "TLS" ? untrusted(attempt.error, shown) : attempt.error;
    });
  await takeUnless(
    "TLS",
    shown ? whose(shown, options) : "the server is trusted",
  );
  if (websocket !== undefined) await takeUnless("WebSocket", "it is open");
  await takeUnless(
    "inner lock",
    `the server has the key of ${keyName(options)}`,
  );

  const channel = attempt.channel!;
  await take(exposed ? "offer" : "service", async () => {
    await roundTrip;
    return exposed
      ? `the server takes what ${channel.identity} offers`
      : `the server has ${serviceOf(channel)}`;
  });
  await take(
    "backend",
    () => exposed ? tryPlain(exposed, options) : tryBackend(channel, options),
  );
  await take(
    "round trip",
    async () => `${(await roundTrip!).toFixed(1)} ms, through both locks`,
  );
  // A caller that the server has just given it goes on with another session.
  channel.abort(new ChannelError("stopping", "The check is over"));
  if (shown) await take("clock", () => clockWithin(shown));
}

/** What can fail once there is a connection. */
type Lock = "TLS" | "WebSocket" | "inner lock";

interface Attempt {
  channel?: Channel;
  error?: unknown;
  failedAt?: Lock;
}

/** Connects as the client always does, and says how far it got. */
async function tryToProve(
  options: DialOptions,
  offer: boolean,
): Promise<Attempt> {
  let saidHello = false;
  const trace = (frame: FrameTrace) => {
    options.trace?.(frame);
    saidHello = true;
  };
  try {
    return { channel: await dial({ ...options, standby: true, offer, trace }) };
  } catch (error) {
    const { cause } = error as Error;
    const failedAt = !saidHello && cause instanceof HttpError
      ? "WebSocket"
      : saidHello && !(cause instanceof TlsError)
      ? "inner lock"
      : "TLS";
    return { error, failedAt };
  }
}

/** The error with what the certificate says of whoever has shown it. */
function untrusted(
  error: unknown,
  shown: X509Certificate | undefined,
): unknown {
  if (!shown || !(error instanceof ChannelError)) return error;
  const { cause } = error;
  const isIssuer = cause instanceof TlsError && cause.reason === "issuer";
  const advice = isIssuer
    ? "; if that is a box on the way that may end TLS, trust its CA with --ca " +
      "FILE, or with --system-ca if this system has it"
    : "";
  return advise(error, `it showed ${nameOf(shown)}${advice}`);
}

/** The line of the key file that opens the inner lock. */
function keyName({ identity, psk }: DialOptions): string {
  return psk.has(identity) ? identity : ownerOf(identity);
}

function serviceOf({ service }: Channel): string {
  return service === undefined ? "the default service" : `service ${service}`;
}

/**
 * Waits until the server has taken the proof, and has answered once more: a
 * server that wants no such client says so in between.
 *
 * @returns How long the second answer took, in milliseconds.
 */
async function tryService(
  channel: Channel,
  { handshakeTimeout }: DialOptions,
  isOffer: boolean,
): Promise<number> {
  const answered = async () => {
    await channel.confirmed;
    const start = performance.now();
    await channel.probe();
    return performance.now() - start;
  };
  try {
    return await within(handshakeTimeout!, answered);
  } catch (error) {
    if (error instanceof ChannelError) {
      const isNameless = channel.service === undefined;
      if (error.code !== "service" || !isNameless && !isOffer) throw error;
      const advice = isOffer
        ? `start it with --listen PORT=${channel.identity}`
        : "name one with --connect";
      throw advise(error, advice);
    }
    throw new Error(
      `the server has proved its key, but says nothing more: ${
        messageOf(error)
      }; is it overloaded, or stopped?`,
    );
  }
}

/**
 * Begins the stream and ends it at once. What stands behind a service mostly
 * answers that, with an end of its own.
 */
async function tryBackend(
  channel: Channel,
  { handshakeTimeout }: DialOptions,
): Promise<Found> {
  const answered = async () => {
    await channel.closeWrite();
    const buffer = new Uint8Array(1024);
    const count = await channel.read(buffer);
    return count === null ? "it answers, with an end" : "it answers";
  };
  const time = Math.min(handshakeTimeout!, BACKEND_TIME);
  try {
    return await within(time, answered);
  } catch (error) {
    if (error instanceof ChannelError) throw error;
    return {
      guess: `${messageOf(error)}: the server may still be trying to reach ` +
        `what stands behind ${serviceOf(channel)}, or that waits for more ` +
        "than an end; the server's log says which",
    };
  }
}

/** What stands behind an offer is on this side. */
async function tryPlain(
  backend: Address,
  { handshakeTimeout }: DialOptions,
): Promise<string> {
  const conn = await within(
    handshakeTimeout!,
    (signal) => connectPlain(backend, signal),
    `; check whether ${format(backend)} is the right address`,
  );
  conn.close();
  return `${format(backend)} answers`;
}

/** A clock within the certificate's dates is all that can be checked. */
function clockWithin(shown: X509Certificate): string {
  const now = new Date().toISOString().slice(0, 16).replace("T", " at ");
  return `it is ${now} UTC here, within the certificate's dates, ` +
    `${dayOf(shown.validFromDate)} to ${dayOf(shown.validToDate)}`;
}
