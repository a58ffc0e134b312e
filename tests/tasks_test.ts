import { assertEquals } from "@std/assert";
import { outputOf } from "./limit.ts";
import { MAY_RUN } from "./programs.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const CONFIG = `${import.meta.dirname}/../deno.json`;

testUnless(
  lacksPermissions(...MAY_RUN),
  "tasks: paths are relative to the caller's folder",
  async () => {
    const caller = await Deno.makeTempDir({ prefix: "innerlock test " });
    const certs = async (...args: string[]) => {
      const task = ["task", "--quiet", "--config", CONFIG, "certs", ...args];
      // A task that is started by another takes over its INIT_CWD.
      const { code, stderr } = await outputOf("env", {
        args: ["-u", "INIT_CWD", Deno.execPath(), ...task],
        cwd: caller,
        env: { NO_COLOR: "1" },
      });
      assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
    };
    await certs("--out", "named");
    await certs();
    for (const folder of ["named", "certs"]) {
      await Deno.stat(`${caller}/${folder}/cert.pem`);
    }
    await Deno.remove(caller, { recursive: true });
  },
);
