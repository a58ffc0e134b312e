/** What a turn of the event loop is to the programs. */

import { assert } from "@std/assert";
import { environment, spawn } from "./programs.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const PROBE = new URL("testdata/turns.ts", import.meta.url).href;

/** How many turns pass until a program sees what has come. */
async function turnsUntilSeen(env: Record<string, string>): Promise<number> {
  const rights = ["--no-prompt", "--allow-net=127.0.0.1"];
  const child = spawn([Deno.execPath(), "run", ...rights, PROBE], env);
  await child.stdin.close();
  const { stdout } = await child.output();
  return Number(new TextDecoder().decode(stdout));
}

for (const task of ["server", "client"] as const) {
  testUnless(
    lacksPermissions("run", "read"),
    `${task} task: each turn of the event loop sees what has come`,
    async () => {
      const turns = await turnsUntilSeen(environment(task));
      // By default it is 60: Deno looks after each 61st task of its own.
      assert(turns >= 1 && turns <= 2, `${turns}`);
    },
  );
}
