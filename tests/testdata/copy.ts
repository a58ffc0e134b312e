/** Copies stdin to stdout or stderr, as the programs write there. */

import { writeAll } from "../../lib/lock/transport.ts";
import {
  standardError,
  standardOutput,
} from "../../cli/terminal/standard_streams.ts";

const sink = Deno.args[0] === "stderr" ? standardError : standardOutput;
try {
  for await (const bytes of Deno.stdin.readable) await writeAll(sink, bytes);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  Deno.exit(1);
}
