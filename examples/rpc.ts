/**
 * Calls a procedure, which both sides give up when it takes three seconds:
 * ```sh
 * deno run -NR examples/rpc.ts serve certs 5001
 * deno run -NR examples/rpc.ts call certs 5001 add 1 2
 * ```
 */
import { connect, listen } from "@innerlock/innerlock/deno";
import { type Channel } from "@innerlock/innerlock";
import { setTimeout } from "node:timers/promises";
import { read, run, say } from "./run.ts";

function procedure(name: string, args: string[], signal: AbortSignal) {
  if (name === "add") return Number(args[0]) + Number(args[1]);
  if (name === "wait") return setTimeout(Number(args[0]), "done", { signal });
}

async function answer(accepted: Channel) {
  await using channel = accepted;
  const gone = new AbortController();
  channel.closed.catch((error) => gone.abort(error));
  const { name, args } = await new Response(channel.readable).json();
  const result = await procedure(name, args, gone.signal);
  await Response.json(result).body!.pipeTo(channel.writable);
}

await run({
  async serve(common, cert) {
    const listener = listen({ ...common, cert, key: await read("key.pem") });
    say(`listening on port ${listener.addr.port}`);
    for await (const channel of listener) {
      answer(channel).catch(({ message }) => say(message));
    }
  },
  async call(common, cert, name, ...args) {
    const signal = AbortSignal.timeout(3000);
    const options = { ...common, caCerts: [cert], signal };
    const { readable, writable } = await connect(options);
    await Response.json({ name, args }).body!.pipeTo(writable, { signal });
    await readable.pipeTo(Deno.stdout.writable, { signal });
  },
});
