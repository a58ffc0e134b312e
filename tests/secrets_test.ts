/** Secrets as people and platforms keep them: who else may read them. */

import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { UsageError } from "../cli/advice/errors.ts";
import { readPsk, readSecret } from "../cli/files.ts";
import { acceptMounts, checkSecret, whoElse } from "../cli/secrets.ts";
import { KEY } from "./duplex.ts";
import { outputOf } from "./limit.ts";
import { command, makeCerts, MAY_RUN } from "./programs.ts";
import {
  lacksPermissions,
  lacksProgram,
  testInFolder,
} from "./requirements.ts";

Deno.test("whoElse: nobody, a group or an access list, others", () => {
  const group = "its group or its access list";
  for (
    const [mode, who] of [
      [0o600, undefined],
      [0o400, undefined],
      [0o700, undefined],
      [0o440, group],
      [0o640, group],
      [0o620, group],
      [0o444, "other users"],
      [0o644, "other users"],
      [0o604, "other users"],
      [0o602, "other users"],
    ] as const
  ) {
    assertEquals(whoElse(0o100000 | mode, "linux"), who, mode.toString(8));
    // Its mode says nothing where there are none.
    assertEquals(whoElse(0o100000 | mode, "windows"), undefined);
  }
  assertEquals(whoElse(0o100666, "windows"), undefined);
  assertEquals(whoElse(null, "linux"), undefined);
});

testInFolder(
  lacksPermissions("read", "write"),
  "secrets: one that others may read is refused, and the case is named",
  async (dir) => {
    const path = `${dir}/psk.txt`;
    await Deno.writeTextFile(path, `alice:${KEY}\n`);
    for (
      const [mode, who] of [
        [0o440, "its group or its access list"],
        [0o640, "its group or its access list"],
        [0o444, "other users"],
      ] as const
    ) {
      await Deno.chmod(path, mode);
      // Whoever may write there can mend it.
      assertEquals(await acceptMounts([path, `${dir}/none`, dir]), []);
      for (const read of [readPsk, readSecret]) {
        await assertRejects(
          () => read(path),
          UsageError,
          `Cannot use ${path}: ${who} may read it; run 'chmod 600 ${path}'`,
        );
      }
    }
    for (const mode of [0o600, 0o400]) {
      await Deno.chmod(path, mode);
      assertEquals((await readPsk(path)).size, 1);
    }
  },
);

testInFolder(
  lacksPermissions("read", "write"),
  "secrets: a read-only mount is accepted with a warning, and nothing else",
  async (dir) => {
    const paths = ["mounted", "own", "denied"].map((name) => `${dir}/${name}`);
    const [mounted, own, denied] = paths as [string, string, string];
    for (const path of paths) {
      await Deno.writeTextFile(path, `alice:${KEY}\n`);
      await Deno.chmod(path, 0o440);
    }
    const errors: Record<string, string> = {
      [mounted]: "EROFS",
      [denied]: "EACCES",
    };
    const warnings = await acceptMounts(paths, (path) => {
      const code = errors[path];
      return code
        ? Promise.reject(Object.assign(new Error(), { code }))
        : Promise.resolve({ [Symbol.dispose]: () => {} });
    });
    assertEquals(warnings, [
      `${mounted}: its group or its access list may read it, and it is mounted ` +
      "read-only, so that cannot be changed here",
    ]);
    assertEquals((await readPsk(mounted)).size, 1);
    for (const path of [own, denied]) {
      await assertRejects(() => readPsk(path), UsageError, "chmod 600");
    }
    // Only on that device: another file may be there later.
    assertThrows(
      () => checkSecret(mounted, { mode: 0o440, dev: -1 }),
      UsageError,
    );
  },
);

/** A file system of its own, made read-only once the files are in it. */
const MOUNT = `set -e
mount -t tmpfs none "$1"
cp "$0"/*.pem "$0"/psk.txt "$1"
chmod "$2" "$1"/key.pem "$1"/psk.txt
mount -o remount,ro "$1"
shift 2
exec timeout 60 "$@"`;

for (const mode of ["440", "444"]) {
  testInFolder(
    lacksPermissions(...MAY_RUN) ??
      lacksProgram(["unshare", "-m", "true"], "unshare, or the right to it,"),
    `secrets: the programs take what is mounted read-only with mode 0${mode}`,
    async (dir) => {
      const certs = await makeCerts();
      const run = async (task: "server" | "client", args: string[]) => {
        const mount = ["unshare", "-m", "bash", "-c", MOUNT, certs, dir, mode];
        const [name, ...rest] = [...mount, ...command(task, args)];
        const { code, stderr } = await outputOf(name!, { args: rest });
        return { code, stderr: new TextDecoder().decode(stderr) };
      };
      const psk = `${dir}/psk.txt`;
      const who = mode === "440"
        ? "its group or its access list"
        : "other users";
      const warning = (path: string) =>
        `${path}: ${who} may read it, and it is mounted read-only`;
      try {
        // Nobody listens there.
        const client = await run("client", [
          ...["--psk", psk, "--ca", `${dir}/cert.pem`, "--port", "1", "x"],
        ]);
        assertEquals(client.code, 1, client.stderr);
        assert(client.stderr.startsWith(`client: ${warning(psk)}`));
        // The network does not let it listen: all files have been read by then.
        const server = await run("server", [
          ...["--psk", psk, "--cert", `${dir}/cert.pem`],
          ...["--key", `${dir}/key.pem`, "--host", "192.0.2.1"],
        ]);
        assertEquals(server.stderr.includes("chmod"), false, server.stderr);
        for (const path of [psk, `${dir}/key.pem`]) {
          assert(server.stderr.includes(warning(path)), server.stderr);
        }
        assertMatch(server.stderr, /192\.0\.2\.1/);
      } finally {
        await Deno.remove(certs, { recursive: true });
      }
    },
  );
}
