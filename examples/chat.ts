/**
 * A chat of two terminals, which is over when both have said Ctrl-D:
 * ```sh
 * deno run -NR examples/chat.ts listen --host 0.0.0.0
 * deno run -NR examples/chat.ts connect --host server.example --identity alice
 * ```
 */
import { connect, listen } from "@innerlock/innerlock/deno";
import { type Channel } from "@innerlock/innerlock";
import { visibleText } from "../cli/terminal/visible.ts";
import { connectOptions, example, listenOptions, say } from "./run.ts";

await example("chat", {
  async listen(args) {
    const listener = listen(await listenOptions(args));
    say(`listening on port ${listener.addr.port}`);
    for await (const channel of listener) return await talk(channel);
  },
  async connect(args) {
    await talk(await connect(await connectOptions(args)));
  },
});

async function talk(channel: Channel) {
  say(`connected, with the key of ${channel.identity}`);
  // What it rejects with is told by the other direction.
  Deno.stdin.readable.pipeTo(channel.writable).catch(() => {});
  const said = Deno.stdout.isTerminal()
    ? visibleText(channel.readable) // No escape sequences.
    : channel.readable;
  await said.pipeTo(Deno.stdout.writable);
  await channel.closed;
}
