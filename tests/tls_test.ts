import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  connect,
  type HandshakeReport,
  HttpError,
  listen,
  type Listener,
} from "../lib/deno.ts";
import { type Channel, ChannelError, type FrameTrace } from "../lib/mod.ts";
import { tlsError } from "../lib/carrier/tls_errors.ts";
import { PSK } from "./duplex.ts";
import { pairUnless } from "./pair.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const reason = lacksPermissions("net", "run");
const test = (name: string, fn: () => Promise<void>) =>
  testUnless(reason, name, fn);

const hosts = ["localhost", "127.0.0.1", "::1"];
const { cert, key } = await pairUnless(reason, hosts);

function listenHere(options: { handshakeTimeout?: number } = {}) {
  const refusals: unknown[] = [];
  const refused = Promise.withResolvers<unknown>();
  const listener = listen({
    port: 0,
    cert,
    key,
    psk: PSK,
    onHandshake: ({ error }) => {
      if (!error) return;
      refusals.push(error);
      refused.resolve(error);
    },
    ...options,
  });
  return { listener, refused: refused.promise, refusals };
}

async function echo(listener: Listener): Promise<void> {
  const serving: Promise<void>[] = [];
  for await (const channel of listener) {
    serving.push(
      channel.readable.pipeTo(channel.writable)
        .then(() => channel.closed).catch(() => {}),
    );
  }
  await Promise.all(serving);
}

function dial({ addr }: Listener, options = {}): Promise<Channel> {
  return connect({
    hostname: "localhost",
    port: addr.port,
    caCerts: [cert],
    psk: PSK,
    ...options,
  });
}

async function roundTrip(channel: Channel, text: string): Promise<string> {
  const [reply] = await Promise.all([
    new Response(channel.readable).text(),
    new Blob([text]).stream().pipeTo(channel.writable),
  ]);
  await channel.closed;
  return reply;
}

test("connect: eight at once each get their own stream", async () => {
  const { listener } = listenHere();
  const serving = echo(listener);
  await Promise.all(
    Array.from({ length: 8 }, async (_, i) => {
      const text = `${i}`.repeat(1_000_000);
      const identity = i % 2 ? "alice" : "default";
      await using channel = await dial(listener, { identity });
      assertEquals(channel.identity, identity);
      assertEquals(await roundTrip(channel, text) === text, true);
    }),
  );
  listener.close();
  await serving;
});

test("connect: by way of connectTls, with a client certificate", async () => {
  const { listener } = listenHere();
  const serving = echo(listener);
  await using channel = await dial(listener, { cert, key });
  assertEquals(await roundTrip(channel, "hello"), "hello");
  listener.close();
  await serving;
});

test("connect: neither a client certificate nor its key goes alone", async () => {
  const { listener } = listenHere();
  for (const half of [{ cert }, { key }]) {
    await assertRejects(() => dial(listener, half), TypeError, "needs its");
  }
  listener.close();
});

test("connect: a server name does not go with a client certificate", async () => {
  const { listener } = listenHere();
  const serving = echo(listener);
  const serverName = "other.example";
  await assertRejects(
    () => dial(listener, { cert, key, serverName }),
    TypeError,
    "A client certificate goes with neither a server name nor a proxy",
  );
  // The same name is no other.
  const same = { cert, key, serverName: "localhost" };
  await using channel = await dial(listener, same);
  assertEquals(await roundTrip(channel, "hello"), "hello");
  listener.close();
  await serving;
});

test("connect: serverName is what the certificate is checked for", async () => {
  const { listener } = listenHere();
  const serving = echo(listener);
  await using channel = await dial(listener, {
    hostname: "127.0.0.1",
    serverName: "localhost",
  });
  assertEquals(await roundTrip(channel, "hello"), "hello");
  const error = await assertRejects(
    () => dial(listener, { serverName: "other.example" }),
    ChannelError,
    "not for other.example",
  );
  assertEquals(error.code, "untrusted");
  listener.close();
  await serving;
});

test("connect: a wrong key is refused on both sides", async () => {
  const { listener, refused } = listenHere();
  const serving = echo(listener);
  const error = await assertRejects(
    () => dial(listener, { psk: `default:${"0e".repeat(32)}` }),
    ChannelError,
  );
  assertEquals(error.code, "refused");
  assertEquals((await refused as ChannelError).code, "refused");
  listener.close();
  await serving;
});

