import { assertEquals, assertRejects } from "@std/assert";
import { encodeBye, reasonOf } from "../lib/lock/bye.ts";
import { Type } from "../lib/lock/message.ts";
import { acceptChannel, type Channel, ChannelError } from "../lib/mod.ts";
import { assertFails, channels } from "./channels.ts";
import { PSK } from "./duplex.ts";
import { pipe, settled } from "./pipe.ts";
import { data, open, ping, RawPeer } from "./raw_peer.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const CODES = [
  "service",
  "backend",
  "limit",
  "revoked",
  "stopping",
  "aborted",
  "timeout",
] as const;

const MESSAGES = {
  service: "The server has no service db",
  backend: "The server cannot reach what stands behind db",
  limit: "The server has no room for more connections of default@db",
  revoked: "The key of default@db was revoked or replaced",
  stopping: "The server is stopping",
  aborted: "The server gave the connection up",
  timeout: "The server gave the connection up: it had heard nothing",
};

Deno.test("encodeBye: each reason has its code, any other error is aborted", () => {
  CODES.forEach((code, index) => {
    const bye = encodeBye(new ChannelError(code, "Why"));
    assertEquals([...bye], [Type.bye, index + 1]);
    assertEquals(reasonOf(bye), code);
  });
  for (const error of [new ChannelError("cut", "It"), new Error(), undefined]) {
    assertEquals([...encodeBye(error)], [Type.bye, 6]);
  }
});

Deno.test("reasonOf: an unknown code is aborted", () => {
  for (const code of [0, 8, 255]) {
    assertEquals(reasonOf(new Uint8Array([Type.bye, code])), "aborted");
  }
});

for (const code of CODES) {
  Deno.test(`Channel: the peer is told of ${code}`, async () => {
    const [client, server] = await channels(pipe(), { identity: "default@db" });
    const reason = new ChannelError(code, "This side's own words");
    server.abort(reason);
    const error = await assertRejects(() => client.closed, ChannelError);
    assertEquals(
      [error.code, error.isFromPeer, error.message],
      [code, true, MESSAGES[code]],
    );
    for (const call of callsOf(client)) await assertFails(call(), code);
    assertEquals(await server.closed.catch((error) => error), reason);
    assertEquals(reason.isFromPeer, false);
  });
}

const callsOf = (channel: Channel) => [
  () => channel.read(new Uint8Array(1)),
  () => channel.write(new Uint8Array(1)),
  () => channel.closeWrite(),
  () => channel.probe(),
];

Deno.test("Channel: what was said before a bye can still be read", async () => {
  const [client, server] = await channels(pipe());
  await server.write(new Uint8Array(100_000));
  server.abort(new ChannelError("backend", "It broke"));
  let count = 0;
  const p = new Uint8Array(30_000);
  const error = await assertRejects(
    async () => {
      while (true) count += (await client.read(p))!;
    },
    ChannelError,
    "lost what stands behind it",
  );
  assertEquals([count, error.code], [100_000, "backend"]);
  await assertFails(client.closed, "backend");
});

Deno.test("Channel: a bye that is on its way is not overtaken by another end", async () => {
  const [client, server] = await channels(pipe());
  server.abort(new ChannelError("limit", "Too many"));
  server.abort(new RangeError("again"));
  server.close();
  await assertFails(client.closed, "limit");
  await assertFails(server.closed, "limit");
});

Deno.test("Channel: a bye that nobody takes waits for a second at most", async () => {
  const [near, far] = pipe();
  const [client, server] = await channels([near, far]);
  far.hold();
  server.abort();
  await settled();
  assertEquals(far.isClosed, false);
  await assertFails(server.closed, "aborted");
  assertEquals(far.isClosed, true);
  far.release();
  client.abort();
  await assertRejects(() => client.closed, ChannelError);
});

Deno.test("Channel: a probe resolves when the peer has said something", async () => {
  const [client, server] = await channels(pipe());
  await client.probe();
  await Promise.all([server.probe(), server.probe()]);
  const probing = client.probe();
  client.abort(new RangeError("enough"));
  await assertRejects(() => probing, RangeError);
  await assertFails(server.closed, "aborted");
});

testUnless(
  lacksPermissions("net"),
  "Channel: what was said arrives, and the bye, though the peer's words are unread",
  async () => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr as Deno.NetAddr;
    const [conn, other] = await Promise.all([
      Deno.connect({ hostname: "127.0.0.1", port }),
      listener.accept(),
    ]);
    const peer = new RawPeer(other);
    const [channel] = await Promise.all([
      acceptChannel(conn, { psk: PSK }),
      peer.initiate().then(() =>
        peer.say(ping, open, ...Array(20).fill(data("more".repeat(10_000))))
      ),
    ]);
    const said = 1_000_000;
    await channel.write(new Uint8Array(said));
    channel.abort(new ChannelError("revoked", "The test revoked it"));
    // It is all on its way before the first of it is read.
    await settled();
    let count = 0;
    let last: number | undefined;
    for (let message; (message = await peer.hear());) {
      last = message[0];
      if (last === Type.data) count += message.length - 1;
    }
    assertEquals([count, last], [said, Type.bye]);
    peer.cut();
    await assertFails(channel.closed, "revoked");
  },
);
