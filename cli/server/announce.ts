/**
 * What a server says when it starts: what it does for clients, and with what it
 * proves itself.
 *
 * @module
 */

import type { ListenerCredentials } from "../../lib/deno.ts";
import { takePsks } from "../../lib/lock/psk.ts";
import { type Address, format } from "../../tunnel/address.ts";
import { connectPlain } from "../../tunnel/plain.ts";
import { describeCertificate } from "../keys/certificates.ts";
import { messageOf } from "../advice/errors.ts";
import type { Log } from "./log.ts";
import { count } from "../terminal/words.ts";

/** Logs how many identities there are and what the certificate says. */
export function announceCredentials(
  { psk, cert }: ListenerCredentials,
  log: Log,
): void {
  const identities = takePsks(psk).size;
  const some = count(identities, "identity", "identities");
  log("keys", `the key file has ${some}`, { identities });
  if (cert === undefined) return;
  const { keyFingerprint, expires, ...certificate } = describeCertificate(cert);
  const names = certificate.names.join(", ");
  log(
    "certificate",
    `the certificate is for ${names}; key ${keyFingerprint}, valid until ${expires}`,
    { names, keyFingerprint, expires },
  );
}

/**
 * Logs where a service's clients are carried, and whether anybody answers there.
 * It dials once.
 *
 * @param service Undefined for the default one, which has no name.
 */
export async function announceBackend(
  service: string | undefined,
  backend: Address,
  log: Log,
): Promise<void> {
  const to = format(backend);
  const what = `forwarding ${
    service === undefined ? "" : `${service} `
  }to ${to}`;
  const fields = { service, backend: to };
  try {
    (await connectPlain(backend, new AbortController().signal)).close();
    log("forward", `${what}, which answers`, fields);
  } catch (error) {
    log(
      "warning",
      `${what}, which does not answer yet: ${messageOf(error)}`,
      fields,
    );
  }
}
