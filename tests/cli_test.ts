/** The server and the client as a user meets them: real processes. */

import { parse } from "../cli/main.ts";
import { encryptKey, makeKey } from "../cli/keys/openssl.ts";
import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { UsageError } from "../cli/advice/errors.ts";
import { listen, type Listener } from "../lib/deno.ts";
import type { Channel } from "../lib/mod.ts";
import { outputOf, printed } from "./limit.ts";
import {
  clientFlags,
  command,
  freePort,
  makeCerts,
  MAY_RUN,
  type Result,
  run,
  serverFlags,
  start,
  Terminal,
  TestServer,
  withCerts,
} from "./programs.ts";
import { lacksPermissions, lacksProgram, testUnless } from "./requirements.ts";

const reason = lacksPermissions(...MAY_RUN);

/** A test with a folder of keys, and a server unless it wants none. */
function test(
  name: string,
  fn: (dir: string, port: number, server: TestServer) => Promise<void>,
  otherReason?: string,
): void {
  const work = async (dir: string) => {
    await using server = await TestServer.start(serverFlags(dir));
    await fn(dir, server.port, server);
  };
  testUnless(reason ?? otherReason, name, withCerts(work));
}

/** One line that names the program, no stack trace, and the exit code. */
function assertFails(result: Result, code: number, message: RegExp): void {
  assertMatch(result.stderr, /^\w+: [^\n]+\n$/);
  assertMatch(result.stderr, message);
  assertEquals(result.code, code);
}

async function writeKey(path: string, text: string, mode = 0o600) {
  await Deno.writeTextFile(path, text);
  await Deno.chmod(path, mode);
}

const KEY = "0f".repeat(32);

test("client: words are one line, the reply is printed", async (dir, port) => {
  const { text, code, stderr } = await run("client", [
    ...clientFlags(dir, port),
    "hello",
    "straße",
    "007",
  ]);
  assertEquals([text, code, stderr], ["HELLO STRASSE 007\n", 0, ""]);
});

test("client: 30 MB through the pipe come back exact", async (dir, port) => {
  const line = "straße äöü 𝔘 ﬁ the quick brown fox\n";
  const input = line.repeat(Math.ceil(30e6 / 47));
  const { text, code } = await run("client", clientFlags(dir, port), input);
  assertEquals(code, 0);
  assertEquals(text === input.toUpperCase(), true);
});

test("client: no input, and a byte order mark", async (dir, port) => {
  const flags = clientFlags(dir, port);
  assertEquals((await run("client", flags)).code, 0);
  const { text, code } = await run("client", flags, "\ufeffa");
  // Response's decoder drops the mark of its own accord, so look at the bytes.
  assertEquals([text, code], ["A", 0]);
  const { stdout } = await run("client", flags, "\ufeffa");
  assertEquals(stdout.length, 4);
});

test("client: eight at once each get their own stream", async (dir, port) => {
  await Promise.all(
    Array.from({ length: 8 }, async (_, i) => {
      const input = `client ${i} says hello\n`.repeat(20_000);
      const { text, code } = await run("client", clientFlags(dir, port), input);
      assertEquals(code, 0);
      assertEquals(text === input.toUpperCase(), true);
    }),
  );
});

test("client: --trace shows each frame", async (dir, port) => {
  const { stderr, text } = await run("client", [
    ...clientFlags(dir, port),
    "--trace",
    "hi",
  ]);
  assertEquals(text, "HI\n");
  for (const type of ["hello", "noise", "ping", "data", "end"]) {
    assertMatch(stderr, new RegExp(`^-> #\\d+ ${type} \\d+ bytes`, "m"));
  }
  assertMatch(
    stderr,
    /^<- #\d+ data 20 bytes {2}plain 48490a "HI\\n" {2}wire \w{32}…$/m,
  );
});

