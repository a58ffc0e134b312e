/**
 * What the three programs share: from arguments to an exit code.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { isHost, lacksZone } from "./addresses.ts";
import { Exit, exitCodeOf, messageOf, UsageError } from "./advice/errors.ts";
import { stderr, stdout } from "./terminal/output.ts";
import config from "../deno.json" with { type: "json" };

/** The flags of a program: its strings, those that may repeat, its switches. */
export interface Flags {
  string?: readonly string[];
  collect?: readonly string[];
  boolean?: readonly string[];
  default?: Record<string, string>;
  /** Flags whose value may be left out, and what a value looks like. */
  optional?: Record<string, RegExp>;
  /** Whether there may be words that are not flags. */
  takesWords?: boolean;
}

/** What was given on a command line. */
export interface Args {
  /** Whether a switch is on. */
  is(name: string): boolean;
  /** A flag's text, if it was given or has a default. */
  text(name: string): string | undefined;
  /** The texts of a flag that may repeat. */
  texts(name: string): string[];
  /** A flag's whole number. */
  integer(name: string, min: number, max: number): number;
  /** A flag's name or address of a machine; that of `--host` can be dialled. */
  host(name: string): string | undefined;
  /** A flag's text, which must be one of these. */
  choice<T extends string>(name: string, choices: readonly T[]): T;
  /** What is not a flag. */
  words: string[];
  /** The names of all flags that were given. */
  given: string[];
}

/** Parses arguments; refuses flags that are not there and words without use. */
export function parse(argv: string[], flags: Flags): Args {
  // `--flag next` has no value where `next` does not look like one.
  const withoutValue = (arg: string, next = "") => {
    const pattern = flags.optional?.[arg.replace(/^--/, "")];
    return pattern && !pattern.test(next) ? `${arg}=` : arg;
  };
  const strings = [...flags.string ?? [], ...flags.collect ?? []];
  const given = parseArgs(
    argv.map((arg, i) => withoutValue(arg, argv[i + 1])),
    {
      string: [...strings, "_"],
      // All may repeat as far as the parser goes: it would keep the last
      // silently.
      collect: strings,
      boolean: [...flags.boolean ?? [], "help", "version"],
      alias: { h: "help" },
      unknown: (arg, key) => {
        if (key === undefined && flags.takesWords) return true;
        if (/^-\d/.test(arg)) {
          throw new UsageError(`No flag takes a negative number: ${arg}`);
        }
        const what = key === undefined ? "argument" : "flag";
        const shown = arg === "" ? "''" : arg;
        throw new UsageError(
          `Unknown ${what} ${shown}: --help lists the flags`,
        );
      },
    },
  );
  const texts = (name: string) => {
    const values = given[name] as string[];
    if (values.includes("") && !flags.optional?.[name]) {
      throw new UsageError(`--${name} needs a value`);
    }
    return values;
  };
  const text = (name: string) => {
    const [value, another] = texts(name);
    if (another === undefined) return value ?? flags.default?.[name];
    throw new UsageError(`--${name} is given more than once`);
  };
  for (const name of flags.string ?? []) text(name);
  return {
    is: (name) => given[name] === true,
    text,
    texts,
    integer: (name, min, max) => {
      const value = text(name) ?? "";
      const number = Number(value);
      if (/^\d+$/.test(value) && number >= min && number <= max) return number;
      throw new UsageError(
        `--${name} takes a whole number from ${min} to ${max}, not ${value}`,
      );
    },
    host: (name) => {
      const host = text(name);
      if (name === "host" && host && lacksZone(host)) {
        throw new UsageError(
          `--host ${host} needs its zone, as in ${host}%eth0`,
        );
      }
      if (host === undefined || isHost(host)) return host;
      throw new UsageError(
        `--${name} takes a name or an address, not ${host}` +
          (name === "host" ? "; the port goes to --port" : ""),
      );
    },
    choice: (name, choices) => {
      const choice = choices.find((choice) => choice === text(name));
      if (choice !== undefined) return choice;
      throw new UsageError(
        `--${name} takes ${choices.join(" or ")}, not ${text(name)}`,
      );
    },
    words: given._.map(String),
    given: [
      ...strings.filter((name) => texts(name).length > 0),
      ...(flags.boolean ?? []).filter((name) => given[name] === true),
    ],
  };
}

/**
 * Refuses flags that a flag has no use for.
 *
 * @param have Whether a flag is one of those.
 * @param advice What to do instead.
 */
export function refuseWith(
  args: Args,
  flag: string,
  have: (other: string) => boolean,
  advice = "",
): void {
  if (!args.given.includes(flag)) return;
  const other = args.given.find((name) => name !== flag && have(name));
  if (other === undefined) return;
  throw new UsageError(`--${flag} does not go with --${other}${advice}`);
}

/**
 * Runs a program: parses its flags, answers `--help` and `--version`, and makes
 * of an error one line on stderr and the exit code. `main` may return another
 * code than 0.
 */
export async function run(
  name: string,
  usage: string,
  flags: Flags,
  main: (args: Args) => Promise<number | void>,
): Promise<never> {
  endAtDefects(name);
  let code: number | void = Exit.done;
  try {
    const args = parse(Deno.args, flags);
    if (args.is("help")) usage.trim().split("\n").forEach(stdout.line, stdout);
    else if (args.is("version")) stdout.line(`innerlock ${config.version}`);
    else code = await main(args);
  } catch (error) {
    code = exitCodeOf(error);
    if (code !== Exit.unread) stderr.line(`${name}: ${messageOf(error)}`);
  }
  const error = await stdout.flush();
  if (error !== undefined && !(error instanceof Deno.errors.BrokenPipe)) {
    stderr.line(`${name}: Cannot write to stdout: ${messageOf(error)}`);
  }
  await stderr.flush();
  Deno.exit(code ?? Exit.done);
}

/**
 * Ends the program at an error that nobody has caught. Deno's own end would close
 * plain connections as if their streams had ended; `Deno.exit` lets them be reset.
 */
function endAtDefects(name: string): void {
  const end = (event: Event, error: unknown) => {
    event.preventDefault();
    const what = error instanceof Error ? error.stack ?? error : error;
    stderr.line(`${name}: A defect, please report it: ${what}`);
    stderr.flush().finally(() => Deno.exit(Exit.failed));
  };
  addEventListener("error", (event) => end(event, event.error));
  addEventListener("unhandledrejection", (event) => end(event, event.reason));
}
