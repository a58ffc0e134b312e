/**
 * What a forward proxy answers, in words for people: one line that says what to
 * do.
 *
 * @module
 */

import { HttpError } from "../lib/http.ts";
import { proxySchemes } from "../lib/proxy.ts";
import type { ProxySettings } from "./proxy_settings.ts";

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
  const host = hostname.includes(":") ? `[${hostname}]` : hostname;
  const proxy = `the proxy ${host}:${port}`;
  const schemes = proxySchemes(error.headers ?? new Headers());
  const isBasic = schemes.length === 0 ||
    schemes.some((scheme) => scheme.toLowerCase() === "basic");
  switch (error.reason) {
    case "credentials-missing":
    case "credentials-refused":
      if (!isBasic) {
        return `Cannot pass ${proxy}: it takes ${
          schemes.join(" or ")
        } and no ` +
          "password by Basic; ask who runs it for another way";
      }
      return credentials
        ? `Cannot pass ${proxy}: it does not take this password of ` +
          `${credentials.username}; check ` +
          (origin === "--proxy" ? "--proxy-password-file" : origin)
        : `Cannot pass ${proxy}: it wants a password; give --proxy ` +
          `http://USER@${host}:${port} and --proxy-password-file FILE`;
    case "forbidden":
      return `Cannot pass ${proxy}: it does not allow ${target}; many allow ` +
        "port 443 alone: let the server listen there, or ask who runs the proxy";
    case "unreachable":
      return `Cannot reach ${target} through ${proxy}, which answered ` +
        `${error.startLine}; check --host and --port, and that the server runs`;
    case "status":
      return `Cannot pass ${proxy}: it answered ${error.startLine}; is it a ` +
        `proxy at all? Check ${origin}`;
    case "closed":
      return `Cannot pass ${proxy}: it closed the connection without an ` +
        `answer; check ${origin}, or ask who runs it`;
    default:
      return `Cannot pass ${proxy}: it does not speak HTTP; check ${origin}`;
  }
}
