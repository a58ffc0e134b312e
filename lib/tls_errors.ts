/**
 * What rustls says when TLS fails, in words for people.
 *
 * @module
 */

import { ChannelError, type ChannelErrorCode } from "./errors.ts";

/** A text of rustls, and what it means: of whom, and what to do. */
type Failure = [RegExp, (peer: string, ...groups: string[]) => string];

/** What is wrong with the server's certificate. */
const UNTRUSTED: Failure[] = [
  [
    /CaUsedAsEndEntity/,
    (peer) =>
      `The certificate of ${peer} calls itself a CA, which Deno does not ` +
      "take; make it with 'deno task certs'",
  ],
  [
    /UnknownIssuer|BadSignature/,
    (peer) =>
      `The certificate of ${peer} is of an issuer that is not trusted; ` +
      "copy cert.pem from the server again",
  ],
  [
    /certificate expired: verification time (\d+).* after (\d+)/,
    (peer, now, end) =>
      `The certificate of ${peer} has expired at ${time(end)}, and it is ` +
      `${time(now)} by this machine's clock; set the clock, or make a new ` +
      "one with 'deno task certs' on the server",
  ],
  [
    /not valid yet: verification time (\d+).* before (\d+)/,
    (peer, now, start) =>
      `The certificate of ${peer} is not valid until ${time(start)}, and it ` +
      `is ${time(now)} by this machine's clock; set the clock, or wait`,
  ],
  [
    // Where it ends before it begins, rustls says no more.
    /Expired/,
    (peer) =>
      `The certificate of ${peer} has expired; make a new one with 'deno task ` +
      "certs' on the server",
  ],
  [
    /not valid for name "([^"]*)"(?:.*only valid for (.*))?/,
    (peer, name, names) =>
      `The certificate of ${peer} is made out to ${listed(names)}, not to ` +
      `${name}; ` +
      (names ? "use one of them as --host, or with --server-name; or " : "") +
      `make one with 'deno task certs --host ${name} --force' on the server`,
  ],
  [
    /invalid peer certificate: (.*)/,
    (peer, why) =>
      `The certificate of ${peer} cannot be used (${why}); make it with ` +
      "'deno task certs'",
  ],
];

/** What either side finds wrong with what the other says. */
const PROTOCOL: Failure[] = [
  [
    /InvalidContentType/,
    (peer) => `${capital(peer)} did not speak TLS; is it innerlock at all?`,
  ],
  [
    /corrupt message|unexpected handshake message|InappropriateMessage|peer misbehaved/,
    (peer) => `${capital(peer)} did not keep to the rules of TLS`,
  ],
  [
    /NoApplicationProtocol|any known protocol/,
    (peer) =>
      `${capital(peer)} speaks TLS but not innerlock; is it innerlock at all?`,
  ],
  [
    /peer is incompatible|HandshakeFailure|ProtocolVersion|InsufficientSecurity/,
    (peer) =>
      `${capital(peer)} and this side have no version or cipher of TLS in ` +
      "common; is it innerlock at all?",
  ],
];

/** How a server says that it does not take the client's certificate. */
const CLIENT_REFUSED: Failure[] = [
  [
    /alert: CertificateRequired/,
    (peer) =>
      `${capital(peer)} wants a certificate of the client; give it one with ` +
      "--client-cert and --client-key",
  ],
  [
    /alert: (\w*Certificate\w*|UnknownCA|DecryptError|AccessDenied)/,
    (peer, alert) =>
      `${
        capital(peer)
      } does not take the certificate of --client-cert (${alert})`,
  ],
];

/** How a client says that it does not take the server's. */
const SERVER_REFUSED: Failure[] = [
  [
    /alert: (UnknownCA|DecryptError)/,
    (peer, alert) =>
      `${capital(peer)} does not trust this certificate (${alert}); copy ` +
      "cert.pem to it again",
  ],
  [
    /alert: CertificateExpired/,
    (peer) =>
      `${capital(peer)} finds this certificate out of date; compare the ` +
      "clocks, or make a new one",
  ],
  [
    /alert: BadCertificate/,
    (peer) =>
      `${capital(peer)} does not take this certificate; most likely it has ` +
      "not the name that was dialled",
  ],
  [
    /alert: (\w*Certificate\w*|AccessDenied)/,
    (peer, alert) =>
      `${capital(peer)} does not take this certificate (${alert})`,
  ],
];

/** Which of them there can be, by who the peer is. */
const FAILURES: Record<"client" | "server", [ChannelErrorCode, Failure[]][]> = {
  client: [["protocol", [...SERVER_REFUSED, ...PROTOCOL]]],
  server: [
    ["untrusted", UNTRUSTED],
    ["refused", CLIENT_REFUSED],
    ["protocol", PROTOCOL],
  ],
};

/**
 * The error of a TLS handshake as a {@linkcode ChannelError}.
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
  const { message } = cause;
  for (const [code, failures] of FAILURES[role]) {
    for (const [pattern, says] of failures) {
      const match = pattern.exec(message);
      if (!match) continue;
      return new ChannelError(code, says(peer, ...match.slice(1)), { cause });
    }
  }
  // All else is of the network: timed out, aborted, not connected any more.
  const [code, why]: [ChannelErrorCode, string] =
    cause instanceof Deno.errors.InvalidData
      ? ["protocol", `failed in the TLS handshake: ${message}`]
      : ["cut", "cut the connection in the TLS handshake"];
  return new ChannelError(code, `${capital(peer)} ${why}`, { cause });
}

/** An alert that came after the handshake: TLS 1.3 judges clients so late. */
export function isAlert(error: unknown): error is Error {
  return error instanceof Error && /^received fatal alert/.test(error.message);
}

/** Seconds since 1970 as `2026-01-01T00:00:00Z`. */
function time(seconds = ""): string {
  return new Date(1000 * Number(seconds)).toISOString().slice(0, 19) + "Z";
}

/** `DnsName("a.example") or IpAddress(10.0.0.1)` as people write it. */
function listed(names = ""): string {
  return names.replaceAll(/\w+\("?([^)"]*)"?\)/g, "$1") || "no name";
}

/** The text as the beginning of a sentence. */
export function capital(text: string): string {
  return text.replace(/^./, (letter) => letter.toUpperCase());
}
