/** The library in a real browser, bundled as the demo does it. */

import { assert, assertEquals } from "@std/assert";
import { listen } from "../lib/deno.ts";
import { CHROMIUM, Chromium, type Page } from "./chromium.ts";
import { MAY_RUN } from "./programs.ts";
import { lacksPermissions, lacksProgram, testUnless } from "./requirements.ts";
import { bundle } from "./web_demo.ts";

const PSK = `default:${"0f".repeat(32)}\nalice:${"a1".repeat(32)}\n`;

const missing = lacksPermissions(...MAY_RUN, "sys") ??
  lacksProgram(CHROMIUM, "chromium");

/** A test in an empty page that can import `/mod.js` and `/websocket.js`. */
function testPage(name: string, check: (page: Page) => Promise<void>): void {
  testUnless(missing, `browser: ${name}`, async () => {
    const modules: Record<string, string> = {
      "/mod.js": await bundle("lib/mod.ts"),
      "/websocket.js": await bundle("lib/platform_websocket.ts"),
    };
    const serve = (request: Request) => {
      const module = modules[new URL(request.url).pathname];
      const type = module ? "text/javascript" : "text/html";
      return new Response(module ?? "<!doctype html><title>test</title>", {
        headers: { "content-type": type },
      });
    };
    const options = { hostname: "127.0.0.1", port: 0, onListen: () => {} };
    await using server = Deno.serve(options, serve);
    await using browser = await Chromium.start();
    const page = await browser.open(`http://127.0.0.1:${server.addr.port}/`);
    await check(page);
    assertEquals(page.complaints, []);
  });
}

/** What the page's code begins with. */
const PREPARED = `
  const { acceptChannel, ChannelError, connectChannel } = await import("/mod.js");
  const psk = ${JSON.stringify(PSK)};
  const pairs = () => {
    const up = new TransformStream();
    const down = new TransformStream();
    return [
      { readable: down.readable, writable: up.writable },
      { readable: up.readable, writable: down.writable },
    ];
  };
  const megabyte = new Uint8Array(1 << 20).map((_, i) => i * i >> 8);
  const isSame = (a, b) => a.length === b.length && a.every((v, i) => v === b[i]);
`;

/** Runs code in the page. */
async function run(page: Page, code: string): Promise<unknown> {
  return await page.evaluate(`(async () => {${PREPARED}${code}})()`);
}

testPage("both roles meet in a page", async (page) => {
  const result = await run(
    page,
    `
    const [a, b] = pairs();
    const [client, server] = await Promise.all([
      connectChannel(a, { psk, identity: "alice@db" }),
      acceptChannel(b, { psk }),
    ]);
    const echoed = server.readable.pipeTo(server.writable);
    const sent = new Blob([megabyte]).stream().pipeTo(client.writable);
    const back = await new Response(client.readable).bytes();
    await Promise.all([echoed, sent, client.closed, server.closed]);
    return {
      isWhole: isSame(back, megabyte),
      isOneSession: isSame(client.handshakeHash, server.handshakeHash),
      identity: server.identity,
      service: server.service,
      bytes: [client.bytesSent, server.bytesReceived],
    };
  `,
  );
  assertEquals(result, {
    isWhole: true,
    isOneSession: true,
    identity: "alice@db",
    service: "db",
    bytes: [1 << 20, 1 << 20],
  });
});

testPage("a wrong key is refused, a cut is told", async (page) => {
  const result = await run(
    page,
    `
    const code = (promise) => promise.then(() => "none", (error) =>
      error instanceof ChannelError ? error.code : String(error));
    const [a, b] = pairs();
    const refused = await Promise.all([
      code(connectChannel(a, { psk: "alice:" + "b2".repeat(32), identity: "alice" })),
      code(acceptChannel(b, { psk })),
    ]);
    const [c, d] = pairs();
    const [client, server] = await Promise.all([
      connectChannel(c, { psk }),
      acceptChannel(d, { psk }),
    ]);
    server.abort();
    return [...refused, await code(client.read(new Uint8Array(1)))];
  `,
  );
  assertEquals(result, ["refused", "refused", "aborted"]);
});

testPage("its WebSocket reaches our listener", async (page) => {
  await using listener = listen({ port: 0, tls: false, psk: PSK });
  const serving = (async () => {
    const channel = await listener.accept();
    assertEquals(channel.identity, "alice");
    await channel.readable.pipeTo(channel.writable);
    await channel.closed;
  })();
  const isWhole = await run(
    page,
    `
    const { webSocketPair } = await import("/websocket.js");
    const socket = new WebSocket("ws://127.0.0.1:${listener.addr.port}/innerlock");
    const client = await connectChannel(webSocketPair(socket), {
      psk,
      identity: "alice",
    });
    const sent = new Blob([megabyte]).stream().pipeTo(client.writable);
    const back = await new Response(client.readable).bytes();
    await Promise.all([sent, client.closed]);
    return isSame(back, megabyte);
  `,
  );
  assert(isWhole);
  await serving;
});