test("client: wrong usage exits 2", async (dir, port) => {
  const flags = clientFlags(dir, port);
  for (
    const [args, message] of [
      [["--no-such"], /Unknown flag --no-such/],
      [["--port", "65536"], /whole number from 1 to 65535/],
      [["--port", "-1"], /No flag takes a negative number: -1/],
      [["--port"], /--port/],
      [["--identity", "bob"], /no identity bob in .*--identity: default\n/],
      [["--identity", "default@"], /takes NAME or NAME@.*, not default@\n/],
      [["--identity", "default@a@b"], /takes NAME or NAME@.*, not default@a@b/],
      [["--psk", `${dir}/none.txt`], /no such file\n/],
      [["--ca", `${dir}/none.pem`], /no such file\n/],
      [["--ca", dir], /Cannot read \S+: it is a folder\n/],
      [["--psk", "/dev/stdin"], /Deno lets no program in there; choose ano/],
      [["--client-cert", `${dir}/cert.pem`], /go together/],
      [["--identity", "default", "--identity", "bob"], /more than once/],
      [["--host", "x:5001"], /name or an address, not x:5001; .* --port/],
      [["--host", "https://x/"], /not https:\/\/x\/; the port goes to --port/],
      [["--host", "a b"], /name or an address, not a b/],
      [["--server-name", "x:1"], /--server-name takes a name .*, not x:1\n/],
      [["--reserve", "3"], /^client: --reserve needs --listen or --expose\n/],
      [
        ["--max-connections", "3"],
        /--max-connections needs --listen or --expose\n/,
      ],
      [["--grace", "3"], /--grace needs --listen or --expose\n/],
      [["--list"], /^client: --list does not go with --(ca|psk|port)\n$/],
      [
        ["--connect", "db", "--listen", "0"],
        /^client: --listen does not go with --connect\n$/,
      ],
      [
        ["--connect", "db", "--expose", "h:1"],
        /^client: --expose does not go with --connect\n$/,
      ],
      [
        ["--check", "--expose", "h:1", "--reserve", "3"],
        /^client: --check does not go with --reserve\n$/,
      ],
      [["--host", "fe80::1"], /fe80::1 needs its zone, as in fe80::1%eth0\n/],
      [
        ["--host", "fe80::1%lo"],
        /Certificates have no zone, .*--server-name/,
      ],
    ] as const
  ) {
    const given = flags.filter((_, i) =>
      flags[i] !== args[0] && flags[i - 1] !== args[0]
    );
    assertFails(await run("client", [...given, ...args, "x"]), 2, message);
  }
});

Deno.test("parse: only a flag before -- may lack its value", () => {
  const usage = `
  --connect SERVICE  to a service
  --websocket [PATH] through boxes`;
  const read = (...argv: string[]) => parse(argv, usage, { takesWords: true });
  const words = (...argv: string[]) => read(...argv).words;
  assertEquals(words("websocket", "test"), ["websocket", "test"]);
  assertEquals(words("constructor", "--", "--websocket", "x"), [
    "constructor",
    "--websocket",
    "x",
  ]);
  assertEquals(read("--connect", "websocket").text("connect"), "websocket");
  for (const argv of [["--websocket", "x"], ["--websocket", "--", "x"]]) {
    const args = read(...argv);
    assertEquals([args.text("websocket"), args.words], ["", ["x"]]);
  }
});

Deno.test("parse: a switch takes no word, and -- makes none welcome", () => {
  for (const name of ["quiet", "no-tls"]) {
    const usage = `\n  --${name}  says less`;
    const args = parse([`--${name}`, "true"], usage, { takesWords: true });
    assertEquals([args.is(name), args.words], [true, ["true"]]);
  }
  for (const argv of [["--", "--port"], ["--quiet", "--", ""], ["true"]]) {
    const strict = () => parse(argv, "\n  --quiet  says less");
    assertThrows(strict, UsageError, "Unknown argument ");
  }
});

Deno.test("parse: what a usage says of a flag holds", () => {
  const read = (...argv: string[]) =>
    parse(
      argv,
      `
Usage: some [flags]

With --prose, it does --nothing else.

  --many [HOST:]PORT  what there are many of; may
                      repeat
  --file [FILE]       seal with it, or with --many
  --help, --version
  --one N  a number (5)

Others may repeat it.
`,
      { default: { one: "5" } },
    );
  const args = read("--many", "1", "--file", "--many", "2", "--help");
  assertEquals(args.texts("many"), ["1", "2"]);
  assertEquals([args.text("file"), args.text("one")], ["", "5"]);
  assertEquals([args.is("help"), args.is("version")], [true, false]);
  assertEquals(read("--file", "./x").text("file"), "./x");
  assertEquals(read("--version").is("version"), true);
  for (const name of ["prose", "nothing", "no-many", "no-such"]) {
    assertThrows(() => read(`--${name}`), UsageError, `Unknown flag --${name}`);
  }
  // Those that every program has need not be listed.
  const bare = parse(["--help", "x"], "", { takesWords: true });
  assertEquals([bare.is("help"), bare.words], [true, ["x"]]);
  const twice = () => read("--one", "1", "--one", "2");
  assertThrows(twice, UsageError, "--one is given more than once");
});

