/** The systemd units: well-formed, tight, and enough for the programs to run. */

import { assertEquals } from "@std/assert";
import { format, parseAddress } from "../tunnel/address.ts";
import { listenPlain, type PlainListener } from "../tunnel/plain.ts";
import {
  ask,
  clientFlags,
  MAY_RUN,
  run,
  spawn,
  TestEntrance,
  TestServer,
  withCerts,
} from "./programs.ts";
import { lacksPermissions, lacksProgram, testUnless } from "./requirements.ts";

type Unit = "server" | "client";
const UNITS: Unit[] = ["server", "client"];

const mayRun = lacksPermissions(...MAY_RUN);

/** A test with a folder of certificates and keys. */
function test(
  name: string,
  fn: (dir: string) => Promise<void>,
  reason = mayRun,
): void {
  testUnless(reason, `deploy: ${name}`, withCerts(fn));
}

async function read(unit: Unit): Promise<string> {
  const file = `../deploy/innerlock-${unit}@.service`;
  const text = await Deno.readTextFile(new URL(file, import.meta.url));
  return text.replaceAll("/usr/local/bin/deno", Deno.execPath());
}

/** Has systemd look at a unit; what it says. */
async function analyze(
  dir: string,
  unit: Unit,
  ...args: string[]
): Promise<string> {
  const path = `${dir}/innerlock-${unit}@.service`;
  await Deno.writeTextFile(path, await read(unit));
  const { success, stdout, stderr } = await new Deno.Command(
    "systemd-analyze",
    { args: [...args, path], env: { SYSTEMD_COLORS: "0" } },
  ).output();
  const [said, complaints] = [stdout, stderr]
    .map((bytes) => new TextDecoder().decode(bytes));
  assertEquals([success, complaints], [true, ""], said);
  return said!;
}

const systemd = mayRun ??
  lacksProgram(["systemd-analyze", "--version"], "systemd-analyze");

test("systemd understands the units", async (dir) => {
  for (const unit of UNITS) await analyze(dir, unit, "verify");
}, systemd);

test("systemd finds little that the units could still give up", async (dir) => {
  // In tenths of its points: below is better, 100 is a unit that says nothing.
  const limit = ["--offline=true", "--threshold=15"];
  for (const unit of UNITS) await analyze(dir, unit, "security", ...limit);
}, systemd);

/**
 * Runs what a unit says before its program and then the program, as systemd
 * would but for the sandbox. `dir` is /etc/innerlock/NAME.
 */
async function runUnit(
  unit: Unit,
  dir: string,
  flags: string[],
): Promise<Deno.ChildProcess> {
  const runtime = await Deno.makeTempDir({ dir });
  const text = await read(unit);
  const value = (key: string) =>
    new RegExp(`^${key}=\\+?(.*)$`, "m").exec(text)![1]!
      .replaceAll("/etc/innerlock/%i", dir)
      .replaceAll("%t/innerlock-%i", runtime)
      .replaceAll("%%", "%");
  const { DENO_DIR: _, ...env } = Object.fromEntries(
    value("Environment").split(" ").map((pair) => pair.split("=")),
  );
  const ARGS = flags.join(" ");
  // A shell reads these lines as systemd does.
  const lines = `${value("ExecStartPre")} && exec ${value("ExecStart")}`;
  return spawn(["sh", "-c", lines], { ...env, ARGS });
}

test("the server's unit: upper case", async (dir) => {
  const flags = ["--port", "0", "--reuse-port"];
  await using server = await TestServer.of(await runUnit("server", dir, flags));
  const args = [...clientFlags(dir, server.port), "straße"];
  const { text, stderr } = await run("client", args);
  assertEquals([text, stderr], ["STRASSE\n", ""]);
});

const PLACES = {
  "TCP ports": () => "0",
  "Unix sockets": (dir: string, end: string) => `unix:${dir}/${end}`,
};

for (const [name, place] of Object.entries(PLACES)) {
  test(`both units: a tunnel between ${name}`, async (dir) => {
    const backend = await listenPlain(
      parseAddress(place(dir, "far"), "127.0.0.1")!,
    );
    const echoing = echo(backend);
    const forward = ["--port", "0", "--forward", format(backend.address)];
    await using server = await TestServer.of(
      await runUnit("server", dir, forward),
    );
    const near = place(dir, "near");
    const flags = ["--port", String(server.port), "--system-ca"];
    await using entrance = await TestEntrance.of(
      await runUnit("client", dir, [...flags, "--listen", near]),
    );
    const at = parseAddress(near) ?? entrance.address;
    assertEquals(await ask(at, "there and back"), "there and back");
    await backend.close();
    await echoing;
  });
}

/** Sends each caller back what it says. */
async function echo(listener: PlainListener): Promise<void> {
  for (let caller; (caller = await listener.accept());) {
    const buffer = new Uint8Array(1000);
    for (let n; (n = await caller.read(buffer)) !== null;) {
      await caller.write(buffer.subarray(0, n));
    }
    await caller.closeWrite();
    caller.close();
  }
}