test("connect: a silent server meets the time limit", async () => {
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const accepted = listener.accept();
  const error = await assertRejects(
    () =>
      connect({
        hostname: "127.0.0.1",
        port: listener.addr.port,
        psk: PSK,
        handshakeTimeout: 50,
      }),
    ChannelError,
  );
  assertEquals(error.code, "timeout");
  const address = `127.0.0.1:${listener.addr.port}`;
  const expected =
    `Connected to the server ${address}, but TLS did not begin within`;
  assertStringIncludes(error.message, expected);
  (await accepted).close();
  listener.close();
});

test("connect: a server that is silent inside TLS meets it too", async () => {
  const listener = Deno.listenTls({ port: 0, cert, key });
  const serving = (async () => {
    const conn = await listener.accept();
    await conn.handshake();
    return conn;
  })();
  const connecting = connect({
    port: listener.addr.port,
    caCerts: [cert],
    psk: PSK,
    handshakeTimeout: 200,
  });
  const error = await assertRejects(() => connecting, ChannelError);
  assertEquals(error.code, "timeout");
  assertStringIncludes(
    error.message,
    "but innerlock did not answer within 0.2 s",
  );
  (await serving).close();
  listener.close();
});

test("connect: a server of another protocol inside TLS", async () => {
  const listener = Deno.listenTls({
    port: 0,
    cert,
    key,
    alpnProtocols: ["h2"],
  });
  const serving = (async () => {
    const conn = await listener.accept();
    await conn.handshake().catch(() => {});
    conn.close();
  })();
  const port = listener.addr.port;
  const connecting = connect({ port, caCerts: [cert], psk: PSK });
  const error = await assertRejects(() => connecting, ChannelError);
  assertEquals(error.code, "protocol");
  assertStringIncludes(error.message, "speaks TLS, but not innerlock");
  await serving;
  listener.close();
});

Deno.test("tlsError: what rustls says, in words", () => {
  const { InvalidData, TimedOut, ConnectionReset } = Deno.errors;
  const bad = "invalid peer certificate: ";
  const times = "verification time 1795559426 (UNIX), but certificate is not";
  for (
    const [cause, role, code, words] of [
      [
        new InvalidData(
          `${bad}certificate not valid for name "x"; certificate is only ` +
            'valid for DnsName("a.example") or IpAddress(10.0.0.1)',
        ),
        "server",
        "untrusted",
        "The certificate of the peer is for a.example or 10.0.0.1, not for x",
      ],
      [
        new InvalidData(
          `${bad}certificate not valid for name "x"; certificate is not ` +
            "valid for any names (according to its subjectAltName extension)",
        ),
        "server",
        "untrusted",
        "is for no name, not for x",
      ],
      [
        new InvalidData(
          `${bad}certificate expired: ${times} valid after 1609459200 (1 ` +
            "seconds ago)",
        ),
        "server",
        "untrusted",
        "expired on 2021-01-01 at 00:00:00 UTC, and it is 2026-11-24 at 22:30:26 UTC by",
      ],
      [
        new InvalidData(
          `${bad}certificate not valid yet: ${times} valid before 2208988800 ` +
            "(1 seconds in future)",
        ),
        "server",
        "untrusted",
        "is not valid until 2040-01-01 at 00:00:00 UTC, and it is 2026-11-24 at 22:30",
      ],
      [
        new InvalidData(`${bad}Other(OtherError(CaUsedAsEndEntity))`),
        "server",
        "untrusted",
        "calls itself a CA, which Deno does not accept",
      ],
      [
        new InvalidData(`${bad}Expired`),
        "server",
        "untrusted",
        "The certificate of the peer has expired",
      ],
      [
        new InvalidData(`${bad}UnknownIssuer`),
        "server",
        "untrusted",
        "The issuer of the certificate of the peer is not trusted",
      ],
      [new InvalidData(`${bad}Whatever`), "server", "untrusted", "(Whatever)"],
      [
        new InvalidData("received corrupt message of type InvalidContentType"),
        "client",
        "protocol",
        "The peer did not speak TLS",
      ],
      [
        new InvalidData("received fatal alert: HandshakeFailure"),
        "server",
        "protocol",
        "The peer and this side have no version or cipher",
      ],
      [
        new InvalidData("received unexpected handshake message: got Finished"),
        "server",
        "protocol",
        "broke the rules of TLS",
      ],
      [
        new InvalidData("received fatal alert: CertificateRequired"),
        "server",
        "refused",
        "asks for a client certificate",
      ],
      [
        new InvalidData("received fatal alert: CertificateRevoked"),
        "server",
        "refused",
        "rejects the client's certificate (CertificateRevoked)",
      ],
      [
        new InvalidData("received fatal alert: UnknownCA"),
        "client",
        "protocol",
        "The peer does not trust this certificate (UnknownCA)",
      ],
      [
        new InvalidData("received fatal alert: BadCertificate"),
        "client",
        "protocol",
        "lacks the name that was dialled",
      ],
      [
        new InvalidData("received fatal alert: CertificateExpired"),
        "client",
        "protocol",
        "The peer considers this certificate out of date",
      ],
      [
        new InvalidData("received fatal alert: UnsupportedCertificate"),
        "client",
        "protocol",
        "rejects this certificate (UnsupportedCertificate)",
      ],
      [new InvalidData("no idea"), "client", "protocol", "handshake: no idea"],
      [new TimedOut("x"), "server", "cut", "cut the connection during the TLS"],
      [
        new ConnectionReset("x"),
        "client",
        "cut",
        "cut the connection during the",
      ],
    ] as const
  ) {
    const error = tlsError(cause, role, "the peer") as ChannelError;
    assertEquals(error.code, code, error.message);
    assertStringIncludes(error.message, words);
  }
});

