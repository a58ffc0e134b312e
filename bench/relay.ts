/**
 * A tunnel of Deno's TLS alone, as short as it can be: what both locks are
 * measured beside.
 *
 *   relay.ts exit PORT BACKEND DIR     TLS in, plain out
 *   relay.ts entrance PORT EXIT DIR    plain in, TLS out
 *
 * With a last word, `turns`, other connections have their turn after each 64 KiB.
 */

const [role, port, to, dir, turns] = Deno.args;
const read = (name: string) => Deno.readTextFileSync(`${dir}/${name}`);
const here = { hostname: "127.0.0.1", port: Number(port) };

const listener = role === "exit"
  ? Deno.listenTls({ ...here, cert: read("cert.pem"), key: read("key.pem") })
  : Deno.listen(here);
for await (const conn of listener) carry(conn).catch(() => {});

async function carry(conn: Deno.Conn): Promise<void> {
  using near = conn;
  if (role === "entrance") (near as Deno.TcpConn).setNoDelay(true);
  const tcp = await Deno.connect({ hostname: "127.0.0.1", port: Number(to) });
  tcp.setNoDelay(true);
  using far = role === "exit" ? tcp : await Deno.startTls(tcp, {
    hostname: "localhost",
    caCerts: [read("cert.pem")],
  });
  await Promise.all([pump(near, far), pump(far, near)]);
}

async function pump(from: Deno.Conn, into: Deno.Conn): Promise<void> {
  const buffer = new Uint8Array(65_536);
  let left = buffer.length;
  for (let n; (n = await from.read(buffer)) !== null;) {
    for (let at = 0; at < n;) at += await into.write(buffer.subarray(at, n));
    if (!turns || (left -= n) > 0) continue;
    left = buffer.length;
    await new Promise((resolve) => setImmediate(resolve));
  }
  await into.closeWrite();
}
