/** Listens at a path when a line comes, and closes at the next. */

import { listenPlain } from "../../tunnel/plain.ts";

const [path = ""] = Deno.args;
const lines = Deno.stdin.readable.getReader();

async function say(text: string): Promise<void> {
  await Deno.stdout.write(new TextEncoder().encode(text));
}

await say("ready");
while (!(await lines.read()).done) {
  const listener = await listenPlain({ path }).catch(() => undefined);
  await say(listener ? "mine" : "not mine");
  await lines.read();
  await listener?.close();
  await say("closed");
}
