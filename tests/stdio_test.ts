/** What the programs write to stdout and stderr, whatever these are. */

import { assertEquals } from "@std/assert";
import { lacksPermissions, lacksProgram, testUnless } from "./requirements.ts";
import { KINDS, runWith } from "./stdio.ts";

const missing = lacksPermissions("run") ??
  lacksProgram(["python3", "--version"], "Python");

const COPY = `${import.meta.dirname}/testdata/copy.ts`;

/** What exchanges stdout and stderr for a command. */
const SWAPPED = ["sh", "-c", 'exec "$@" 3>&1 1>&2 2>&3', "sh"];

/** More than is written carefully at first. */
const LENGTH = 3_000_000;

for (const stream of ["stdout", "stderr"]) {
  const swap = stream === "stderr" ? SWAPPED : [];
  const copy = [Deno.execPath(), "run", "--no-prompt", COPY, stream];

  for (const [kind, reader] of KINDS) {
    testUnless(
      missing,
      `${stream}: a ${kind} with a ${reader} reader gets every byte once`,
      async () => {
        assertEquals(await runWith(kind, reader, LENGTH, [...swap, ...copy]), {
          ...{ code: 0, isWhole: true, isUntouched: true, stderr: "" },
          received: LENGTH,
        });
      },
    );
  }
}

for (
  const [kind, reader] of [
    // Long writes have begun when it is full for the first time.
    ["nonblocking pipe", "fast"],
    ["nonblocking terminal", "late"],
  ] as const
) {
  testUnless(
    missing,
    `stdout: a ${kind} with a ${reader} reader gets every byte once, or an error`,
    async () => {
      const { code, isWhole, stderr } = await runWith(kind, reader, LENGTH, [
        ...[Deno.execPath(), "run", "--no-prompt", COPY, "stdout"],
      ]);
      const error = "it does not wait for its reader; put | cat behind\n";
      assertEquals([code, stderr], isWhole ? [0, ""] : [1, error]);
    },
  );
}
