/**
 * A page to look at: what a person types, what the box sees that ends TLS, what
 * the server gets.
 *
 * ```sh
 * deno task demo:web [--port PORT]
 * ```
 *
 * One process serves the page on 127.0.0.1 and prints its address. The box and
 * the server are in it too; nothing else listens. The page's code comes on stdin:
 * the task bundles it from its source, `lib/` included.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { Site } from "./site.ts";

const USAGE = "deno task demo:web [--port PORT]";

const flags = parseArgs(Deno.args, {
  string: ["port"],
  default: { port: "0" },
  unknown: (arg) => fail(2, `unknown argument ${arg}; ${USAGE}`),
});
const port = /^\d{1,5}$/.test(`${flags.port}`) ? Number(flags.port) : NaN;
if (!(port <= 65_535)) fail(2, `--port takes 0 to 65535; ${USAGE}`);
if (Deno.stdin.isTerminal()) fail(2, `start it by its task: ${USAGE}`);

const script = await new Response(Deno.stdin.readable).text();
if (script === "") fail(1, "deno bundle made nothing; it says why above");

const site = new Site(script);
try {
  Deno.serve({
    hostname: "127.0.0.1",
    port,
    onListen: ({ port }) =>
      console.log(
        `open http://127.0.0.1:${port}/ in your browser; Ctrl-C ends it`,
      ),
  }, (request) => site.handle(request));
} catch (error) {
  if (!(error instanceof Deno.errors.AddrInUse)) throw error;
  fail(1, `port ${port} is in use; another --port, or none, finds a free one`);
}

function fail(code: number, message: string): never {
  console.error(`demo:web: ${message}`);
  Deno.exit(code);
}