testUnless(reason, "a flag of the usage is parsed, and no other", async () => {
  for (const program of ["server", "client", "certs"] as const) {
    for (
      const [flag, message] of [
        ["--port", /: --port needs a value\n/],
        ["--no-such", /: Unknown flag --no-such: --help lists the flags\n/],
      ] as const
    ) assertFails(await run(program, [flag]), 2, message);
  }
});

test("client: a service that nobody can have exits 2", async (dir, port) => {
  for (const service of ["a b", "@", "a@b", "x".repeat(64)]) {
    const flags = [...clientFlags(dir, port), "--connect", service];
    assertFails(await run("client", flags), 2, /There can be no service/);
  }
});

test("client: a key for one service opens no other, and nobody is dialled", async (dir) => {
  // Nobody is there: whoever dials would exit with 1.
  const flags = clientFlags(dir, 1).map((flag) =>
    flag === `${dir}/psk.txt` ? `${dir}/bob.txt` : flag
  );
  const many = Array.from({ length: 12 }, (_, i) => `bob@s${i}`);
  const ten = "bob@s0, bob@s1, bob@s2, .*, bob@s9 and 2 more; get one with";
  for (
    const [lines, more, message] of [
      [["bob@db"], [], /no key for bob@web in \S+bob\.txt, which has bob@db;/],
      [many, ["--identity", "bob@s3"], new RegExp(`which has ${ten}`)],
      [many, ["--identity", "bob"], new RegExp("There is no identity bob in")],
    ] as const
  ) {
    const text = lines.map((line) => `${line}:${"0f".repeat(32)}\n`).join("");
    await writeKey(`${dir}/bob.txt`, text);
    for (const way of [["--connect", "web"], ["--listen", "0=web"]]) {
      const args = [...flags, ...more, ...way];
      assertFails(await run("client", args), 2, message);
    }
  }
  // The same name's key for another service is one.
  await writeKey(
    `${dir}/bob.txt`,
    `bob@db:${"0f".repeat(32)}\nbob@web:${"0f".repeat(32)}\n`,
  );
  const args = [...flags, "--identity", "bob@db", "--connect", "web"];
  assertFails(await run("client", args), 1, /Cannot connect to /);
});

test("client: a certificate or key that is none exits 2", async (dir, port) => {
  const cert = await Deno.readTextFile(`${dir}/cert.pem`);
  const files = {
    "empty.pem": "",
    "half.pem": cert.slice(0, 300),
    "damaged.pem": cert.replace(/\n.{20}/, "\n"),
    "encrypted.pem": await encryptKey(await makeKey(false), "x"),
    "other.pem": await makeKey(false),
  };
  for (const [name, text] of Object.entries(files)) {
    await writeKey(`${dir}/${name}`, text);
  }
  const client = (cert: string, key: string) => [
    ...["--client-cert", `${dir}/${cert}`, "--client-key", `${dir}/${key}`],
  ];
  const psk = ["--psk", `${dir}/psk.txt`, "--port", String(port)];
  const ca = ["--ca", `${dir}/cert.pem`];
  for (
    const [args, message] of [
      [["--ca", `${dir}/empty.pem`], /empty\.pem: it contains no certificate/],
      [["--ca", `${dir}/key.pem`], /key\.pem: .* but a private key/],
      [["--ca", `${dir}/half.pem`], /half\.pem: it is cut off; copy it/],
      [["--ca", `${dir}/damaged.pem`], /damaged\.pem: it is damaged; copy/],
      [
        [...ca, ...client("key.pem", "cert.pem")],
        /key\.pem: it contains no certificate, but a private key/,
      ],
      [
        [...ca, ...client("cert.pem", "cert.pem")],
        /cert\.pem: it contains no private key, but a certificate/,
      ],
      [
        [...ca, ...client("cert.pem", "other.pem")],
        /other\.pem: it is not the key of .*\/cert\.pem/,
      ],
      [
        [...ca, ...client("cert.pem", "encrypted.pem")],
        /encrypted\.pem: it is encrypted; decrypt it with/,
      ],
      [[...ca, ...client("cert.pem", "no.pem")], /no\.pem: .* no such file\n/],
    ] as const
  ) {
    assertFails(await run("client", [...psk, ...args, "x"]), 2, message);
  }
});

