/**
 * What the examples share: flags, files, and the programs' exit codes.
 *
 * @module
 */

import type { ConnectOptions, ListenOptions } from "@innerlock/innerlock/deno";
import { chooseIdentity } from "../cli/client/dial.ts";
import { UsageError } from "../cli/advice/errors.ts";
import { readCertificates, readPair, readPsk } from "../cli/files.ts";
import { type Args, run } from "../cli/main.ts";
import { stderr } from "../cli/terminal/output.ts";
import { readSettings } from "../cli/client/settings.ts";

/** What a side does with its flags and words. */
type Side = (args: Args, ...words: string[]) => Promise<void>;

/** Does what the first word names. */
export async function example(
  name: string,
  sides: Record<string, Side>,
): Promise<void> {
  const names = Object.keys(sides);
  const usage = `
Usage: deno run -NRW examples/${name}.ts ${names.join("|")} [flags] [words...]

  --host HOST      where to listen (127.0.0.1), or the server (as joined, or
                   localhost)
  --port PORT      its port (as joined, or 5001)
  --identity NAME  whose key the client uses (as joined, or the only one)
  --certs FOLDER   where 'deno task certs' put its files (certs)
`;
  const flags = { default: { certs: "certs" }, takesWords: true };
  await run(name, usage, flags, async (args) => {
    const [side = "", ...words] = args.words;
    if (Object.hasOwn(sides, side)) return await sides[side]!(args, ...words);
    throw new UsageError(`The first word must be ${names.join(" or ")}`);
  });
}

/** What people should know; it goes on if nobody listens. */
export function say(text: string): void {
  stderr.line(text);
}

/** For the side that listens. */
export async function listenOptions(args: Args): Promise<ListenOptions> {
  const certs = args.text("certs")!;
  return {
    hostname: args.host("host") ?? "127.0.0.1",
    port: portOf(args) ?? 5001,
    psk: await readPsk(`${certs}/psk.txt`),
    ...await readPair(`${certs}/cert.pem`, `${certs}/key.pem`, {}),
  };
}

/** For the side that connects. */
export async function connectOptions(args: Args): Promise<ConnectOptions> {
  const certs = args.text("certs")!;
  const joined = await readSettings(certs);
  const psk = await readPsk(`${certs}/psk.txt`);
  const asked = args.text("identity") ?? joined.identity;
  return {
    hostname: args.host("host") ?? joined.host ?? "localhost",
    port: portOf(args) ?? joined.port ?? 5001,
    identity: chooseIdentity(asked, psk, `${certs}/psk.txt`),
    psk,
    caCerts: [await readCertificates(`${certs}/cert.pem`)],
  };
}

function portOf(args: Args): number | undefined {
  if (args.text("port") === undefined) return undefined;
  return args.integer("port", 0, 65_535);
}
