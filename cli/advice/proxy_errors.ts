/**
 * What a forward proxy answers, written for people: one line that says what to
 * do.
 *
 * @module
 */

import { HttpError } from "../../lib/carrier/http.ts";
import { authority } from "../../lib/carrier/ip_address.ts";
import { proxySchemes } from "../../lib/carrier/proxy.ts";
import type { ProxySettings } from "../client/proxy_settings.ts";

/**
 * Why a proxy did not lead to the server.
 *
 * @param target The server's `HOST:PORT`.
 */
export function whyNotThrough(
  error: HttpError,
  { hostname, port, credentials, origin }: ProxySettings,
  target: string,
): string {
  const address = authority(hostname, port);
  const proxy = `the proxy ${address}`;
  const schemes = proxySchemes(error.headers ?? new Headers());
  const isBasic = schemes.length === 0 ||
    schemes.some((scheme) => scheme.toLowerCase() === "basic");
  switch (error.reason) {
    case "credentials-missing":
    case "credentials-refused":
      if (!isBasic) {
        return `Cannot pass ${proxy}: it takes ${schemes.join(" or ")}, but ` +
          "not Basic; ask whoever runs it for another way";
      }
      return credentials
        ? `Cannot pass ${proxy}: it rejects this password of ` +
          `${credentials.username}; check ` +
          (origin === "--proxy" ? "--proxy-password-file" : origin)
        : `Cannot pass ${proxy}: it asks for a password; give --proxy ` +
          `http://USER@${address} and --proxy-password-file FILE`;
    case "forbidden":
      return `Cannot pass ${proxy}: it does not allow ${target}; many allow ` +
        "only port 443: let the server listen there, or ask whoever runs the proxy";
    case "unreachable":
      return `Cannot reach ${target} through ${proxy}, which answered ` +
        `${error.startLine}; check --host and --port, and whether the server runs`;
    case "status":
      return `Cannot pass ${proxy}: it answered ${error.startLine}; is it a ` +
        `proxy? Check ${origin}`;
    case "closed":
      return `Cannot pass ${proxy}: it closed the connection without an ` +
        `answer; check ${origin}, or ask whoever runs it`;
    default:
      return `Cannot pass ${proxy}: it does not speak HTTP; check ${origin}`;
  }
}
