/**
 * A chat of two terminals, which is over when both have said Ctrl-D:
 * ```sh
 * deno run -NR examples/chat.ts listen certs 5001
 * deno run -NR examples/chat.ts connect certs 5001
 * ```
 */
import { ChannelError, connect, listen } from "@innerlock/innerlock";

const [command, certs, port] = Deno.args;
const read = (name: string) => Deno.readTextFile(`${certs}/${name}`);
const [cert, psk] = [await read("cert.pem"), await read("psk.txt")];
const common = { port: Number(port), psk };

async function accept() {
  const listener = listen({ ...common, cert, key: await read("key.pem") });
  console.error(`listening on port ${listener.addr.port}`);
  for await (const channel of listener) return channel;
}

try {
  const channel = command === "listen"
    ? (await accept())!
    : await connect({ ...common, caCerts: [cert] });
  console.error("connected");
  Deno.stdin.readable.pipeTo(channel.writable).catch(() => {});
  await channel.readable.pipeTo(Deno.stdout.writable);
  await channel.closed;
} catch (error) {
  // Who ends the chat is not who cuts it, and a wrong key is neither.
  if (!(error instanceof ChannelError)) throw error;
  console.error(`${error.code}: ${error.message}`);
  Deno.exit(error.code === "refused" ? 3 : 1);
}
