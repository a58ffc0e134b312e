/** A program that crashes: its plain connections are reset, not ended. */

import { assertEquals, assertRejects } from "@std/assert";
import {
  clientFlags,
  command,
  environment,
  programTests,
  serverFlags,
  spawn,
  TestEntrance,
  TestServer,
} from "./programs.ts";

/** Preloaded into a program, it makes it crash at SIGUSR2. */
const CRASHES = {
  client: "setTimeout(() => { throw new Error('crash') })",
  server: "Promise.reject(new Error('crash'))",
};

function startCrashing(
  task: "server" | "client",
  args: string[],
): Deno.ChildProcess {
  const words = command(task, args);
  const crash = `Deno.addSignalListener("SIGUSR2", () => ${CRASHES[task]})`;
  const url = `data:text/javascript,${encodeURIComponent(crash)}`;
  words.splice(words.indexOf("run") + 1, 0, "--preload", url);
  return spawn(words, environment(task));
}

const test = programTests("crash: ");

for (const task of ["client", "server"] as const) {
  test(
    `the ${task}'s plain connection is reset`,
    async (dir) => {
      using backend = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      const accepting = (async () => {
        // The first is the server's own, at its start.
        (await backend.accept()).close();
        return await backend.accept();
      })();
      accepting.catch(() => {});
      const forward = ["--forward", `127.0.0.1:${backend.addr.port}`];
      await using server = await TestServer.of(
        startCrashing("server", [
          ...["--port", "0", ...serverFlags(dir), ...forward],
        ]),
      );
      const flags = [...clientFlags(dir, server.port), "--listen", "0"];
      await using client = await TestEntrance.of(
        startCrashing("client", flags),
      );
      const { host: hostname, port } = client.address;
      using caller = await Deno.connect({ hostname, port });
      await caller.write(new Uint8Array(1));
      using far = await accepting;
      const buffer = new Uint8Array(10);
      assertEquals(await far.read(buffer), 1);
      const program = task === "client" ? client : server;
      program.signal("SIGUSR2");
      const near = task === "client" ? caller : far;
      await assertRejects(() => near.read(buffer), Deno.errors.ConnectionReset);
      await program.logged(`${task}: A defect, please report it: Error: crash`);
      assertEquals(await program.exitCode(), 1);
    },
  );
}
