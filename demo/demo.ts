/**
 * Shows the main job on an empty machine: throw-away certificates, the real
 * server, the real client, what travels inside TLS; then a forged frame and a
 * wrong key being refused. Leaves nothing behind.
 *
 * @module
 */

const ROOT = new URL("..", import.meta.url).pathname;
const LINES = ["hello world", "straße", "two locks are better than one"];
const FORGED_LINE = "pay 10 to alice";

/** The client's hello, its Noise message and its ping come before its data. */
const FIRST_DATA_FRAME = 3;

interface Result {
  code: number;
  stdout: string;
  stderr: string;
}

function program(name: string, permissions: string[], args: string[]) {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", ...permissions, `${ROOT}${name}`, ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1" },
  });
}

async function run(command: Deno.Command): Promise<Result> {
  const { code, stdout, stderr } = await command.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

function client(dir: string, port: number, psk: string, line: string) {
  return run(program("client.ts", [
    "--allow-net",
    "--allow-read",
    "--allow-sys",
  ], [
    ...["--port", String(port), "--ca", `${dir}/cert.pem`],
    ...["--psk", `${dir}/${psk}`, "--trace", line],
  ]));
}

/** The last line that is no frame of the trace. */
function lastMessage(stderr: string): string {
  return stderr.split("\n").filter((l) => !/^(->|<-) #/.test(l)).at(-1) ?? "";
}

/**
 * A proxy that ends TLS with the server's own certificate, as a company's
 * might, and flips one bit of the client's first data frame.
 */
async function forge(
  listener: Deno.TlsListener,
  ca: string,
  port: number,
): Promise<void> {
  const caCerts = [ca];
  const outside = await listener.accept();
  const inside = await Deno.connectTls({
    hostname: "localhost",
    port,
    caCerts,
  });
  let frame = 0;
  let rest = new Uint8Array(0);
  const tamper = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array>({
    transform(chunk, controller) {
      const bytes = new Uint8Array(rest.length + chunk.length);
      bytes.set(rest);
      bytes.set(chunk, rest.length);
      let offset = 0;
      while (bytes.length - offset >= 2) {
        const length = bytes[offset]! << 8 | bytes[offset + 1]!;
        if (bytes.length - offset < 2 + length) break;
        if (frame++ === FIRST_DATA_FRAME) bytes[offset + 2]! ^= 1;
        controller.enqueue(bytes.slice(offset, offset + 2 + length));
        offset += 2 + length;
      }
      rest = bytes.slice(offset);
    },
  });
  await Promise.allSettled([
    outside.readable.pipeThrough(tamper).pipeTo(inside.writable),
    inside.readable.pipeTo(outside.writable),
  ]);
}

function show(title: string): void {
  console.log(`\n${Deno.noColor ? title : `\x1b[1m${title}\x1b[22m`}`);
}

function expect(isTrue: boolean, what: string): void {
  if (!isTrue) throw new Error(`The demo failed: ${what}`);
}

async function main(dir: string): Promise<void> {
  const made = await run(
    program("gen_certs.ts", [
      "--allow-read",
      "--allow-write",
      "--allow-run=openssl",
    ], ["--out", dir]),
  );
  if (made.code !== 0) throw new Error(made.stderr);
  const key = crypto.getRandomValues(new Uint8Array(32)).toHex();
  await Deno.writeTextFile(`${dir}/wrong.txt`, `default:${key}\n`, {
    mode: 0o600,
  });

  const server = program("server.ts", ["--allow-net", "--allow-read"], [
    ...["--port", "0", "--psk", `${dir}/psk.txt`],
    ...["--cert", `${dir}/cert.pem`, "--key", `${dir}/key.pem`],
  ]).spawn();
  const log = new Response(server.stderr).text();
  const [ready, rest] = server.stdout.tee();
  const drained = new Response(rest).arrayBuffer();
  try {
    const { value } = await ready.getReader().read();
    const port = Number(
      /:(\d+)\s*$/.exec(new TextDecoder().decode(value))?.[1],
    );
    expect(port > 0, "the server did not start");
    show("Each line goes through TLS, and inside it through the inner lock");
    for (const line of LINES) {
      const { code, stdout, stderr } = await client(dir, port, "psk.txt", line);
      const wire = /^-> #\d+ data .*wire (\S+)/m.exec(stderr)?.[1];
      expect(code === 0 && wire !== undefined, lastMessage(stderr));
      expect(stdout === line.toUpperCase(), `the reply was ${stdout}`);
      console.log(`  typed        ${line}`);
      console.log(`  inside TLS   ${wire}`);
      console.log(`  came back    ${stdout}`);
      console.log();
    }

    show("Whoever ends TLS in between flips one bit of a frame");
    const cert = await Deno.readTextFile(`${dir}/cert.pem`);
    const proxy = Deno.listenTls({
      hostname: "127.0.0.1",
      port: 0,
      cert,
      key: await Deno.readTextFile(`${dir}/key.pem`),
    });
    const forging = forge(proxy, cert, port);
    const forged = await client(dir, proxy.addr.port, "psk.txt", FORGED_LINE);
    await forging;
    proxy.close();
    expect(forged.code === 1, "a forged frame passed");
    console.log(`  typed        ${FORGED_LINE}`);
    console.log(`  client       ${lastMessage(forged.stderr)}`);
    console.log(`  exit code    ${forged.code}`);

    show("Whoever does not hold the key is refused");
    const wrong = await client(dir, port, "wrong.txt", "let me in");
    expect(wrong.code === 3, "a wrong key was not refused");
    console.log(`  client       ${lastMessage(wrong.stderr)}`);
    console.log(`  exit code    ${wrong.code}`);
  } finally {
    server.kill("SIGKILL");
    await Promise.all([server.status, drained]);
  }
  show("What the server logged");
  for (const line of (await log).trim().split("\n")) console.log(`  ${line}`);
}

if (import.meta.main) {
  const dir = await Deno.makeTempDir({ prefix: "innerlock-demo-" });
  let code = 0;
  try {
    await main(dir);
  } catch (error) {
    console.error(`demo: ${error instanceof Error ? error.message : error}`);
    code = 1;
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
  Deno.exit(code);
}
