/**
 * Calls a procedure, which both sides give up when it takes three seconds:
 * ```sh
 * deno run -NR examples/rpc.ts serve --host 0.0.0.0
 * deno run -NR examples/rpc.ts call --host server.example --identity alice add 1 2
 * ```
 */
import { connect, listen } from "@innerlock/innerlock/deno";
import { type Channel } from "@innerlock/innerlock";
import { setTimeout } from "node:timers/promises";
import { stdout } from "../cli/terminal/output.ts";
import { connectOptions, example, listenOptions, say } from "./run.ts";

type Procedure = (args: string[], signal: AbortSignal) => unknown;

const PROCEDURES = new Map<string, Procedure>([
  ["add", ([a, b]) => Number(a) + Number(b)],
  [
    "wait",
    ([ms]: string[], signal) => setTimeout(Number(ms), "done", { signal }),
  ],
]);

async function answer(accepted: Channel) {
  await using channel = accepted;
  const gone = new AbortController();
  channel.closed.catch((error) => gone.abort(error));
  try {
    const { name, args } = await hear(channel);
    const procedure = PROCEDURES.get(name);
    if (!procedure) throw new Error(`There is no procedure ${name}`);
    await tell(channel, { result: await procedure(args, gone.signal) });
  } catch (error) {
    await tell(channel, { error: (error as Error).message });
  }
  await channel.closed;
}

/** All that the other side says. */
const hear = (channel: Channel) => new Response(channel.readable).json();

/** Says all that there is to say. */
async function tell(channel: Channel, value: unknown) {
  await channel.write(new TextEncoder().encode(JSON.stringify(value)));
  await channel.closeWrite();
}

await example("rpc", {
  async serve(args) {
    const listener = listen(await listenOptions(args));
    say(`listening on port ${listener.addr.port}`);
    for await (const channel of listener) {
      answer(channel).catch(({ message }) => say(message));
    }
  },
  async call(args, name, ...words) {
    const signal = AbortSignal.timeout(3000);
    const options = { ...await connectOptions(args), signal };
    await using channel = await connect(options);
    signal.addEventListener("abort", () => channel.abort(signal.reason));
    await tell(channel, { name, args: words });
    const { result, error } = await hear(channel);
    if (error !== undefined) throw new Error(error);
    stdout.line(String(result));
  },
});
