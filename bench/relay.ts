/**
 * A tunnel of Deno's TLS alone, as short as it can be: what both locks are
 * measured beside.
 *
 *   relay.ts exit PORT BACKEND DIR     TLS in, plain out
 *   relay.ts entrance PORT EXIT DIR    plain in, TLS out
 */

const [role, port, to, dir] = Deno.args;
const read = (name: string) => Deno.readTextFileSync(`${dir}/${name}`);
const here = { hostname: "127.0.0.1", port: Number(port) };

const listener = role === "exit"
  ? Deno.listenTls({ ...here, cert: read("cert.pem"), key: read("key.pem") })
  : Deno.listen(here);
for await (const conn of listener) carry(conn).catch(() => {});

async function carry(conn: Deno.Conn): Promise<void> {
  if (role === "entrance") (conn as Deno.TcpConn).setNoDelay(true);
  const tcp = await Deno.connect({ hostname: "127.0.0.1", port: Number(to) });
  tcp.setNoDelay(true);
  const far = role === "exit" ? tcp : await Deno.startTls(tcp, {
    hostname: "localhost",
    caCerts: [read("cert.pem")],
  });
  try {
    await Promise.all([pump(conn, far), pump(far, conn)]);
  } finally {
    conn.close();
    far.close();
  }
}

async function pump(from: Deno.Conn, into: Deno.Conn): Promise<void> {
  const buffer = new Uint8Array(65_536);
  for (let n; (n = await from.read(buffer)) !== null;) {
    for (let at = 0; at < n;) at += await into.write(buffer.subarray(at, n));
  }
  await into.closeWrite();
}
