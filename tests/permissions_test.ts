import { assertEquals, assertThrows } from "@std/assert";
import { giveUp, keepOnly } from "../cli/permissions.ts";
import { outputOfSync } from "./limit.ts";
import { lacksPermissions } from "./requirements.ts";

const { NotCapable } = Deno.errors;

/** A test that has the rights that a task grants. */
function test(name: string, fn: () => void): void {
  const reason = lacksPermissions("net", "read", "run", "write");
  Deno.test({
    name: name + (reason ? ` (ignored: ${reason})` : ""),
    ignore: reason !== undefined,
    permissions: {
      net: true,
      read: ["/"],
      write: ["/"],
      run: ["ln", "timeout"],
    },
    fn,
  });
}

test("keepOnly: reads the file that is named, no other, and links", () => {
  const dir = Deno.makeTempDirSync({ prefix: "innerlock-test-" });
  const [named, link, other] = [`${dir}/named`, `${dir}/link`, `${dir}/other`];
  Deno.writeTextFileSync(named, "text");
  Deno.writeTextFileSync(other, "text");
  // Deno itself makes no link without the right to read and write everything.
  outputOfSync("ln", "-s", other, link);
  keepOnly({ read: [named, link], write: [dir] });
  assertEquals(Deno.readTextFileSync(named), "text");
  assertEquals(Deno.readTextFileSync(link), "text");
  assertThrows(() => Deno.readTextFileSync(other), NotCapable);
  assertThrows(() => Deno.openSync("/dev/null"), NotCapable);
  assertThrows(() => Deno.writeTextFileSync(`${dir}.more`, ""), NotCapable);
  Deno.removeSync(dir, { recursive: true });
});

test("keepOnly: without a path nothing is left", () => {
  const dir = Deno.makeTempDirSync({ prefix: "innerlock-test-" });
  Deno.removeSync(dir);
  keepOnly({ read: [], write: [] });
  assertThrows(() => Deno.mkdirSync(dir), NotCapable);
});

test("giveUp: what is open lives on, nothing else is opened", () => {
  const listener = Deno.listen({ port: 0 });
  giveUp("net");
  assertThrows(() => Deno.listen({ port: 0 }), NotCapable);
  listener.close();
});
