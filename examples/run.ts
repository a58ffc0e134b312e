/**
 * How an example begins, with a side's name, a folder and a port, and how it
 * ends: with the client's exit codes, 1 for a network or a peer that failed, 2
 * for wrong usage, 3 for a refusal.
 */
import { ChannelError } from "@innerlock/innerlock";
import { stderr, stdout } from "../cli/output.ts";

const [name = "", certs, port = "", ...args] = Deno.args;

/** Reads a file of the folder that `deno task certs` made. */
export const read = (file: string) => Deno.readTextFile(`${certs}/${file}`);

/** Says what people should know, and goes on if nobody listens. */
export const say = (text: string) => stderr.line(text);

/** Is given what both sides say to the library, and the further arguments. */
type Side = (
  common: { port: number; psk: string },
  cert: string,
  ...args: string[]
) => Promise<void>;

export async function run(sides: Record<string, Side>): Promise<never> {
  const side = sides[name];
  let code = 0;
  if (!side || !/^\d+$/.test(port)) {
    say(`Usage: ${Object.keys(sides).join("|")} CERTS PORT ...`);
    code = 2;
  } else {
    try {
      const common = { port: Number(port), psk: await read("psk.txt") };
      await side(common, await read("cert.pem"), ...args);
    } catch (error) {
      say((error as Error).message);
      code = exitCodeOf(error);
    }
  }
  await Promise.all([stdout.flush(), stderr.flush()]);
  Deno.exit(code);
}

function exitCodeOf(error: unknown): number {
  if (error instanceof Deno.errors.NotFound) return 2;
  const code = error instanceof ChannelError && error.code;
  return code === "refused" || code === "untrusted" ? 3 : 1;
}
