#!/usr/bin/env node
/**
 * The `innerlock` command of the npm package: runs a program as its task in
 * deno.json does, with the Deno that npm has installed.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { readFileSync, statSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { COMMANDS, parseTask, USAGE } from "./commands.mjs";

// What the program inherits stays as it is. To import node:process, or to use
// console, opens stdin, stdout and stderr as Node's streams, and that makes the
// caller's pipes non-blocking.
// deno-lint-ignore no-process-global
const { process } = globalThis;

const require = createRequire(import.meta.url);

function main() {
  const [name = "", ...args] = process.argv.slice(2);
  if (name === "--help" || name === "-h") return print(1, USAGE);
  const { version } = require("./package.json");
  if (name === "--version") return print(1, `innerlock ${version}`);
  if (!Object.hasOwn(COMMANDS, name)) {
    const what = name === "" ? "No command given" : `Unknown command ${name}`;
    return fail(`${what}: innerlock --help lists the commands`, 2);
  }
  const deno = denoPath();
  if (deno === undefined) {
    const system = `${process.platform} on ${process.arch}`;
    // npm is silent when it cannot get an optional package.
    return fail(
      `npm installed no Deno for ${system}; install innerlock again`,
      1,
    );
  }
  const [task, ...flags] = COMMANDS[name];
  const { unset, env, args: rights, file } = parseTask(
    require("./deno.json").tasks[task],
  );
  const kept = Object.entries(process.env)
    .filter(([name]) => !unset.includes(name));
  run(deno, [...rights, require.resolve(`./${file}`), ...flags, ...args], {
    ...Object.fromEntries(kept),
    DENO_NO_UPDATE_CHECK: "1",
    ...env,
  });
}

function fail(message, code) {
  print(2, `innerlock: ${message}`);
  process.exitCode = code;
}

/** Writes a line, which is short enough to be written whole or not at all. */
function print(descriptor, line) {
  while (true) {
    try {
      writeSync(descriptor, `${line}\n`);
      return;
    } catch ({ code }) {
      // Nobody reads it.
      if (code !== "EAGAIN") return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
}

/** The Deno for this system; undefined if npm has not installed it. */
function denoPath() {
  const { platform, arch } = process;
  const libc = platform === "linux" ? "-glibc" : "";
  const extension = platform === "win32" ? ".exe" : "";
  try {
    const path = require.resolve(
      `@deno/${platform}-${arch}${libc}/deno${extension}`,
    );
    // The disk was full: a shell would run an empty file, and be content.
    return statSync(path).size > 0 ? path : undefined;
  } catch {
    return undefined;
  }
}

/**
 * What becomes the program. If that fails, a shell says why in one line; Node
 * would end with a trace, or run the file as a script.
 */
const BECOME = `trap 'exit 1' EXIT; exec "$@"`;

/** What ends a process when its stdin ends; a line there calls that off. */
const WATCH = `trap '' HUP INT QUIT TERM; read line || kill -KILL "$1"`;

function run(file, args, env) {
  const isWindows = process.platform === "win32";
  const [name, ...words] = isWindows
    ? [file, ...args]
    : ["/bin/sh", "-c", BECOME, "innerlock", file, ...args];
  // The program takes the place of this process: signals, job control and the
  // exit code need no help.
  if (process.execve && !isWindows) process.execve(name, ["sh", ...words], env);
  // Before Node 22.15, and on Windows, it is a child.
  // Unless told otherwise, Node would take SIGUSR1 for itself.
  for (const signal of ["SIGHUP", "SIGTERM", "SIGUSR1", "SIGUSR2"]) {
    process.on(signal, () => child.kill(signal));
  }
  for (const signal of ["SIGINT", "SIGQUIT"]) {
    process.on(signal, () => isForeground() || child.kill(signal));
  }
  const child = spawn(name, words, { env, stdio: "inherit" });
  child.on("error", ({ message }) => fail(`Cannot start Deno: ${message}`, 1));
  if (child.pid === undefined) return;
  const watcher = isWindows ? undefined : watch(child.pid);
  child.on("exit", (code, signal) => {
    watcher?.stdin.write("\n");
    endAs(code, signal);
  });
}

/** Lets a child end with this process, also when that is killed. */
function watch(pid) {
  const watcher = spawn("/bin/sh", ["-c", WATCH, "innerlock", pid], {
    stdio: ["pipe", "ignore", "ignore"],
  });
  // The child does without it.
  for (const one of [watcher, watcher.stdin]) one.on("error", () => {});
  return watcher;
}

/**
 * Whether this is a terminal's foreground, where Ctrl-C goes to every process:
 * the child has had it too.
 */
function isForeground() {
  try {
    // proc_pid_stat(5): the name in brackets, which may hold anything, then
    // state, parent, group, session, terminal and its foreground group.
    const stat = readFileSync("/proc/self/stat", "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[2] === fields[5];
  } catch {
    return true;
  }
}

/** Ends as the child did: with its exit code, or by the same signal. */
function endAs(code, signal) {
  if (signal === null) process.exit(code);
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
  // This process survived the signal: the code that a shell would give it.
  process.exit(128 + constants.signals[signal]);
}

main();
