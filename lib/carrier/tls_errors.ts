/**
 * What rustls says when TLS fails, as a reason and in words.
 *
 * @module
 */

import { ChannelError, type ChannelErrorCode } from "../lock/errors.ts";
import { canonicalAddress } from "./ip_address.ts";

/**
 * What went wrong in a TLS handshake, for whoever has advice to give.
 *
 * | reason | what happened |
 * | --- | --- |
 * | `ca` | the server's certificate calls itself a CA, which Deno does not accept |
 * | `issuer` | its issuer is not trusted |
 * | `expired`, `not-yet` | it has expired, or is not valid yet |
 * | `name` | it is for other names |
 * | `certificate` | something else is wrong with it |
 * | `not-tls`, `broken`, `protocol`, `version` | the peer does not speak TLS, or not as this side does |
 * | `client-certificate-missing`, `client-certificate-refused` | the server asks for a client certificate, or rejects it |
 * | `certificate-issuer`, `certificate-time`, `certificate-name`, `certificate-refused` | the client rejects the server's certificate |
 * | `failed`, `cut` | something else, or the connection broke |
 */
export type TlsErrorReason =
  | "ca"
  | "issuer"
  | "expired"
  | "not-yet"
  | "name"
  | "certificate"
  | "not-tls"
  | "broken"
  | "protocol"
  | "version"
  | "client-certificate-missing"
  | "client-certificate-refused"
  | "certificate-issuer"
  | "certificate-time"
  | "certificate-name"
  | "certificate-refused"
  | "failed"
  | "cut";

/** The TLS handshake of the outer lock failed. */
export class TlsError extends ChannelError {
  /** The class's name. */
  override readonly name = "TlsError";

  /** What went wrong. */
  readonly reason: TlsErrorReason;

  /**
   * Makes the error.
   *
   * @param code Why the channel failed.
   * @param reason What went wrong.
   * @param message What failed, on what: a sentence without period.
   * @param options The error beneath, as `cause`.
   */
  constructor(
    code: ChannelErrorCode,
    reason: TlsErrorReason,
    message: string,
    options?: ErrorOptions,
  ) {
    super(code, message, options);
    this.reason = reason;
  }
}

/** By reason: the text of rustls for it, and the message about a peer. */
type Failures = {
  [reason in TlsErrorReason]?: [
    text: RegExp,
    says: (peer: string, ...groups: string[]) => string,
  ];
};

/** What is wrong with the server's certificate. */
const UNTRUSTED: Failures = {
  ca: [
    /CaUsedAsEndEntity/,
    (peer) =>
      `The certificate of ${peer} calls itself a CA, which Deno does not accept`,
  ],
  issuer: [
    /UnknownIssuer|BadSignature/,
    (peer) => `The issuer of the certificate of ${peer} is not trusted`,
  ],
  expired: [
    // Where it ends before it begins, rustls says no more.
    /certificate expired: verification time (\d+).* after (\d+)|certificate: Expired/,
    (peer, now, end) =>
      now === undefined
        ? `The certificate of ${peer} has expired`
        : `The certificate of ${peer} expired on ${time(end)}, and it is ` +
          `${time(now)} by this machine's clock`,
  ],
  "not-yet": [
    /not valid yet: verification time (\d+).* before (\d+)/,
    (peer, now, start) =>
      `The certificate of ${peer} is not valid until ${time(start)}, and it ` +
      `is ${time(now)} by this machine's clock`,
  ],
  name: [
    /not valid for name "([^"]*)"(?:.*only valid for (.*))?/,
    (peer, name, names) =>
      `The certificate of ${peer} is for ${listed(names)}, not for ${name}`,
  ],
  certificate: [
    /invalid peer certificate: (.*)/,
    (peer, why) => `The certificate of ${peer} cannot be used (${why})`,
  ],
};

