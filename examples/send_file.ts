/**
 * Sends a file, and asks the receiver for the hash of what it has written:
 * ```sh
 * deno run -NRW examples/send_file.ts receive certs 5001 copy.bin
 * deno run -NR examples/send_file.ts send certs 5001 original.bin
 * ```
 */
import { connect, listen } from "@innerlock/innerlock/deno";
import { createHash } from "node:crypto";
import { stdout } from "../cli/output.ts";
import { read, run, say } from "./run.ts";

await run({
  async receive(common, cert, path = "copy.bin") {
    const listener = listen({ ...common, cert, key: await read("key.pem") });
    say(`listening on port ${listener.addr.port}`);
    for await (await using channel of listener) {
      const hash = await copy(channel.readable, Deno.createSync(path).writable);
      await new Blob([hash]).stream().pipeTo(channel.writable);
      return;
    }
  },
  async send(common, cert, path = "original.bin") {
    await using channel = await connect({ ...common, caCerts: [cert] });
    const hash = await copy(Deno.openSync(path).readable, channel.writable);
    const written = await new Response(channel.readable).text();
    if (written !== hash) throw new Error(`The copy of ${path} differs`);
    stdout.line(`${hash} arrived`);
  },
});

async function copy(from: ReadableStream<Uint8Array>, to: WritableStream) {
  const [hash, writer] = [createHash("sha256"), to.getWriter()];
  for await (const chunk of from) {
    hash.update(chunk);
    await writer.write(chunk); // Where the receiver's slow disk holds us back.
  }
  await writer.close();
  return hash.digest("hex");
}
