/** How many turns of the event loop pass until a byte that has come is seen. */

const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
const { port } = listener.addr as Deno.NetAddr;
const [conn, peer] = await Promise.all([
  Deno.connect({ hostname: "127.0.0.1", port }),
  listener.accept(),
]);
let isSeen = false;
const reading = peer.read(new Uint8Array(1)).then(() => isSeen = true);
const turn = () => new Promise((resolve) => setImmediate(resolve));
await turn();
await conn.write(new Uint8Array(1));
let turns = 0;
for (; !isSeen; turns++) await turn();
console.log(turns);
await reading;
for (const resource of [conn, peer, listener]) resource.close();
