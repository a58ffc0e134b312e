/** The inner lock in other runtimes, over their own TLS. */

import { assertEquals, assertRejects } from "@std/assert";
import {
  clientFlags,
  MAY_RUN,
  run,
  serverFlags,
  spawn,
  TestServer,
  withCerts,
} from "./programs.ts";
import { lacksPermissions, lacksProgram, testUnless } from "./requirements.ts";

/** How each is started, from what npm has fetched before. */
const RUNTIMES: Record<string, string[]> = {
  "Node 22": ["npx", "--offline", "-y", "-p", "node@22", "node"],
  "Node 24": ["npx", "--offline", "-y", "-p", "node@24", "node"],
  "Bun": ["npx", "--offline", "-y", "-p", "bun@1", "bun"],
};

for (const [name, command] of Object.entries(RUNTIMES)) {
  const missing = lacksPermissions(...MAY_RUN) ??
    lacksProgram([...command, "--version"], name);

  testUnless(
    missing,
    `${name}: a client of our server`,
    withCerts(async (dir) => {
      await using server = await TestServer.start(serverFlags(dir));
      const { success, stdout, stderr } = await output([
        ...command,
        ...["examples/node_client.mjs", "localhost", String(server.port)],
        ...[`${dir}/cert.pem`, `${dir}/psk.txt`, "grüße"],
      ]);
      assertEquals([success, stdout, stderr], [true, "GRÜSSE\n", ""]);
      await server.logged("8 bytes in");
      await server.logged("end");
    }),
  );

  testUnless(
    missing,
    `${name}: a server for our client`,
    withCerts(async (dir) => {
      // To kill npx would leave what it has started.
      const path = await output([...command, "-p", "process.execPath"]);
      const child = spawn([
        path.stdout.trim(),
        "examples/node_server.mjs",
        ...["cert.pem", "key.pem", "psk.txt"].map((file) => `${dir}/${file}`),
      ]);
      const reader = child.stdout.getReader();
      let port = 0;
      try {
        const { value } = await reader.read();
        port = Number(new TextDecoder().decode(value));
        const { code, text } = await run("client", [
          ...clientFlags(dir, port),
          "grüße",
        ]);
        assertEquals([code, text], [0, "GRÜSSE\n"]);
      } finally {
        child.kill();
        await reader.cancel();
        await child.stdin.close();
        await child.stderr.cancel();
        await child.status;
      }
      const { ConnectionRefused } = Deno.errors;
      await assertRejects(() => Deno.connect({ port }), ConnectionRefused);
    }),
  );
}

const TSC = ["npx", "--offline", "-y", "-p", "typescript@5.9", "tsc"];

testUnless(
  lacksPermissions("run") ?? lacksProgram([...TSC, "--version"], "TypeScript"),
  "lib/mod.ts: its types need nothing of Deno's",
  async () => {
    const { success, stdout } = await output([
      ...TSC,
      ...["-p", "tests/testdata/tsconfig.json"],
    ]);
    assertEquals([success, stdout], [true, ""]);
  },
);

async function output(command: string[]) {
  const child = spawn(command);
  await child.stdin.close();
  const { success, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return {
    success,
    stdout: decoder.decode(stdout),
    stderr: decoder.decode(stderr),
  };
}
