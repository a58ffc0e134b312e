/**
 * What the tasks of deno.json say about the programs: their variables and rights
 * stand there, and nowhere else.
 *
 * @module
 */

/**
 * Takes apart a task such as
 * `unset NAME … && NAME=value … deno run --allow-… "$ROOT/FILE"`, which may
 * prepare more before.
 *
 * @param {string} task
 * @returns {{
 *   unset: string[],
 *   env: Record<string, string>,
 *   args: string[],
 *   file: string,
 * }} The variables that the program must not see and those that it needs, Deno's
 * arguments, and the program's file, from the folder of deno.json.
 */
export function parseTask(task) {
  const steps = task.split(" && ").map((step) => step.split(" "));
  const [, ...unset] = steps.find(([name]) => name === "unset") ?? [];
  const words = steps.at(-1) ?? [];
  const settings = words.splice(0, words.indexOf("deno"));
  const [, ...args] = words;
  const file = args.pop() ?? "";
  return {
    unset,
    env: Object.fromEntries(settings.map((setting) => setting.split("="))),
    args,
    file: file.replace(/^"\$ROOT\/(.*)"$/, "$1"),
  };
}
