/**
 * A chat of two terminals, which is over when both have said Ctrl-D:
 * ```sh
 * deno run -NR examples/chat.ts listen certs 5001
 * deno run -NR examples/chat.ts connect certs 5001
 * ```
 */
import { connect, listen } from "@innerlock/innerlock/deno";
import { type Channel } from "@innerlock/innerlock";
import { VisibleText } from "../cli/visible.ts";
import { read, run, say } from "./run.ts";

await run({
  async listen(common, cert) {
    const listener = listen({ ...common, cert, key: await read("key.pem") });
    say(`listening on port ${listener.addr.port}`);
    for await (const channel of listener) return await talk(channel);
  },
  async connect(common, cert) {
    await talk(await connect({ ...common, caCerts: [cert] }));
  },
});

async function talk(channel: Channel) {
  say("connected");
  // What it rejects with is told by the other direction.
  Deno.stdin.readable.pipeTo(channel.writable).catch(() => {});
  const said = Deno.stdout.isTerminal()
    ? channel.readable.pipeThrough(new VisibleText()) // No escape sequences.
    : channel.readable;
  await said.pipeTo(Deno.stdout.writable);
  await channel.closed;
}
