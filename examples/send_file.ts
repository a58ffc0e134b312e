/**
 * Sends a file, and asks the receiver for the hash of what it has written:
 * ```sh
 * deno run -NRW examples/send_file.ts receive --host 0.0.0.0 copy.bin
 * deno run -NR examples/send_file.ts send --host server.example --identity alice \
 *   original.bin
 * ```
 */
import { connect, listen } from "@innerlock/innerlock/deno";
import { createHash } from "node:crypto";
import { stdout } from "../cli/terminal/output.ts";
import { connectOptions, example, listenOptions, say } from "./run.ts";

await example("send_file", {
  async receive(args, path = "copy.bin") {
    const listener = listen(await listenOptions(args));
    say(`listening on port ${listener.addr.port}`);
    for await (await using channel of listener) {
      const hash = await copy(channel.readable, Deno.createSync(path).writable);
      await channel.write(new TextEncoder().encode(hash));
      await channel.closeWrite();
      say(`${hash} received`);
      return;
    }
  },
  async send(args, path = "original.bin") {
    const options = await connectOptions(args);
    using file = await Deno.open(path);
    await using channel = await connect(options);
    const hash = await copy(file.readable, channel.writable);
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
