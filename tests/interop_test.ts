/**
 * Live interoperability with an independent implementation in Python, both ways
 * round, with more than 65 536 frames in every direction, so that all rekey.
 */

import { assert, assertEquals } from "@std/assert";
import { TextLineStream } from "@std/streams";
import {
  clientFlags,
  MAY_RUN,
  run,
  serverFlags,
  TestServer,
  withCerts,
} from "./programs.ts";
import { lacksPermissions, lacksProgram, testUnless } from "./requirements.ts";

const PYTHON = "/usr/bin/python3";
const PEER = new URL("peer.py", import.meta.url).pathname;
const REKEY_INTERVAL = 65_536;

const reason = lacksPermissions(...MAY_RUN) ??
  lacksProgram([PYTHON, "-c", "import dissononce"], "python3-dissononce");

function peer(...args: string[]): Deno.ChildProcess {
  return new Deno.Command(PYTHON, {
    args: [PEER, ...args],
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
}

function assertRekeyed(report: string): void {
  const { sent, received } = JSON.parse(report);
  assert(sent > REKEY_INTERVAL && received > REKEY_INTERVAL, report);
}

testUnless(
  reason,
  "server: a client in Python, past a rekey",
  withCerts(async (dir) => {
    await using server = await TestServer.start(serverFlags(dir));
    const files = [`${dir}/cert.pem`, `${dir}/psk.txt`];
    const { code, stdout } = await peer("client", String(server.port), ...files)
      .output();
    assertEquals(code, 0);
    assertRekeyed(new TextDecoder().decode(stdout));
    const log = await server.stop();
    assert(/closed: 8500 bytes in, 8500 out, \S+ s, end\n/.test(log), log);
  }),
);

testUnless(
  reason,
  "client: a server in Python, past a rekey",
  withCerts(async (dir) => {
    const files = ["cert.pem", "key.pem", "psk.txt"].map((f) => `${dir}/${f}`);
    await using child = peer("server", ...files);
    const lines = child.stdout.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream()).getReader();
    const { value: port } = await lines.read();
    const input = "four\n".repeat(8500 / 5);
    const result = await run("client", clientFlags(dir, Number(port)), input);
    assertEquals([result.code, result.stderr], [0, ""]);
    assertEquals(result.text === input.toUpperCase(), true);
    const { value: report } = await lines.read();
    assertRekeyed(report!);
    await lines.cancel();
  }),
);

testUnless(reason, "transcript.json: is what peer.py makes", async () => {
  const { stdout } = await peer("transcript").output();
  const path = new URL("testdata/transcript.json", import.meta.url);
  assertEquals(
    new TextDecoder().decode(stdout),
    await Deno.readTextFile(path),
  );
});
