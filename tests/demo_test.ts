import { assertEquals } from "@std/assert";
import { MAY_RUN } from "./programs.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

testUnless(
  lacksPermissions(...MAY_RUN),
  "demo: without openssl it says what to install",
  async () => {
    const nowhere = await Deno.makeTempDir({ prefix: "innerlock-test-" });
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["task", "--quiet", "demo"],
      env: { PATH: nowhere, NO_COLOR: "1" },
    }).output();
    assertEquals([code, new TextDecoder().decode(stderr)], [
      1,
      "demo: gen_certs: Cannot find openssl: install it " +
      "(Debian: apt install openssl)\n",
    ]);
    await Deno.remove(nowhere);
  },
);