Deno.test("tlsError: what is no error is passed on", () => {
  assertEquals(tlsError("given up", "server", "the peer"), "given up");
});

test("Listener: a client that is silent inside TLS is dropped", async () => {
  const { listener, refused } = listenHere({ handshakeTimeout: 50 });
  const serving = echo(listener);
  const conn = await Deno.connectTls({
    hostname: "localhost",
    port: listener.addr.port,
    caCerts: [cert],
  });
  await conn.handshake();
  const { code, message } = await refused as ChannelError;
  assertEquals(code, "timeout");
  assertStringIncludes(message, "did not finish the handshake within 0.05 s");
  conn.close();
  listener.close();
  await serving;
});

test("Listener: garbage is refused and does not hold others up", async () => {
  const { listener, refused } = listenHere();
  const serving = echo(listener);
  const conn = await Deno.connect({
    hostname: "127.0.0.1",
    port: listener.addr.port,
  });
  await conn.write(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
  assertEquals((await refused as ChannelError).code, "protocol");
  conn.close();
  await using channel = await dial(listener);
  assertEquals(await roundTrip(channel, "hello"), "hello");
  listener.close();
  await serving;
});

test("Listener: leaving the loop closes it; channels live on", async () => {
  const { listener } = listenHere();
  const connecting = dial(listener);
  let server: Channel | undefined;
  for await (const channel of listener) {
    server = channel;
    break;
  }
  const client = await connecting;
  const echoed = server!.readable.pipeTo(server!.writable);
  assertEquals(await roundTrip(client, "hello"), "hello");
  await echoed;
  await server!.closed;
  await assertRejects(() => dial(listener), Deno.errors.ConnectionRefused);
});

test("connect: a server that gives up mid-stream says so", async () => {
  const { listener } = listenHere();
  const serving = (async () => {
    for await (const channel of listener) {
      const writer = channel.writable.getWriter();
      await writer.write(new TextEncoder().encode("partial"));
      await channel.readable.getReader().read();
      channel.abort();
    }
  })();
  await using channel = await dial(listener);
  const reader = channel.readable.getReader();
  const { value } = await reader.read();
  assertEquals(new TextDecoder().decode(value), "partial");
  await channel.writable.getWriter().write(new Uint8Array(1));
  const error = await assertRejects(() => reader.read(), ChannelError);
  assertEquals([error.code, error.isFromPeer], ["aborted", true]);
  listener.close();
  await serving;
});

test("Listener: leaving the loop aborts the channels that nobody took", async () => {
  const { listener } = listenHere();
  const clients = await Promise.all([1, 2, 3].map(async () => {
    const accepted = Promise.withResolvers<void>();
    const trace = ({ type }: FrameTrace) => {
      if (type === "pong") accepted.resolve();
    };
    const client = await dial(listener, { trace });
    await accepted.promise;
    return client;
  }));
  for await (const channel of listener) {
    channel.abort();
    break;
  }
  for (const client of clients) {
    await assertRejects(() => client.closed, ChannelError);
  }
});

test("connect: given up before TCP is connected it leaves nothing open", async () => {
  const hostname = "127.0.0.1";
  using full = Deno.listen({ port: 0, hostname, tcpBacklog: 1 });
  const { port } = full.addr;
  // With two in its queue, a third gets no answer.
  using _one = await Deno.connect({ port, hostname });
  using _two = await Deno.connect({ port, hostname });
  await assertRejects(
    () =>
      connect({
        hostname,
        port,
        caCerts: [cert],
        psk: PSK,
        handshakeTimeout: 50,
      }),
    ChannelError,
    `No answer from the server ${hostname}:${port} within 0.05 s`,
  );
});

// What is left open the runtime finds.

test("connect: told to stop, it closes the connection", async () => {
  const address = { port: 0, hostname: "127.0.0.1" };
  for (const websocket of [false, true]) {
    // One is silent in TLS, the other inside it.
    using listener = websocket
      ? Deno.listenTls({ ...address, cert, key })
      : Deno.listen(address);
    const { port } = listener.addr;
    const controller = new AbortController();
    const { signal } = controller;
    const options = { port, caCerts: [cert], psk: PSK, websocket, signal };
    const connecting = assertRejects(() => connect(options), RangeError);
    using conn = await listener.accept();
    await conn.read(new Uint8Array(4096));
    controller.abort(new RangeError("changed my mind"));
    await connecting;
  }
});

test("connect: a WebSocket that is refused is closed", async () => {
  const address = { port: 0, hostname: "127.0.0.1" };
  using listener = Deno.listenTls({ ...address, cert, key });
  const { port } = listener.addr;
  const options = { port, caCerts: [cert], psk: PSK, websocket: true };
  const connecting = assertRejects(() => connect(options), HttpError);
  using conn = await listener.accept();
  await conn.read(new Uint8Array(4096));
  const answer = "HTTP/1.1 403 Forbidden\r\n\r\n";
  await conn.write(new TextEncoder().encode(answer));
  await connecting;
});

test("connect: an alert after the handshake is told in words", async () => {
  // TLS 1.3 judges a client's certificate when the client has finished.
  const { listener } = listenHere();
  const { startTls } = Deno;
  try {
    Deno.startTls = (async (...args: Parameters<typeof startTls>) => {
      const conn = await startTls(...args);
      conn.read = () =>
        Promise.reject(
          new Deno.errors.InvalidData(
            "received fatal alert: CertificateRequired",
          ),
        );
      return conn;
    }) as typeof startTls;
    const error = await assertRejects(() => dial(listener), ChannelError);
    assertEquals(error.code, "refused");
    const { port } = listener.addr;
    assertStringIncludes(
      error.message,
      `The server localhost:${port} (127.0.0.1) asks for a client certificate`,
    );
  } finally {
    Deno.startTls = startTls;
    listener.close();
  }
});

test("connect: a server that says nothing keeps one connection, not one for each dial", async () => {
  const hostname = "127.0.0.1";
  const silent = Deno.listen({ port: 0, hostname });
  const { port } = silent.addr;
  const accepted: Deno.Conn[] = [];
  const accepting = (async () => {
    for await (const conn of silent) accepted.push(conn);
  })();
  const dialSilent = (handshakeTimeout: number) =>
    connect({ hostname, port, caCerts: [cert], psk: PSK, handshakeTimeout });
  for (let dials = 0; dials < 5; dials++) {
    const error = await assertRejects(() => dialSilent(50), ChannelError);
    assertEquals(error.code, "timeout");
    assertStringIncludes(error.message, "but TLS did not begin within");
  }
  silent.close();
  await accepting;
  // All but the first are ended by the client, whatever it still waits for.
  const [first, ...others] = accepted;
  assertEquals(others.length, 4);
  for (const conn of others) {
    const buffer = new Uint8Array(1000);
    while (await conn.read(buffer) !== null);
    conn.close();
  }
  first!.close();
  // It is asked for a sign, gives it, and is dialled; the next time at once.
  let refusals = 0;
  const onHandshake = ({ error }: HandshakeReport) => {
    if (error) refusals++;
  };
  using listener = listen({ port, cert, key, psk: PSK, onHandshake });
  const serving = echo(listener);
  for (const text of ["back", "again"]) {
    const channel = await dialSilent(10_000);
    assertEquals(await roundTrip(channel, text), text);
  }
  assertEquals(refusals, 1);
  listener.close();
  await serving;
});

test("connect: a server that is not trusted has stalled nobody, and is asked for no sign", async () => {
  const { listener, refusals } = listenHere();
  const { port } = listener.addr;
  for (let dials = 0; dials < 3; dials++) {
    const error = await assertRejects(
      () => connect({ port, caCerts: [], psk: PSK }),
      ChannelError,
    );
    assertEquals(error.code, "untrusted");
  }
  await listener.shutdown();
  assertEquals(refusals.length, 3);
});

test("connect: a box that ignores alerts, and has stalled once, lets in later", async () => {
  const hostname = "127.0.0.1";
  const { listener } = listenHere();
  const serving = echo(listener);
  const box = Deno.listen({ port: 0, hostname });
  const { port } = box.addr;
  const { promise: over, resolve: leave } = Promise.withResolvers<void>();
  /** Stalls, or passes a connection on that begins with a handshake's record. */
  const carry = async (near: Deno.Conn, isStalled: boolean) => {
    const first = new Uint8Array(4096);
    const count = await near.read(first) ?? 0;
    if (isStalled) return await over.then(() => near.close());
    if (first[0] !== 22) {
      while (await near.read(first).catch(() => null) !== null);
      return near.close();
    }
    const far = await Deno.connect({ hostname, port: listener.addr.port });
    await far.write(first.subarray(0, count));
    await Promise.all([
      near.readable.pipeTo(far.writable),
      far.readable.pipeTo(near.writable),
    ]).catch(() => {});
  };
  const carrying: Promise<unknown>[] = [];
  const accepting = (async () => {
    for (let count = 0;; count++) {
      const near = await box.accept().catch(() => undefined);
      if (near === undefined) return;
      carrying.push(carry(near, count === 0));
    }
  })();
  const options = { hostname, port, caCerts: [cert], psk: PSK };
  let dials = 0;
  let channel: Channel | undefined;
  while (channel === undefined && dials++ < 20) {
    // Long enough for a handshake, even on a machine that is busy.
    channel = await connect({ ...options, handshakeTimeout: 500 })
      .catch(() => undefined);
  }
  assertEquals(await roundTrip(channel!, "in"), "in");
  box.close();
  await accepting;
  listener.close();
  await serving;
  leave();
  await Promise.all(carrying);
});

test("connect: at port 443, a WebSocket's Host has no port, as a browser's", async () => {
  const hostname = "127.0.0.1";
  for (
    const [port, host] of [[443, "localhost"], [444, "localhost:444"]] as const
  ) {
    using box = Deno.listen({ port: 0, hostname });
    using server = Deno.listenTls({ port: 0, hostname, cert, key });
    // The proxy leads to the server, whatever it is asked for.
    const carrying = (async () => {
      const near = await box.accept();
      await near.read(new Uint8Array(1000));
      await near.write(new TextEncoder().encode("HTTP/1.1 200 OK\r\n\r\n"));
      const far = await Deno.connect({ hostname, port: server.addr.port });
      await Promise.all([
        near.readable.pipeTo(far.writable),
        far.readable.pipeTo(near.writable),
      ]).catch(() => {});
    })();
    const asked = (async () => {
      const conn = await server.accept();
      const buffer = new Uint8Array(1000);
      const count = await conn.read(buffer);
      conn.close();
      return new TextDecoder().decode(buffer.subarray(0, count!));
    })();
    const connecting = connect({
      port,
      proxy: { hostname, port: box.addr.port },
      caCerts: [cert],
      psk: PSK,
      websocket: true,
    });
    await assertRejects(() => connecting, ChannelError);
    assertStringIncludes(await asked, `\r\nHost: ${host}\r\n`);
    await carrying;
  }
});
