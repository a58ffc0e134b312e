/**
 * How an example begins, with a side's name, a folder and a port, and how it
 * ends: with the client's exit codes, 1 for a network or a peer that failed, 2
 * for wrong usage, 3 for a refusal.
 */
import { ChannelError } from "@innerlock/innerlock";

const [name = "", certs, port = "", ...args] = Deno.args;

/** Reads a file of the folder that `deno task certs` made. */
export const read = (file: string) => Deno.readTextFile(`${certs}/${file}`);

/** Is given what both sides say to the library, and the further arguments. */
type Side = (
  common: { port: number; psk: string },
  cert: string,
  ...args: string[]
) => Promise<void>;

export async function run(sides: Record<string, Side>): Promise<void> {
  const side = sides[name];
  if (!side || !/^\d+$/.test(port)) {
    console.error(`Usage: ${Object.keys(sides).join("|")} CERTS PORT ...`);
    Deno.exit(2);
  }
  try {
    const common = { port: Number(port), psk: await read("psk.txt") };
    await side(common, await read("cert.pem"), ...args);
  } catch (error) {
    console.error((error as Error).message);
    Deno.exit(exitCodeOf(error));
  }
}

function exitCodeOf(error: unknown): number {
  if (error instanceof Deno.errors.NotFound) return 2;
  const code = error instanceof ChannelError && error.code;
  return code === "refused" || code === "untrusted" ? 3 : 1;
}
