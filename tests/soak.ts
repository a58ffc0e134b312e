/**
 * `deno task soak [MINUTES] [openssl]`: channels come, talk and go, by themselves and
 * through a tunnel whose callers half-close, some of them killed at random, while
 * keys and certificate are replaced, for as long as asked. Every byte is accounted
 * for, on both sides, and the server's memory and descriptors are flat at the end.
 *
 * @module
 */

import { connect } from "../lib/deno.ts";
import { openssl } from "../lib/openssl.ts";
import { type Channel, ChannelError } from "../lib/mod.ts";
import { KeyFile } from "../cli/keys/key_file.ts";
import { replaceFiles } from "../cli/keys/replace.ts";
import { ask } from "./plain_peers.ts";
import {
  makeCerts,
  run,
  serverFlags,
  TestEntrance,
  TestServer,
} from "./programs.ts";

/** How many channels there are at a time. */
const WORKERS = 32;

/** The longest text that a channel sends, in bytes. */
const MAX_LENGTH = 1 << 20;

/** One channel in so many is killed while it talks. */
const KILLED = 4;

/** A caller of the tunnel in so many workers. */
const CALLERS = 8;

/** How often the keys are replaced, in milliseconds; the certificate each tenth. */
const RELOAD_INTERVAL = 300;

/** What the server's memory may grow by after the first half, in MiB. */
const MAX_GROWTH = 64;

const minutes = Number(Deno.args[0] ?? 1);
if (!(minutes > 0)) {
  console.error("soak: it takes minutes, such as 0.5");
  Deno.exit(2);
}

/** The programs seal by OpenSSL if asked, and every other channel of this one. */
const engine = Deno.args[1] === "openssl" ? openssl() : undefined;
const flags = engine ? ["--openssl"] : [];
let dials = 0;

/** What the clients did: the server must say the same of each. */
const ended = { count: 0, bytes: 0 };
let killed = 0;

const dir = await makeCerts();
const psk = await Deno.readTextFile(`${dir}/psk.txt`);
const server = await TestServer.start([
  ...serverFlags(dir),
  ...["--log-format", "json", ...flags],
]);
const port = server.port;
const tunnel = await TestEntrance.start(dir, port, "0", flags);

const start = performance.now();
const end = start + minutes * 60_000;
const reloading = reload();
await talkUntil(start + (end - start) / 2);
const middle = await server.usage();
await talkUntil(end);
const reloads = await reloading;
await tunnel.stop();
const last = await server.usage();
server.signal("SIGTERM");
const code = await server.exitCode();
const failures = [...account(await server.stop())];
if (code !== 0) failures.push(`the server ended with ${code}`);
if (last.memory - middle.memory > MAX_GROWTH) failures.push("memory grew");
if (last.descriptors > middle.descriptors) failures.push("descriptors grew");
console.log(
  `${ended.count} channels ended, ${killed} were killed, ${reloads} reloads, ` +
    `${(ended.bytes / 1e6).toFixed(0)} MB each way; the server had ` +
    `${middle.memory} MiB and ${middle.descriptors} descriptors half-way, ` +
    `${last.memory} and ${last.descriptors} at the end`,
);
await Deno.remove(dir, { recursive: true });
for (const failure of failures) console.error(`soak: ${failure}`);
Deno.exit(failures.length === 0 ? 0 : 1);

async function talkUntil(time: number): Promise<void> {
  const work = async (_: unknown, number: number) => {
    const one = number < CALLERS ? call : talk;
    while (performance.now() < time) await one();
  };
  await Promise.all(Array.from({ length: WORKERS }, work));
}

/** Through the tunnel: half-closes when all is said, and reads to the end. */
async function call(): Promise<void> {
  const text = randomText();
  const isKilled = Math.random() < 1 / KILLED;
  const { host: hostname, port } = tunnel.address;
  if (isKilled) {
    using conn = await Deno.connect({ hostname, port });
    killed++;
    await conn.write(new TextEncoder().encode(text.slice(0, 1000)));
    return;
  }
  const reply = await ask(tunnel.address, text);
  if (reply !== text.toUpperCase()) throw new Error("The tunnel lost bytes");
  ended.count++;
  ended.bytes += text.length;
}

async function talk(): Promise<void> {
  const text = randomText();
  const isKilled = Math.random() < 1 / KILLED;
  const channel = await dial();
  if (!channel) return;
  await using _ = channel;
  const writing = new Blob([text]).stream().pipeTo(channel.writable);
  if (isKilled) {
    writing.catch(() => {});
    killed++;
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 20));
    return channel.abort();
  }
  const reply = await new Response(channel.readable).text();
  await writing;
  if (reply !== text.toUpperCase()) throw new Error("The reply is wrong");
  ended.count++;
  ended.bytes += text.length;
}

/** Undefined where a certificate is just being replaced: then nothing was said. */
async function dial(): Promise<Channel | undefined> {
  const cert = await Deno.readTextFile(`${dir}/cert.pem`);
  try {
    const sealing = engine && dials++ % 2 === 0 ? { engine } : {};
    return await connect({ port, caCerts: [cert], psk, ...sealing });
  } catch (error) {
    const { ConnectionRefused, ConnectionReset, NotConnected } = Deno.errors;
    const isReplaced = error instanceof ConnectionRefused ||
      error instanceof ConnectionReset || error instanceof NotConnected ||
      error instanceof ChannelError &&
        ["untrusted", "cut"].includes(error.code);
    if (isReplaced) return undefined;
    throw error;
  }
}

/** Keys of others come and go, and certificates; how often. */
async function reload(): Promise<number> {
  const path = `${dir}/psk.txt`;
  for (let count = 0;; count++) {
    if (performance.now() > end) return count;
    if (count % 10 === 9) await run("certs", ["--out", dir, "--renew"]);
    const file = new KeyFile(path, await Deno.readTextFile(path));
    file.setKey("somebody");
    await replaceFiles([{ path, text: file.text, mode: 0o600 }]);
    for (const program of [server, tunnel]) program.signal("SIGHUP");
    await new Promise((resolve) => setTimeout(resolve, RELOAD_INTERVAL));
  }
}

function randomText(): string {
  const unit = Math.random().toString(36).slice(2);
  return unit.repeat(Math.random() ** 4 * MAX_LENGTH / unit.length);
}

/** What the server's log does not account for. */
function* account(log: string): Generator<string> {
  const seen = { count: 0, bytes: 0 };
  for (const line of log.trim().split("\n")) {
    const { event, reason, bytesReceived, bytesSent } = JSON.parse(line);
    if (event !== "closed" || reason !== "end") continue;
    seen.count++;
    seen.bytes += bytesReceived;
    if (bytesReceived !== bytesSent) yield `${line}: bytes were lost`;
  }
  // A channel that was killed when all had been said counts as ended there.
  if (seen.count < ended.count || seen.count > ended.count + killed) {
    yield `the server saw ${seen.count} channels end, not ${ended.count}`;
  }
  if (seen.count === ended.count && seen.bytes !== ended.bytes) {
    yield `the server saw ${seen.bytes} bytes, not ${ended.bytes}`;
  }
}
