/**
 * `deno task soak [MINUTES]`: channels come, talk and go, some of them killed at
 * random, for as long as asked. Every byte is accounted for, on both sides, and
 * the server's memory and descriptors are flat at the end.
 *
 * @module
 */

import { connect } from "../lib/deno.ts";
import { makeCerts, serverFlags, TestServer } from "./programs.ts";

/** How many channels there are at a time. */
const WORKERS = 32;

/** The longest text that a channel sends, in bytes. */
const MAX_LENGTH = 1 << 20;

/** One channel in so many is killed while it talks. */
const KILLED = 4;

/** What the server's memory may grow by after the first half, in MiB. */
const MAX_GROWTH = 64;

const minutes = Number(Deno.args[0] ?? 1);
if (!(minutes > 0)) {
  console.error("soak: it takes minutes, such as 0.5");
  Deno.exit(2);
}

/** What the clients did: the server must say the same of each. */
const ended = { count: 0, bytes: 0 };
let killed = 0;

const dir = await makeCerts();
const cert = await Deno.readTextFile(`${dir}/cert.pem`);
const psk = await Deno.readTextFile(`${dir}/psk.txt`);
const server = await TestServer.start([
  ...serverFlags(dir),
  ...["--log-format", "json"],
]);
const port = server.port;

const start = performance.now();
const end = start + minutes * 60_000;
await talkUntil(start + (end - start) / 2);
const middle = await server.usage();
await talkUntil(end);
const last = await server.usage();
server.signal("SIGTERM");
const code = await server.exitCode();
const failures = [...account(await server.stop())];
if (code !== 0) failures.push(`the server ended with ${code}`);
if (last.memory - middle.memory > MAX_GROWTH) failures.push("memory grew");
if (last.descriptors > middle.descriptors) failures.push("descriptors grew");
console.log(
  `${ended.count} channels ended, ${killed} were killed, ` +
    `${(ended.bytes / 1e6).toFixed(0)} MB each way; the server had ` +
    `${middle.memory} MiB and ${middle.descriptors} descriptors half-way, ` +
    `${last.memory} and ${last.descriptors} at the end`,
);
await Deno.remove(dir, { recursive: true });
for (const failure of failures) console.error(`soak: ${failure}`);
Deno.exit(failures.length === 0 ? 0 : 1);

async function talkUntil(time: number): Promise<void> {
  const work = async () => {
    while (performance.now() < time) await talk();
  };
  await Promise.all(Array.from({ length: WORKERS }, work));
}

async function talk(): Promise<void> {
  const text = randomText();
  const isKilled = Math.random() < 1 / KILLED;
  await using channel = await connect({ port, caCerts: [cert], psk });
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
