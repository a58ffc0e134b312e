/**
 * A client for Node and Bun: sends a text to a server of innerlock and prints
 * the reply.
 *
 * ```sh
 * node examples/node_client.mjs HOST PORT CERT PSK hello world
 * ```
 */

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { Duplex } from "node:stream";
import { connect } from "node:tls";
import { connectChannel } from "../lib/mod.ts";

const [host, port, cert, psk, ...words] = process.argv.slice(2);

// The outer lock is the runtime's own TLS, the inner one goes over any streams.
const socket = connect({
  host,
  port: Number(port),
  servername: host,
  ca: readFileSync(cert),
  ALPNProtocols: ["innerlock/1", "http/1.1"],
  // A socket that ends itself when the server does crashes Node 22's toWeb().
  allowHalfOpen: true,
});
await once(socket, "secureConnect");
socket.setNoDelay(true);
const channel = await connectChannel(Duplex.toWeb(socket), {
  psk: readFileSync(psk, "utf8"),
});
await channel.write(new TextEncoder().encode(words.join(" ") + "\n"));
await channel.closeWrite();
process.stdout.write(await new Response(channel.readable).text());
await channel.closed;
