import { assertStringIncludes } from "@std/assert";
import { withAdvice } from "../cli/advice/tls_advice.ts";
import { tlsError } from "../lib/carrier/tls_errors.ts";

const BAD = "invalid peer certificate: ";
const ALERT = "received fatal alert: ";

for (
  const [role, said, advice] of [
    ["server", `${BAD}Other(CaUsedAsEndEntity)`, "make one with 'deno task c"],
    ["server", `${BAD}UnknownIssuer`, "join again, or copy cert.pem from"],
    ["server", `${BAD}Expired`, "set the clock, or renew it with"],
    ["server", `${BAD}Whatever`, "make one with 'deno task certs'"],
    ["server", `${ALERT}CertificateRequired`, "give it one with --client-cert"],
    ["server", `${ALERT}CertificateRevoked`, "give it another with --client-c"],
    ["client", `${ALERT}UnknownCA`, "copy cert.pem to it again"],
    ["client", `${ALERT}CertificateExpired`, "compare the clocks, or renew it"],
  ] as const
) {
  Deno.test(`withAdvice: ${said}`, () => {
    const cause = new Deno.errors.InvalidData(said);
    const error = tlsError(cause, role, "the peer") as Error;
    assertStringIncludes(withAdvice(error), `${error.message}; ${advice}`);
  });
}
