import { assertEquals, assertRejects } from "@std/assert";
import { ChannelError } from "../lib/mod.ts";
import { replay, sniff } from "../lib/carrier/sniff.ts";
import { WebSocketTransport } from "../lib/carrier/websocket_frames.ts";
import { type Bytes, readAll, Scripted } from "./scripted.ts";

const bytesOf = (text: string) => new TextEncoder().encode(text) as Bytes;

Deno.test("sniff tells frames from HTTP by the first byte, and puts it back", async () => {
  for (
    const [said, carrier] of [["\0\x13inner", "frames"], ["GET /", "http"]]
  ) {
    for (const size of [1, 3, 100]) {
      const peer = new Scripted(bytesOf(said!));
      const sniffed = await sniff(peer);
      assertEquals(sniffed.carrier, carrier);
      assertEquals(peer.left.length, said!.length - 1);
      assertEquals(await readAll(sniffed.transport, size), bytesOf(said!));
    }
  }
});

Deno.test("sniff refuses every other byte", async () => {
  for (let byte = 0; byte < 256; byte++) {
    if ([0x00, 0x47, 0x48, 0x4f].includes(byte)) continue;
    const peer = new Scripted(new Uint8Array([byte, 0x47]));
    const error = await assertRejects(
      () => sniff(peer),
      ChannelError,
      byte === 0x16 ? "speaks TLS" : byte.toString(16).padStart(2, "0"),
    );
    assertEquals(error.code, "protocol");
  }
});

Deno.test("sniff tells of a client that said nothing", async () => {
  const peer = new Scripted(new Uint8Array(0));
  const error = await assertRejects(() => sniff(peer), ChannelError);
  assertEquals(error.code, "cut");
});

Deno.test("replay gives its bytes first, and else is the transport", async () => {
  const peer = new Scripted(bytesOf("def"));
  const transport = replay(bytesOf("abc"), peer);
  const p = new Uint8Array(2);
  assertEquals([await transport.read(p), ...p], [2, 97, 98]);
  assertEquals(await readAll(transport), bytesOf("cdef"));
  await transport.write(bytesOf("x"));
  await transport.closeWrite();
  transport.close();
  assertEquals(
    [peer.taken, peer.isEnded, peer.isClosed],
    [[bytesOf("x")], true, true],
  );
  assertEquals(replay(new Uint8Array(0), peer), peer);
});

Deno.test("what lies on a transport has its addresses, or has none either", () => {
  const [remoteAddr, localAddr] = [1, 2].map((port) => ({
    transport: "tcp",
    hostname: "127.0.0.1",
    port,
  }));
  const plain = new Scripted(new Uint8Array(0));
  const addressed = Object.assign(new Scripted(new Uint8Array(0)), {
    remoteAddr,
    localAddr,
  });
  for (
    const over of [
      (peer: Scripted) => replay(new Uint8Array(1), peer),
      (peer: Scripted) => new WebSocketTransport(peer, "server"),
    ]
  ) {
    const { remoteAddr: remote, localAddr: local } = over(addressed);
    assertEquals([remote, local], [remoteAddr, localAddr]);
    assertEquals(over(plain).remoteAddr, undefined);
    assertEquals(over(plain).localAddr, undefined);
  }
});