/** What either side may find wrong with the other's messages. */
const PROTOCOL: Failures = {
  "not-tls": [
    /InvalidContentType/,
    (peer) => `${peer} did not speak TLS; is it innerlock?`,
  ],
  broken: [
    /corrupt message|unexpected handshake message|InappropriateMessage|peer misbehaved/,
    (peer) => `${peer} broke the rules of TLS`,
  ],
  protocol: [
    /NoApplicationProtocol|any known protocol/,
    (peer) => `${peer} speaks TLS, but not innerlock`,
  ],
  version: [
    /peer is incompatible|HandshakeFailure|ProtocolVersion|InsufficientSecurity/,
    (peer) =>
      `${peer} and this side have no version or cipher of TLS in ` +
      "common; is it innerlock?",
  ],
};

/** How a server says that it rejects the client's certificate. */
const CLIENT_REFUSED: Failures = {
  "client-certificate-missing": [
    /alert: CertificateRequired/,
    (peer) => `${peer} asks for a client certificate`,
  ],
  "client-certificate-refused": [
    /alert: (\w*Certificate\w*|UnknownCA|DecryptError|AccessDenied)/,
    (peer, alert) => `${peer} rejects the client's certificate (${alert})`,
  ],
};

/** How a client says that it rejects the server's. */
const SERVER_REFUSED: Failures = {
  "certificate-issuer": [
    /alert: (UnknownCA|DecryptError)/,
    (peer, alert) => `${peer} does not trust this certificate (${alert})`,
  ],
  "certificate-time": [
    /alert: CertificateExpired/,
    (peer) => `${peer} considers this certificate out of date`,
  ],
  "certificate-name": [
    /alert: BadCertificate/,
    (peer) =>
      `${peer} rejects this certificate, most likely because it lacks ` +
      "the name that was dialled",
  ],
  "certificate-refused": [
    /alert: (\w*Certificate\w*|AccessDenied)/,
    (peer, alert) => `${peer} rejects this certificate (${alert})`,
  ],
};

/** Which of them there can be, by who the peer is. */
const FAILURES: Record<"client" | "server", [ChannelErrorCode, Failures][]> = {
  client: [["protocol", { ...SERVER_REFUSED, ...PROTOCOL }]],
  server: [
    ["untrusted", UNTRUSTED],
    ["refused", CLIENT_REFUSED],
    ["protocol", PROTOCOL],
  ],
};

/**
 * The error of a TLS handshake as a {@linkcode TlsError}.
 *
 * @param role What the peer is.
 * @param peer What it is called, such as `the server localhost:5001`.
 */
export function tlsError(
  cause: unknown,
  role: "client" | "server",
  peer: string,
): unknown {
  if (!(cause instanceof Error)) return cause;
  for (const [code, failures] of FAILURES[role]) {
    for (const [reason, [text, says]] of Object.entries(failures)) {
      const match = text.exec(cause.message);
      if (!match) continue;
      const message = capital(says(peer, ...match.slice(1)));
      return new TlsError(code, reason as TlsErrorReason, message, { cause });
    }
  }
  const name = capital(peer);
  if (cause instanceof Deno.errors.InvalidData) {
    const message = `${name} failed during the TLS handshake: ${cause.message}`;
    return new TlsError("protocol", "failed", message, { cause });
  }
  // All else is of the network: timed out, aborted, not connected any more.
  const message = `${name} cut the connection during the TLS handshake`;
  return new TlsError("cut", "cut", message, { cause });
}

/** An alert after the handshake, which is when TLS 1.3 judges clients. */
export function isAlert(error: unknown): error is Error {
  return error instanceof Error && /^received fatal alert/.test(error.message);
}

/** Seconds since 1970 as `2026-01-01 at 00:00:00 UTC`. */
function time(seconds = ""): string {
  const [day, clock = ""] = new Date(1000 * Number(seconds)).toISOString()
    .split("T");
  return `${day} at ${clock.slice(0, 8)} UTC`;
}

/** `DnsName("a.example") or IpAddress(10.0.0.1)` as people write it. */
function listed(names = ""): string {
  const plain = names.replaceAll(
    /\w+\("?([^)"]*)"?\)/g,
    (_, name: string) => canonicalAddress(name) ?? name,
  );
  return plain || "no name";
}

/** The text as the beginning of a sentence. */
export function capital(text: string): string {
  return text.replace(/^./, (letter) => letter.toUpperCase());
}
