/** What a test needs of its surroundings: where it is missing, the test is
 * ignored and its name says why; under CI it runs, and fails. */

import { outputOfSync } from "./limit.ts";

const granted = (name: Deno.PermissionName, variable?: string) =>
  Deno.permissions.querySync(
    { name, ...(variable && { variable }) } as Deno.PermissionDescriptor,
  ).state === "granted";

/** Whether all that a test needs must be there. */
export const inCi = granted("env", "CI") && Deno.env.has("CI");

/** Why a test cannot have these permissions; undefined if it has them. */
export function lacksPermissions(
  ...names: Deno.PermissionName[]
): string | undefined {
  const missing = names.filter((name) => !granted(name));
  return missing.length > 0
    ? `needs ${missing.map((name) => `--allow-${name}`).join(" ")}`
    : undefined;
}

/** Why a test cannot read these variables; undefined if it can. */
export function lacksVariables(...names: string[]): string | undefined {
  return names.every((name) => granted("env", name))
    ? undefined
    : `needs --allow-env=${names.join()}`;
}

/** Why a program that CI must have is not there: it must exit with 0. */
export function lacksProgram(command: string[], what: string) {
  try {
    if (outputOfSync(...command).success) return undefined;
  } catch {
    // There is no such command.
  }
  return inCi ? undefined : `${what} is not installed`;
}

/** `Deno.test`, ignored if there is a reason. */
export function testUnless(
  reason: string | undefined,
  name: string,
  fn: () => Promise<void>,
): void {
  const suffix = reason ? ` (ignored: ${reason})` : "";
  Deno.test({ name: name + suffix, ignore: reason !== undefined, fn });
}

/** The same with a folder of its own, which is removed after it. */
export function testInFolder(
  reason: string | undefined,
  name: string,
  fn: (dir: string) => Promise<void>,
): void {
  testUnless(reason, name, async () => {
    const dir = await Deno.makeTempDir({ prefix: "innerlock-test-" });
    try {
      await fn(await Deno.realPath(dir));
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  });
}
