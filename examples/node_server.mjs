/**
 * A server for Node and Bun: sends each client's text back in upper case.
 * Prints its port.
 *
 * ```sh
 * node examples/node_server.mjs CERT KEY PSK
 * ```
 */

import { readFileSync } from "node:fs";
import { Duplex } from "node:stream";
import { createServer } from "node:tls";
import { acceptChannel } from "../lib/mod.ts";

const [cert, key, psk] = process.argv.slice(2)
  .map((path) => readFileSync(path, "utf8"));

// Tells a client that no box in between has ended TLS.
const ALPNProtocols = ["innerlock/1", "http/1.1"];

// A socket that ends itself when the client does crashes Node 22's toWeb().
const allowHalfOpen = true;

const options = { cert, key, ALPNProtocols, allowHalfOpen };
const server = createServer(options, async (socket) => {
  socket.setNoDelay(true);
  try {
    const channel = await acceptChannel(Duplex.toWeb(socket), { psk });
    const text = await new Response(channel.readable).text();
    await channel.write(new TextEncoder().encode(text.toUpperCase()));
    await channel.closeWrite();
    await channel.closed;
  } catch (error) {
    console.error(error.message);
  }
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
