#!/usr/bin/env node
/**
 * The `innerlock` command of the npm package: runs a program as its task in
 * deno.json does, with the Deno that npm has installed.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { constants } from "node:os";
import process from "node:process";

const USAGE = `
Usage: innerlock COMMAND [flags]

TCP sockets with two locks: TLS outside, AES-256-GCM under your own key inside.

  certs    make the certificate and the keys
  server   answer clients, or carry them to a backend
  client   talk to the server, or carry local connections to it
  check    tell whether the server can be reached and lets this client in
  demo     show what travels, and what a box in the middle sees

  --help, --version

innerlock COMMAND --help lists the flags of a command.
`;

/** The task that each command runs, and the flags that it adds. */
const COMMANDS = {
  certs: ["certs"],
  server: ["server"],
  client: ["client"],
  check: ["client", "--check"],
  demo: ["demo"],
};

const require = createRequire(import.meta.url);

function main() {
  const [name = "", ...args] = process.argv.slice(2);
  if (name === "--help" || name === "-h") return console.log(USAGE.trim());
  const { version } = require("./package.json");
  if (name === "--version") return console.log(`innerlock ${version}`);
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
  const { unset, env, words } = commandOf(task);
  const kept = Object.entries(process.env)
    .filter(([name]) => !unset.includes(name));
  run(deno, [...words, ...flags, ...args], {
    ...Object.fromEntries(kept),
    DENO_NO_UPDATE_CHECK: "1",
    ...env,
  });
}

function fail(message, code) {
  console.error(`innerlock: ${message}`);
  process.exitCode = code;
}

/** The Deno for this system; undefined if npm has not installed it. */
function denoPath() {
  const { platform, arch } = process;
  const libc = platform === "linux" ? "-glibc" : "";
  const extension = platform === "win32" ? ".exe" : "";
  try {
    return require.resolve(`@deno/${platform}-${arch}${libc}/deno${extension}`);
  } catch {
    return undefined;
  }
}

/**
 * The variables and arguments of a task: `NAME=value … deno run … FILE`, perhaps
 * after `unset NAME … &&`.
 */
function commandOf(task) {
  const [command, before] = require("./deno.json").tasks[task]
    .split(" && ").reverse();
  const unset = before?.split(" ").slice(1) ?? [];
  const words = command.split(" ");
  const settings = words.splice(0, words.indexOf("deno") + 1).slice(0, -1);
  const file = require.resolve(`./${words.pop()}`);
  return {
    unset,
    env: Object.fromEntries(settings.map((setting) => setting.split("="))),
    words: [...words, file],
  };
}

function run(file, args, env) {
  // The program takes the place of this process: signals, job control and the
  // exit code need no help.
  if (process.execve && process.platform !== "win32") {
    process.execve(file, [file, ...args], env);
  }
  // Before Node 22.15, and on Windows, it is a child.
  // Unless told otherwise, Node would take SIGUSR1 for itself.
  for (const signal of ["SIGHUP", "SIGTERM", "SIGUSR1", "SIGUSR2"]) {
    process.on(signal, () => child.kill(signal));
  }
  for (const signal of ["SIGINT", "SIGQUIT"]) {
    process.on(signal, () => isForeground() || child.kill(signal));
  }
  const child = spawn(file, args, { env, stdio: "inherit" });
  child.on("error", ({ message }) => fail(`Cannot start Deno: ${message}`, 1));
  child.on("exit", endAs);
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
