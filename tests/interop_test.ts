/**
 * Interoperability with an independent implementation in Python, in both roles:
 * with our programs, and with our library, message by message.
 */

import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import {
  clientFlags,
  freePort,
  MAY_RUN,
  run,
  serverFlags,
  TestServer,
  withCerts,
} from "./programs.ts";
import {
  lacksPeer,
  type Outcome,
  PythonPeer,
  transcriptOfPeer,
} from "./python_peer.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const reason = lacksPermissions(...MAY_RUN) ?? lacksPeer();

const REKEY_INTERVAL = 65_536;
/** Of each there are as many pings, and each is answered: all directions rekey. */
const [ROUNDS, PINGS] = [17, 4096];
const PARTS = Array.from(
  { length: ROUNDS },
  (_, i) => "rekey"[i % 5]!.repeat(500),
);
const TEXT = PARTS.join("");

function assertRekeyed({ result, sent, received }: Outcome): void {
  assertEquals(result, "end");
  assert(sent > REKEY_INTERVAL && received > REKEY_INTERVAL);
}

testUnless(
  reason,
  "server: a client in Python, past a rekey",
  withCerts(async (dir) => {
    await using server = await TestServer.start(serverFlags(dir));
    await using peer = PythonPeer.client(dir, server.port);
    const rounds = PARTS.flatMap((part) => [
      `>data=${part}+ping*${PINGS}`,
      `<data=${part.toUpperCase()}+pong*${PINGS}`,
    ]);
    assertRekeyed(
      await peer.run(`default >ping+open ${rounds.join(" ")} >end <end`),
    );
    await server.logged("closed");
    const log = await server.stop();
    assert(/closed: 8500 bytes in, 8500 out, \S+ s, end\n/.test(log), log);
  }),
);

testUnless(
  reason,
  "client: a server in Python, past a rekey",
  withCerts(async (dir) => {
    await using peer = await PythonPeer.server(dir);
    const rounds = PARTS.map((part) =>
      `>data=${part.toUpperCase()}+ping*${PINGS} <pong*${PINGS}`
    );
    const serving = peer.run(
      `- <open+data=${TEXT}+end ${rounds.join(" ")} >end`,
    );
    const result = await run("client", clientFlags(dir, peer.port), TEXT);
    assertEquals([result.code, result.stderr], [0, ""]);
    assertEquals(result.text, TEXT.toUpperCase());
    assertRekeyed(await serving);
  }),
);

testUnless(
  reason,
  "server: a client in Python hears that there is no such service",
  withCerts(async (dir) => {
    await using server = await TestServer.start(serverFlags(dir));
    await using peer = PythonPeer.client(dir, server.port);
    for (const steps of [">ping", ">ping+open", ">ping+open+data=x+end"]) {
      const { result } = await peer.run(`default@web ${steps} <bye=1`);
      assertEquals(result, "heard bye service", steps);
    }
  }),
);

testUnless(
  reason,
  "server: a client in Python hears that the backend cannot be reached",
  withCerts(async (dir) => {
    const flags = ["--forward", `web=127.0.0.1:${freePort()}`];
    await using server = await TestServer.start([
      ...serverFlags(dir),
      ...flags,
    ]);
    await using peer = PythonPeer.client(dir, server.port);
    const { result } = await peer.run("default@web >ping+open+data=x <bye=2");
    assertEquals(result, "heard bye backend");
  }),
);

testUnless(
  reason,
  "server: a client in Python hears that its key was revoked",
  withCerts(async (dir) => {
    await using server = await TestServer.start(serverFlags(dir));
    await using peer = PythonPeer.client(dir, server.port);
    const running = peer.run("default >ping+open+data=x <data=X <bye=4");
    await server.logged("default connected");
    await Deno.writeTextFile(`${dir}/psk.txt`, `other:${"5e".repeat(32)}\n`);
    server.signal("SIGHUP");
    assertEquals((await running).result, "heard bye revoked");
  }),
);

testUnless(
  reason,
  "client: it says why a server in Python gives it up, and fails",
  withCerts(async (dir) => {
    await using peer = await PythonPeer.server(dir);
    const sentences: [number, string][] = [
      [1, "no service"],
      [2, "lost what stands behind"],
      [3, "no room for more connections of default"],
      [4, "The key of default was revoked or replaced"],
      [5, "The server is stopping"],
      [6, "The server gave the connection up\n"],
      [7, "it had heard nothing"],
      [99, "The server gave the connection up\n"],
    ];
    for (const [code, sentence] of sentences) {
      const [{ result }, client] = await Promise.all([
        peer.run(`- <open+data=hello >data=HELLO+bye=${code}`),
        run("client", clientFlags(dir, peer.port), "hello"),
      ]);
      // What came before it is printed.
      assertEquals([result, client.text], ["said bye", "HELLO"]);
      assert(client.code > 0);
      assertMatch(client.stderr, /^client: [^\n]+\n$/);
      assertStringIncludes(client.stderr, sentence);
    }
  }),
);

testUnless(reason, "transcript.json: is what peer.py makes", async () => {
  const path = new URL("testdata/transcript.json", import.meta.url);
  assertEquals(await transcriptOfPeer(), await Deno.readTextFile(path));
});
