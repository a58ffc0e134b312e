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

/** What the usage of a program does not say of its flags. */
export interface Flags {
  default?: Record<string, string>;
  /** Whether there may be words that are not flags. */
  takesWords?: boolean;
}

/** A flag that a usage lists. */
interface ListedFlag {
  name: string;
  /** Whether a value follows it: a switch has none. */
  hasValue: boolean;
  mayRepeat: boolean;
  /** What a value looks like, if it may be left out. */
  optional?: RegExp;
}

/** What may be left out where a usage has it, and what it looks like. */
const OPTIONAL: Record<string, RegExp> = {
  "[FILE]": /^\.{0,2}\//,
  "[PATH]": /^\//,
};

/**
 * The flags that a usage lists. The parser knows no others, and reads in it what
 * people read: what stands behind a name is a value, and a flag may be given more
 * than once if its entry has the word "repeat".
 */
function listed(usage: string): ListedFlag[] {
  return usage.split(/\n {2}--/).slice(1).map((text) => {
    // Behind the last one there is an empty line, and what is said of all.
    const [entry = ""] = text.split("\n\n");
    const [, name, value] = entry.match(/^([a-z-]+)(?: (\S+))?/)!;
    const optional = OPTIONAL[value ?? ""];
    return {
      name: name!,
      hasValue: value !== undefined,
      mayRepeat: /\brepeat\b/.test(entry),
      ...optional && { optional },
    };
  });
}

/** What was given on a command line. */
export class Args {
  /** What is not a flag. */
  readonly words: string[];

  readonly #given: Record<string, unknown>;
  readonly #flags: ListedFlag[];
  readonly #default: Record<string, string>;

  /** @param given By the name of the flag; of those with a value, all of them. */
  constructor(
    given: Record<string, unknown>,
    words: string[],
    flags: ListedFlag[],
    defaults: Record<string, string>,
  ) {
    this.words = words;
    this.#given = given;
    this.#flags = flags;
    this.#default = defaults;
    for (const { name, hasValue, mayRepeat } of flags) {
      if (hasValue && !mayRepeat) this.text(name);
    }
  }

  /** Whether a switch is on, or another flag was given. */
  readonly is = (name: string): boolean => {
    const value = this.#given[name];
    return Array.isArray(value) ? value.length > 0 : value === true;
  };

  /** The texts of a flag that may repeat. */
  readonly texts = (name: string): string[] => {
    const values = this.#given[name] as string[];
    const flag = this.#flags.find((flag) => flag.name === name);
    if (values.includes("") && !flag?.optional) {
      throw new UsageError(`--${name} needs a value`);
    }
    return values;
  };

  /** A flag's text, if it was given or has a default. */
  text(name: string): string | undefined {
    const [value, another] = this.texts(name);
    if (another === undefined) return value ?? this.#default[name];
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
    const other = this.#flags.map(({ name }) => name).filter(this.is)
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

/**
 * Parses arguments; refuses flags that the usage does not list and words without
 * use.
 */
export function parse(
  argv: string[],
  usage: string,
  { default: defaults = {}, takesWords = false }: Flags = {},
): Args {
  const flags = listed(usage);
  const names = (hasValue: boolean) =>
    flags.filter((flag) => flag.hasValue === hasValue).map(({ name }) => name);
  const strings = names(true);
  const switches = [...names(false), "help", "version"];
  const end = argv.indexOf("--");
  // `--flag next` has no value where `next` does not look like one.
  const complete = (arg: string, i: number) => {
    if (end !== -1 && i > end) return arg;
    // The parser would take a word "true" behind it for its value; where a `=`
    // is, it takes one `no-` away.
    if (switches.some((name) => arg === `--${name}`)) {
      return `${arg.replace(/^--no-/, "$&no-")}=true`;
    }
    const pattern = flags.find(({ name }) => arg === `--${name}`)?.optional;
    return pattern && !pattern.test(argv[i + 1] ?? "") ? `${arg}=` : arg;
  };
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
        if (key === undefined && takesWords) return true;
        if (/^-\d/.test(arg)) {
          throw new UsageError(`No flag takes a negative number: ${arg}`);
        }
        throw unknown(key === undefined ? "argument" : "flag", arg);
      },
    },
  );
  // Of what is behind `--` the parser takes anything.
  const [word] = words;
  if (word !== undefined && !takesWords) {
    throw unknown("argument", String(word));
  }
  return new Args(given, words.map(String), flags, defaults);
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
    const args = parse(Deno.args, usage, flags);
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
