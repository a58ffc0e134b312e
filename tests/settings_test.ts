import { assertEquals, assertRejects } from "@std/assert";
import { UsageError } from "../cli/advice/errors.ts";
import { readSettings } from "../cli/client/settings.ts";
import { lacksPermissions, testInFolder } from "./requirements.ts";

const GOOD = { host: "server.example", port: 5001, identity: "alice@db" };

testInFolder(
  lacksPermissions("read", "write"),
  "readSettings: only what --join can have written is taken",
  async (dir) => {
    assertEquals(await readSettings(dir), {});
    const write = (text: string) =>
      Deno.writeTextFile(`${dir}/server.json`, text);
    await write(JSON.stringify(GOOD));
    assertEquals(await readSettings(dir), GOOD);
    for (
      const bad of [
        ...[{ host: 5 }, { host: "a b" }, { host: undefined }],
        ...[{ port: 0 }, { port: 65_536 }, { port: 1.5 }, { port: "5001" }],
        // What would be a string if anybody made one of it.
        ...[{ host: [GOOD.host] }, { identity: [GOOD.identity] }],
        ...[{ port: [5001] }, { identity: "a@b@c" }, { identity: 5 }, {
          identity: "",
        }],
      ]
    ) {
      await write(JSON.stringify({ ...GOOD, ...bad }));
      await assertRejects(() => readSettings(dir), UsageError, "is damaged");
    }
    for (const text of ["", "null", "{", "[]"]) {
      await write(text);
      await assertRejects(() => readSettings(dir), UsageError, "is damaged");
    }
  },
);
