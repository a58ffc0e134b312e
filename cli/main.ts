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
export class Args {
  /** What is not a flag. */
  readonly words: string[];

  readonly #given: Record<string, unknown>;
  readonly #flags: Flags;

  /** @param given By the name of the flag; of those with a value, all of them. */
  constructor(given: Record<string, unknown>, words: string[], flags: Flags) {
    this.words = words;
    this.#given = given;
    this.#flags = flags;
    for (const name of flags.string ?? []) this.text(name);
  }

  /** Whether a switch is on, or another flag was given. */
  readonly is = (name: string): boolean => {
    const value = this.#given[name];
    return Array.isArray(value) ? value.length > 0 : value === true;
  };

  /** The texts of a flag that may repeat. */
  readonly texts = (name: string): string[] => {
    const values = this.#given[name] as string[];
    if (values.includes("") && !this.#flags.optional?.[name]) {
      throw new UsageError(`--${name} needs a value`);
    }
    return values;
  };

  /** A flag's text, if it was given or has a default. */
  text(name: string): string | undefined {
    const [value, another] = this.texts(name);
    if (another === undefined) return value ?? this.#flags.default?.[name];
    throw new UsageError(`--${name} is given more than once`);
  }

  /** A flag's whole number. */
  integer(name: string, min: number, max: number): number {
    const value = this.text(name) ?? "";
    const number = Number(value);
    if (/^\d+$/.test(value) && number >= min && number <= max) return number;
    throw new UsageError(
      `--${name} takes a whole number from ${min} to ${max}, not ${value}`,
    );
  }

  /** A flag's name or address of a machine; that of `--host` can be dialled. */
  host(name: string): string | undefined {
    const host = this.text(name);
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
  }

  /** A flag's text, which must be one of these. */
  choice<T extends string>(name: string, choices: readonly T[]): T {
    const choice = choices.find((choice) => choice === this.text(name));
    if (choice !== undefined) return choice;
    throw new UsageError(
      `--${name} takes ${choices.join(" or ")}, not ${this.text(name)}`,
    );
  }

  /**
   * Refuses other flags, for which one that was given has no use.
   *
   * @param have Whether a flag is one of those.
   * @param advice What to do instead.
   */
  refuse(flag: string, have: (other: string) => boolean, advice = ""): void {
    if (!this.is(flag)) return;
    const { string = [], collect = [], boolean = [] } = this.#flags;
    const other = [...string, ...collect, ...boolean].filter(this.is)
      .find((name) => name !== flag && have(name));
    if (other === undefined) return;
    throw new UsageError(`--${flag} does not go with --${other}${advice}`);
  }

  /** Refuses words, for which a flag has no use. */
  takesNoWords(flag: string): void {
    const [word] = this.words;
    if (word === undefined) return;
    throw new UsageError(`${flag} takes no words: ${word}`);
  }
}

/** Parses arguments; refuses flags that are not there and words without use. */
export function parse(argv: string[], flags: Flags): Args {
  const switches = [...flags.boolean ?? [], "help", "version"];
  const end = argv.indexOf("--");
  const optional = Object.entries(flags.optional ?? {});
  // `--flag next` has no value where `next` does not look like one.
  const complete = (arg: string, i: number) => {
    if (end !== -1 && i > end) return arg;
    // The parser would take a word "true" behind it for its value; where a `=`
    // is, it takes one `no-` away.
    if (switches.some((name) => arg === `--${name}`)) {
      return `${arg.replace(/^--no-/, "$&no-")}=true`;
    }
    const [, pattern] = optional.find(([name]) => arg === `--${name}`) ?? [];
    return pattern && !pattern.test(argv[i + 1] ?? "") ? `${arg}=` : arg;
  };
  const strings = [...flags.string ?? [], ...flags.collect ?? []];
  const { _: words, ...given } = parseArgs(
    argv.map(complete),
    {
      string: [...strings, "_"],
      // All may repeat as far as the parser goes: it would keep the last
      // silently.
      collect: strings,
      boolean: switches,
      alias: { h: "help" },
      unknown: (arg, key) => {
        if (key === undefined && flags.takesWords) return true;
        if (/^-\d/.test(arg)) {
          throw new UsageError(`No flag takes a negative number: ${arg}`);
        }
        throw unknown(key === undefined ? "argument" : "flag", arg);
      },
    },
  );
  // Of what is behind `--` the parser takes anything.
  const [word] = words;
  if (word !== undefined && !flags.takesWords) {
    throw unknown("argument", String(word));
  }
  return new Args(given, words.map(String), flags);
}

function unknown(what: "argument" | "flag", arg: string): UsageError {
  const shown = arg === "" ? "''" : arg;
  return new UsageError(`Unknown ${what} ${shown}: --help lists the flags`);
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
    if (args.is("help")) stdout.result(usage.trim().split("\n"));
    else if (args.is("version")) stdout.result([`innerlock ${config.version}`]);
    else code = await main(args);
  } catch (error) {
    code = exitCodeOf(error);
    if (code !== Exit.unread) stderr.line(`${name}: ${messageOf(error)}`);
  }
  const error = await stdout.flush();
  if (error !== undefined && !(error instanceof Deno.errors.BrokenPipe)) {
    stderr.line(`${name}: Cannot write to stdout: ${messageOf(error)}`);
    if (stdout.hasResult) code ||= Exit.failed;
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