test(
  "client: its task trusts --ca alone, --system-ca adds to it",
  async (dir, port) => {
    const other = await makeCerts();
    const flags = [
      ...["--port", String(port), "--psk", `${dir}/psk.txt`],
      ...["--ca", `${other}/cert.pem`],
    ];
    // Deno would take this system's CAs, and those that either of two variables
    // names; the server's certificate is among all of them.
    const system = {
      DENO_TLS_CA_STORE: "system",
      SSL_CERT_FILE: `${dir}/cert.pem`,
      DENO_CERT: `${dir}/cert.pem`,
      NODE_EXTRA_CA_CERTS: `${dir}/cert.pem`,
    };
    const client = (...args: string[]) =>
      run("client", [...flags, ...args, "hi"], "", system);
    assertFails(await client(), 3, /issuer of .* is not trusted/);
    const { text, code } = await client("--system-ca");
    assertEquals([text, code], ["HI\n", 0]);
    await Deno.remove(other, { recursive: true });
  },
);

test("client: --system-ca needs no file", async (dir, port) => {
  const flags = ["--psk", `${dir}/psk.txt`, "--port", String(port)];
  const result = await run("client", [...flags, "--system-ca", "x"]);
  assertFails(result, 3, /issuer of .* is not trusted/);
});

test("client: a bad key file exits 2 and names the line", async (dir, port) => {
  const path = `${dir}/bad.txt`;
  const flags = ["--port", String(port), "--ca", `${dir}/cert.pem`];
  for (
    const [text, mode, message] of [
      [`a:${KEY}\nb:12\n`, 0o600, /line 2 has no key/],
      ["nonsense\n", 0o600, /line 1 has no colon/],
      ["", 0o600, /it has no key/],
      // That it is no key file comes first: others may need to read it.
      ["-----BEGIN CERTIFICATE-----\n", 0o644, /line 1 has no colon/],
      [`default:${KEY}\n`, 0o644, /other users may read it; run 'chmod 600/],
    ] as const
  ) {
    await writeKey(path, text, mode);
    const result = await run("client", [...flags, "--psk", path, "x"]);
    assertFails(result, 2, message);
  }
});

test(
  "client: wrong key and unknown identity exit 3, alike",
  async (dir, port, server) => {
    const path = `${dir}/wrong.txt`;
    await writeKey(path, `default:${KEY}\nnobody:${KEY}\n`);
    const flags = ["--port", String(port), "--ca", `${dir}/cert.pem`];
    const stderrs: string[] = [];
    for (const identity of ["default", "nobody"]) {
      const psk = ["--psk", path, "--identity", identity];
      const result = await run("client", [...flags, ...psk, "x"]);
      assertFails(result, 3, /does not know this identity, or has another key/);
      stderrs.push(result.stderr.replace(identity, "X"));
    }
    assertEquals(stderrs[0], stderrs[1]);
    const log = await server.stop();
    assertMatch(
      log,
      /not let in: refused \(The client does not hold the key of/,
    );
    assertEquals(log.includes(KEY), false);
  },
);

test("client: a certificate that is not trusted exits 3", async (dir, port) => {
  const other = await makeCerts();
  const flags = [...clientFlags(dir, port), "--ca"].filter((f, i, all) =>
    f !== "--ca" && all[i - 1] !== "--ca"
  );
  const ca = ["--ca", `${other}/cert.pem`];
  assertFails(
    await run("client", [...flags, ...ca, "x"]),
    3,
    /issuer of .* is not trusted/,
  );
  await Deno.remove(other, { recursive: true });
  const name = ["--server-name", "other.example"];
  assertFails(
    await run("client", [...clientFlags(dir, port), ...name, "x"]),
    3,
    new RegExp(
      `server localhost:${port} \\(127\\.0\\.0\\.1\\) is for localhost, ` +
        "127\\.0\\.0\\.1 or ::1, not for other\\.example; use one of its names with --host",
    ),
  );
});

test("client: an expired certificate exits 3", async () => {
  const old = await makeCerts();
  await printed([
    ...["openssl", "x509", "-in", `${old}/cert.pem`],
    ...["-signkey", `${old}/key.pem`, "-out", `${old}/cert.pem`],
    ...["-days", "-1", "-copy_extensions", "copyall"],
  ]);
  await using server = await TestServer.start(serverFlags(old));
  const result = await run("client", [...clientFlags(old, server.port), "x"]);
  assertFails(
    result,
    3,
    /has expired; set the clock, or renew it with 'deno task certs --renew'/,
  );
  await Deno.remove(old, { recursive: true });
});

test("client: nobody there, no TLS there, silence there: exit 1", async (dir) => {
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const { port } = listener.addr;
  const flags = [...clientFlags(dir, port), "--host", "localhost"];
  const limited = run("client", [...flags, "--handshake-timeout", "1", "x"]);
  const silent = await listener.accept();
  assertFails(
    await limited,
    1,
    /Connected to the server localhost:\d+ \(127\.0\.0\.1\), but TLS did not begin within 1 s/,
  );
  silent.close();
  const plain = run("client", [...flags, "x"]);
  const conn = await listener.accept();
  await conn.write(new TextEncoder().encode("220 mail.example ready\r\n"));
  assertFails(await plain, 1, /did not speak TLS/);
  conn.close();
  listener.close();
  assertFails(
    await run("client", [...clientFlags(dir, freePort()), "x"]),
    1,
    /Cannot connect to localhost:\d+: connection refused; is the server/,
  );
  assertFails(
    await run("client", [...flags.slice(0, -1), "no.such.invalid", "x"]),
    1,
    /no\.such\.invalid:\d+: (there is no such name|the name server does not)/,
  );
});

test(
  "client: the server gone mid-stream exits 1",
  async (dir, port, server) => {
    const child = start("client", clientFlags(dir, port));
    const stderr = new Response(child.stderr).text();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode("partial\n"));
    const reader = child.stdout.getReader();
    const { value } = await reader.read();
    assertEquals(new TextDecoder().decode(value), "PARTIAL\n");
    await server.stop();
    assertEquals((await child.status).code, 1);
    assertEquals(
      await stderr,
      "client: The peer cut the connection; the server's log may say why\n",
    );
    await reader.cancel();
    await writer.abort().catch(() => {});
  },
);

test("client: progress at a terminal, unless --quiet", async (dir, port) => {
  const file = `${dir}/text`;
  await Deno.writeTextFile(file, "a line\n".repeat(3_000_000));
  const redirect = `< ${file} > ${dir}/reply`;
  await using shown = new Terminal("client", clientFlags(dir, port), redirect);
  await shown.expect(" of 21 MB sent, ");
  await shown.expect(" left");
  assertEquals((await shown.end()).code, 0);
  const quiet = [...clientFlags(dir, port), "--quiet"];
  await using silent = new Terminal("client", quiet, redirect);
  assertEquals(await silent.end(), { code: 0, rest: "" });
  const reply = await Deno.readTextFile(`${dir}/reply`);
  assertEquals(reply === "A LINE\n".repeat(3_000_000), true);
});

test(
  "server: its log tells who came and why they went",
  async (dir, port, server) => {
    await run("client", [...clientFlags(dir, port), "hi"]);
    // It may hear later than the client that all has ended.
    await server.logged("closed: ");
    const log = await server.stop();
    const at = String.raw`\d{4}-\S+Z 127\.0\.0\.1:\d+ default`;
    assertMatch(log, new RegExp(`^${at} connected$`, "m"));
    const closed = String.raw`closed: 3 bytes in, 3 out, \d+(\.\d+)? s, end`;
    assertMatch(log, new RegExp(`^${at} ${closed}$`, "m"));
  },
);

test("server: a port in use exits 1", async (dir, port) => {
  const result = await run("server", [
    ...serverFlags(dir),
    ...["--port", String(port)],
  ]);
  assertFails(result, 1, /port is in use/);
});

test("server: wrong configuration exits 2", async (dir) => {
  const flags = serverFlags(dir);
  const [cert, key] = await Promise.all(
    ["cert.pem", "key.pem"].map((name) => Deno.readTextFile(`${dir}/${name}`)),
  ) as [string, string];
  for (
    const [certText, keyText, message] of [
      ["", key, /cert\.pem: it contains no certificate\n/],
      ["nonsense", key, /cert\.pem: it contains no certificate\n/],
      [cert.slice(0, 300), key, /cert\.pem: it is cut off/],
      [cert.replace(/\n.{20}/, "\n"), key, /cert\.pem: it is damaged/],
      [key, cert, /cert\.pem: it contains no certificate, but a private key/],
      [cert, cert, /key\.pem: it contains no private key, but a certificate/],
      [cert, "", /key\.pem: it contains no private key\n/],
      [cert, key.slice(0, 100), /key\.pem: it is cut off/],
      [cert, key.replace(/\n.{20}/, "\n"), /key\.pem: it is damaged/],
      [
        cert,
        await makeKey(false),
        /key\.pem: it is not the key of .*cert\.pem/,
      ],
    ] as const
  ) {
    await Deno.writeTextFile(`${dir}/cert.pem`, certText);
    await Deno.writeTextFile(`${dir}/key.pem`, keyText);
    assertFails(await run("server", flags), 2, message);
  }
  await Deno.writeTextFile(`${dir}/cert.pem`, cert);
  await Deno.writeTextFile(`${dir}/key.pem`, key);
  await Deno.chmod(`${dir}/key.pem`, 0o640);
  assertFails(
    await run("server", flags),
    2,
    /key\.pem: its group or its access list may read it; run 'chmod 600/,
  );
  await Deno.chmod(`${dir}/key.pem`, 0o600);
  // The certificate is open to others: what is wrong is that it is no key.
  assertFails(
    await run("server", [
      ...["--cert", `${dir}/cert.pem`, "--key", `${dir}/cert.pem`],
      ...["--psk", `${dir}/psk.txt`],
    ]),
    2,
    /cert\.pem: it contains no private key, but a certificate/,
  );
  for (
    const [args, message] of [
      [["word"], /Unknown argument word/],
      [["--host", ""], /Unknown argument '': --help/],
      [
        ["--host", "x:5001"],
        /name or an address, not x:5001; the port goes to/,
      ],
      [["--host", "fe80::1"], /fe80::1 needs its zone, as in fe80::1%eth0\n/],
      [["--port", "-1"], /No flag takes a negative number: -1/],
      [["--psk", `${dir}/none`], /no such file\n/],
    ] as const
  ) {
    const given = args[0] === "--psk" ? flags.slice(0, -2) : flags;
    assertFails(await run("server", [...given, ...args]), 2, message);
  }
  // An address may come, and a name be known, later.
  for (
    const [host, message] of [
      ["no.such.invalid", /Cannot listen on no\.such\.invalid:5001: /],
      ["192.0.2.1", /192\.0\.2\.1:5001: this machine has no such/],
    ] as const
  ) assertFails(await run("server", [...flags, "--host", host]), 1, message);
});

test("server: an encrypted key and its passphrase", async (dir) => {
  const encrypted = `${dir}/encrypted.pem`;
  const passphrase = `${dir}/passphrase.txt`;
  await writeKey(passphrase, "open sesame\n");
  await printed([
    ...["openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc"],
    ...["-in", `${dir}/key.pem`, "-passout", `file:${passphrase}`],
    ...["-out", encrypted],
  ]);
  await Deno.chmod(encrypted, 0o600);
  const flags = [
    ...["--cert", `${dir}/cert.pem`, "--psk", `${dir}/psk.txt`],
    ...["--key", encrypted],
  ];
  const file = ["--passphrase-file", passphrase];
  {
    await using server = await TestServer.start([...flags, ...file]);
    const { text } = await run("client", [
      ...clientFlags(dir, server.port),
      "hi",
    ]);
    assertEquals(text, "HI\n");
  }
  assertFails(await run("server", flags), 2, /give --passphrase-file/);
  await writeKey(passphrase, "wrong\n");
  const result = await run("server", [...flags, ...file]);
  assertFails(result, 2, /passphrase is wrong/);
});

testUnless(reason, "--help and --version exit 0", async () => {
  for (const program of ["server", "client", "certs"] as const) {
    const help = await run(program, ["--help"]);
    assertEquals((await run(program, ["-h"])).text, help.text);
    assertMatch(help.text, /^Usage: deno task /);
    assertEquals(help.text.split("\n").filter((line) => line.length > 80), []);
    const version = await run(program, ["--version"]);
    assertMatch(version.text, /^innerlock \d+\.\d+\.\d+\n$/);
    assertEquals([help.code, version.code], [0, 0]);
  }
});

const terminal = reason ??
  lacksProgram(["script", "--version"], "script (bsdutils)");

test("client: at a terminal, q or Ctrl-D leaves", async (dir, port) => {
  for (const leave of ["q\n", "\x04"]) {
    await using client = new Terminal("client", clientFlags(dir, port));
    const to = `connected to localhost:${port} as default`;
    await client.expect(`${to}; q or Ctrl-D leaves\r\n`);
    for (const [line, reply] of [["hello", "HELLO"], ["straße", "STRASSE"]]) {
      await client.expect("> ");
      await client.type(line + "\n");
      await client.expect(`${reply}\r\n`);
    }
    await client.expect("> ");
    await client.type(leave);
    const { code, rest } = await client.end();
    assertMatch(rest, /\n$/);
    assertEquals(code, 0);
  }
}, terminal);

test(
  "client: at a terminal, lines are edited and called up again",
  async (dir, port) => {
    const [left, up, backspace] = ["\x1b[D", "\x1b[A", "\x7f"];
    await using client = new Terminal("client", clientFlags(dir, port));
    await client.expect("> ");
    await client.type(`straße${left}${left}${backspace}x\n`);
    await client.expect("STRXSSE\r\n");
    await client.type("other\n");
    await client.expect("OTHER\r\n");
    await client.type(`${up}${up}y\n`);
    await client.expect("STRXSSEY\r\n");
    await client.type("\x04");
    assertEquals((await client.end()).code, 0);
  },
  terminal,
);

/** A line of its own begins where another has ended, or was wiped. */
const LINE_START = String.raw`(?:^|\n|\x1b\[0J)`;

test(
  "client: at a terminal, --trace keeps clear of what is typed",
  async (dir, port) => {
    const flags = [...clientFlags(dir, port), "--trace"];
    await using client = new Terminal("client", flags);
    let shown = await client.expect("> \x1b");
    await client.type("hello\n");
    shown += await client.expect("HELLO\r\n");
    await client.type("q\n");
    shown += (await client.end()).rest;
    const arrow = "(?:->|<-) #";
    assertEquals(
      shown.match(new RegExp(LINE_START + arrow, "g"))?.length,
      shown.match(new RegExp(arrow, "g"))!.length,
    );
  },
  terminal,
);

test(
  "client: at a terminal, an error has its own line",
  async (dir, port, server) => {
    await using client = new Terminal("client", clientFlags(dir, port));
    await client.expect("> ");
    await client.type("half a line");
    await client.expect("half a line");
    await server.stop();
    assertEquals(await client.end(), {
      code: 1,
      rest:
        "\r\nclient: The peer cut the connection; the server's log may say " +
        "why\r\n",
    });
  },
  terminal,
);

testUnless(
  reason ?? terminal,
  "client: at a terminal, an unfinished line is what is asked with",
  withCerts(async (dir) => {
    const read = (file: string) => Deno.readTextFile(`${dir}/${file}`);
    const [cert, key] = [await read("cert.pem"), await read("key.pem")];
    const listener = listen({ port: 0, cert, key, psk: await read("psk.txt") });
    const { port } = listener.addr;
    await using client = new Terminal("client", clientFlags(dir, port));
    const [channel] = await take(listener);
    const say = (text: string) =>
      channel!.write(new TextEncoder().encode(text));
    await say("log");
    await client.expect("\x1b[0Jlog");
    await say("in: ");
    await client.expect("\x1b[0Jlogin: ");
    await client.type("me\n");
    await client.expect("me\r\r\n");
    await say("long ".repeat(100));
    await client.expect("long ".repeat(100));
    await say("welcome\n");
    await client.expect("welcome\r\n\x1b[1G\x1b[0J> ");
    await channel!.closeWrite();
    await client.expect(
      "the server has ended its side; q or Ctrl-D leaves\r\n",
    );
    await client.type("q\n");
    const buffer = new Uint8Array(10);
    assertEquals(await channel!.read(buffer), 3);
    assertEquals(await channel!.read(buffer), null);
    assertEquals((await client.end()).code, 0);
    await channel!.closed;
    listener.close();
  }),
);

/** The first channel of a listener. */
async function take(listener: Listener): Promise<Channel[]> {
  for await (const channel of listener) return [channel];
  return [];
}

test("client: a signal leaves the terminal as it was", async (dir, port) => {
  const redirect = `< /dev/tty & echo $! > ${dir}/pid; wait $!; stty -a`;
  const flags = clientFlags(dir, port);
  await using client = new Terminal("client", flags, redirect);
  await client.expect("> \x1b");
  Deno.kill(Number(await Deno.readTextFile(`${dir}/pid`)), "SIGTERM");
  const { rest } = await client.end();
  assertMatch(rest, / icanon /);
  assertMatch(rest, / echo /);
}, terminal);

test("client: it says so if the server replaces bytes", async (dir, port) => {
  const flags = clientFlags(dir, port);
  const binary = Uint8Array.of(0x61, 0xff, 0xef, 0xbf, 0xbd);
  const { code, text, stderr } = await run("client", flags, binary);
  assertEquals([code, text], [0, "A\ufffd\ufffd"]);
  assertEquals(
    stderr,
    "client: the server replaced bytes that are not text; for binary data, start it with " +
      "--echo\n",
  );
  assertEquals((await run("client", flags, "a\ufffd")).stderr, "");
});

/** Waits until a terminal, whose name is in a file, shows no more what is typed. */
async function echoIsOff(file: string): Promise<void> {
  const script =
    'until stty -a -F "$(cat "$0")" | grep -q " -echo "; do :; done';
  await printed(["sh", "-c", script, file]);
}

test(
  "gen_certs: --passphrase asks twice; the server asks once",
  async (dir) => {
    const out = `${dir}/new`;
    {
      // Deno asks first and turns the echo off then.
      await using certs = new Terminal(
        "certs",
        ["--out", out, "--passphrase"],
        `< /dev/tty & tty > ${dir}/tty; wait $!`,
      );
      await certs.expect("assphrase");
      await echoIsOff(`${dir}/tty`);
      await certs.type("open sesame\n");
      await certs.expect("Again");
      await echoIsOff(`${dir}/tty`);
      await certs.type("open sesame\n");
      const { code, rest } = await certs.end();
      assertEquals(code, 0, rest);
      assertEquals(rest.includes("sesame"), false);
    }
    assertMatch(
      await Deno.readTextFile(`${out}/key.pem`),
      /^-+BEGIN ENCRYPTED/,
    );
    for (
      const [passphrase, answer] of [["open sesame", "listening on"], [
        "wrong",
        "passphrase is wrong",
      ]]
    ) {
      await using server = new Terminal("server", [
        ...serverFlags(out),
        ...["--port", "0"],
      ]);
      await server.expect("assphrase");
      await server.type(passphrase + "\n");
      await server.expect(answer!);
      await server.type("\x03");
    }
  },
  terminal,
);

test("server: SIGHUP needs no passphrase that was typed", async (dir) => {
  const key = await Deno.readTextFile(`${dir}/key.pem`);
  await writeKey(`${dir}/key.pem`, await encryptKey(key, "open sesame"));
  const flags = [
    ...[...serverFlags(dir), "--port", "0"],
    ...["--log-format", "json"],
  ];
  const redirect = `< /dev/tty & echo $! > ${dir}/pid; wait`;
  await using server = new Terminal("server", flags, redirect);
  await server.expect("assphrase");
  await server.type("open sesame\n");
  await server.expect("listening on");
  const pid = Number(await Deno.readTextFile(`${dir}/pid`));
  Deno.kill(pid, "SIGHUP");
  await server.expect('"event":"reload","message":"');
  Deno.kill(pid, "SIGTERM");
  assertMatch((await server.end()).rest, /^certificate and keys read again/);
}, terminal);

test("gen_certs: two different passphrases make nothing", async (dir) => {
  const out = `${dir}/new`;
  await using certs = new Terminal("certs", ["--out", out, "--passphrase"]);
  await certs.expect("assphrase");
  await certs.type("one\n");
  await certs.expect("Again");
  await certs.type("two\n");
  assertEquals((await certs.end()).code, 2);
  assertEquals([...Deno.readDirSync(out)], []);
}, terminal);

test("client: stdin closed early still gets the reply", async (dir, port) => {
  const child = start("client", clientFlags(dir, port));
  await child.stdin.close();
  const { code, stdout, stderr } = await child.output();
  assertEquals([code, stdout.length, stderr.length], [0, 0, 0]);
});

test(
  "client: a stdin that cannot be read exits 1 and says so",
  async (dir, port) => {
    const { code, stderr } = await outputOf("sh", {
      args: [
        "-c",
        '"$@" < /',
        "sh",
        ...command("client", clientFlags(dir, port)),
      ],
      env: { NO_COLOR: "1" },
    });
    const text = new TextDecoder().decode(stderr);
    assertMatch(text, /^client: Cannot read stdin: .*directory.*\n$/);
    assertEquals(code, 1);
  },
);
