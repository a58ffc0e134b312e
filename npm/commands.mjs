/**
 * The commands of `innerlock`, and what the tasks of deno.json say about their
 * programs: the variables and rights stand there, and nowhere else.
 *
 * @module
 */

/** What `innerlock --help` says. */
export const USAGE = `Usage: innerlock COMMAND [flags]

TCP sockets with two locks: TLS outside, AES-256-GCM under your own key inside.

  certs    make the certificate and the keys
  server   answer clients, or carry them to a backend
  client   talk to the server, or carry local connections to it
  check    tell whether the server can be reached and lets this client in
  demo     show what travels, and what a box in the middle sees

  --help, --version

innerlock COMMAND --help lists the flags of a command.`;

/** The task that each command runs, and the flags that it adds. */
export const COMMANDS = {
  certs: ["certs"],
  server: ["server"],
  client: ["client"],
  check: ["client", "--check"],
  demo: ["demo"],
};

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
