/** What the system says, in words; and what may pass, in exit codes. */

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import {
  clientFlags,
  command,
  freePort,
  MAY_RUN,
  programTests,
  run,
  serverFlags,
  spawn,
} from "./programs.ts";
import { lacksPermissions, lacksProgram, testUnless } from "./requirements.ts";

const reason = lacksPermissions(...MAY_RUN);
const test = programTests("");

/** Documentation's: no machine has it. */
const NOT_HERE = "192.0.2.1";

test("server: what may pass exits 1, what does not exits 2", async (dir) => {
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  for (
    const [host, port, code, why] of [
      ["127.0.0.1", taken.addr.port, 1, /the port is in use/],
      [NOT_HERE, 0, 1, /this machine has no such address/],
      ["no.such.invalid", 0, 1, /there is no such name|does not answer/],
    ] as const
  ) {
    const flags = [...serverFlags(dir), "--host", host, "--port", `${port}`];
    const result = await run("server", flags);
    assertEquals(result.code, code, result.stderr);
    assertMatch(result.stderr, why);
  }
});

/** Runs a command without the right to take a port below 1024. */
const UNPRIVILEGED = [
  "setpriv",
  ...["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"],
];

test(
  "server and client: a port that only root may take exits 2",
  async (dir) => {
    const near = [...clientFlags(dir, 1), "--listen", "1"];
    for (
      const words of [
        command("server", [...serverFlags(dir), "--port", "1"]),
        command("client", near),
      ]
    ) {
      const child = spawn([...UNPRIVILEGED, ...words]);
      await child.stdin.close();
      const { code, stderr } = await child.output();
      const text = new TextDecoder().decode(stderr);
      assertEquals(code, 2, text);
      assertMatch(text, /only root may use ports below 1024/);
    }
  },
  lacksProgram([...UNPRIVILEGED, "true"], "setpriv by root"),
);

test("client --listen: what may pass exits 1, what does not exits 2", async (dir) => {
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await Deno.writeTextFile(`${dir}/file`, "");
  for (
    const [place, code, why] of [
      [`${taken.addr.port}`, 1, /the port is in use/],
      [`${NOT_HERE}:1`, 1, /this machine has no such address/],
      [`unix:${dir}/missing/socket`, 2, /there is no such folder/],
      [`unix:${dir}/file`, 2, /a file of that name exists/],
      [`unix:${dir}/${"x".repeat(110)}`, 2, /the path is too long/],
    ] as const
  ) {
    const flags = [...clientFlags(dir, freePort()), "--listen", place];
    const result = await run("client", flags);
    assertEquals(result.code, code, result.stderr);
    assertMatch(result.stderr, why);
    assertMatch(result.stderr, /; choose another with --listen\n/);
  }
});

/** Runs a script with what `tunnel/` exports; what it prints. */
async function script(before: string[], text: string): Promise<string> {
  const from = (file: string) =>
    JSON.stringify(new URL(`../tunnel/${file}`, import.meta.url).href);
  const imports = `import { whyNotPlain } from ${from("system_errors.ts")};
    import { connectPlain } from ${from("plain.ts")};\n`;
  const url = `data:text/typescript,${encodeURIComponent(imports + text)}`;
  const config = `${import.meta.dirname}/../deno.json`;
  const flags = ["--config", config, "--no-prompt", "--allow-all"];
  const deno = [Deno.execPath(), "run", ...flags, url];
  const child = spawn([...before, ...deno]);
  await child.stdin.close();
  const { code, stdout, stderr } = await child.output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

const NETWORK = ["unshare", "--map-root-user", "--net"];

testUnless(
  reason ?? lacksProgram([...NETWORK, "ip", "link"], "unshare and ip"),
  "connectPlain: this machine has no port left",
  async () => {
    const prepare =
      'ip link set lo up && sysctl -qw net.ipv4.ip_local_port_range="40000 40001" && exec "$@"';
    const said = await script(
      [...NETWORK, "sh", "-c", prepare, "sh"],
      `const listener = Deno.listen({ hostname: "127.0.0.1", port: 5000 });
      const address = { host: "127.0.0.1", port: 5000 };
      try {
        while (true) await connectPlain(address, new AbortController().signal);
      } catch (error) {
        console.log(error.message);
      }
      Deno.exit();`,
    );
    assertStringIncludes(said, "no free port left");
  },
);

testUnless(
  reason ?? lacksProgram(["prlimit", "--version"], "prlimit"),
  "whyNotPlain: without descriptors, what only the other side says is believed",
  async () => {
    const said = await script(
      ["prlimit", "--nofile=60"],
      `const files = [];
      try {
        while (true) files.push(Deno.openSync("/dev/null"));
      } catch {}
      for (const code of ["ECONNREFUSED", "ECONNRESET", "EADDRINUSE", "EHOSTUNREACH"]) {
        console.log(whyNotPlain(Object.assign(new Error(), { code })));
      }`,
    );
    const [refused, reset, taken, unsure] = said.split("\n");
    assertMatch(refused!, /connection refused/);
    assertMatch(reset!, /it cut the connection/);
    assertMatch(taken!, /the port is in use/);
    // The resolver needs a descriptor, and gives any reason when there is none.
    assertMatch(unsure!, /out of file descriptors/);
  },
);
