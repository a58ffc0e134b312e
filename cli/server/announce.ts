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

/**
 * Logs how many identities there are, whether two of them are one to whoever holds
 * a key, and what the certificate says.
 */
export function announceCredentials(
  { psk, cert }: ListenerCredentials,
  log: Log,
): void {
  const keys = takePsks(psk);
  const identities = keys.size;
  const some = count(identities, "identity", "identities");
  log("keys", `the key file has ${some}`, { identities });
  const holders = Map.groupBy(
    keys.keys(),
    (identity) => keys.get(identity)!.toHex(),
  );
  const [first, second] = holders.values().find(([_, second]) => second) ?? [];
  if (second !== undefined) {
    log(
      "warning",
      `${first} and ${second} have the same key: who holds it can speak as ` +
        `either; give one of them another, with 'deno task certs --rekey ${second}'`,
    );
  }
  if (cert === undefined) return;
  const { keyFingerprint, expires, ...certificate } = describeCertificate(cert);
  const names = certificate.names.join(", ");
  const what =
    `the certificate is for ${names}; key ${keyFingerprint}, valid ` +
    `until ${expires}`;
  log("certificate", what, { names, keyFingerprint, expires });
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
  const what = ["forwarding", service ?? [], "to", to].flat().join(" ");
  const fields = { service, backend: to };
  try {
    (await connectPlain(backend, new AbortController().signal)).close();
    log("forward", `${what}, which answers`, fields);
  } catch (error) {
    const why = messageOf(error);
    log("warning", `${what}, which does not answer yet: ${why}`, fields);
  }
}
