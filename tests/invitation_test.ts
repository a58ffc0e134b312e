import { createHash } from "node:crypto";
import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { UsageError } from "../cli/advice/errors.ts";
import {
  certificatesOf,
  describeCertificate,
} from "../cli/keys/certificates.ts";
import {
  formatInvitation,
  isBegun,
  isWhole,
  MAX_TEXT,
  parseInvitation,
} from "../cli/keys/invitation.ts";
import { printed } from "./limit.ts";
import { ask } from "./plain_peers.ts";
import {
  command,
  MAY_RUN,
  type Result,
  run,
  serverFlags,
  start,
  Terminal,
  TestEntrance,
  TestServer,
} from "./programs.ts";
import {
  lacksPermissions,
  lacksProgram,
  testInFolder,
} from "./requirements.ts";

/** For localhost; nothing here asks whether it is in date. */
const CERT = `-----BEGIN CERTIFICATE-----
MIIBojCCAUigAwIBAgIIWrczq1xiLSwwCgYIKoZIzj0EAwIwFDESMBAGA1UEAwwJ
aW5uZXJsb2NrMB4XDTI2MTEzMDA5MjY0OVoXDTI3MTEzMDEwMjY0OVowFDESMBAG
A1UEAwwJaW5uZXJsb2NrMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEwB9Y7Sw6
IkgqioY6w6P55ZVhzuI5EuanUMXH1+CO4QoBqJ1+LBosL3UVRWHxUYJIRsuKhMjJ
jvK/F6i7E7PEpqOBgzCBgDAsBgNVHREEJTAjgglsb2NhbGhvc3SHBH8AAAGHEAAA
AAAAAAAAAAAAAAAAAAEwDAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMCB4AwEwYD
VR0lBAwwCgYIKwYBBQUHAwEwHQYDVR0OBBYEFIrlzi5XnEpqY+b1Ys0ZKL5+Tg+1
MAoGCCqGSM49BAMCA0gAMEUCIDdgxtPt1V9Z/uXCyePjyOXb6jGXB6Y3Y3kJmIYR
6sxjAiEAj5WvmGXYcx9hrmWPN62qqhq+bPYCb3SS3cngGL9dUxM=
-----END CERTIFICATE-----
`;
const INVITATION = {
  host: "server.example",
  port: 5001,
  identity: "alice@db",
  key: "0f".repeat(32),
  cert: CERT,
};
const LINE = formatInvitation(INVITATION);

Deno.test("parseInvitation: what was said, in a line below 700 characters", () => {
  assertMatch(LINE, /^innerlock-1\.[\w-]+\.[0-9a-f]{8}$/);
  assertEquals(LINE.length < 700, true, `${LINE.length}`);
  assertEquals(parseInvitation(LINE), INVITATION);
  const chain = { ...INVITATION, host: "fd00::1", cert: CERT.repeat(9) };
  assertEquals(parseInvitation(formatInvitation(chain)), chain);
});

const wrap = (text: string, width: number, end: string) =>
  text.replaceAll(new RegExp(`.{${width}}`, "g"), `$&${end}`);
const quote = (text: string, mark = "> ") => text.replaceAll(/^/gm, mark);

/** What mail programs and people make of a line. */
const LETTERS: Record<string, (line: string) => string> = {
  "spaces around it": (line) => `  ${line}\n\n`,
  "wrapped": (line) => wrap(line, 40, "\r\n"),
  "wrapped and indented": (line) => `\n    ${wrap(line, 72, "\n    ")}\n\n`,
  "words around it": (line) =>
    `Hi Alice,\n\nhere it is: ${line} (keep it secret).\n\n-- \nBob, innerlock`,
  "a file's name before it": (line) =>
    `Install innerlock-0.1.0.tgz first.\n\nThen join: ${line}`,
  "a sentence's end behind it": (line) => `${line}.`,
  "quoted": (line) => quote(`Hi,\n\n${wrap(line, 70, "\n")}\n\nBob`),
  "quoted twice": (line) => quote(quote(wrap(line, 70, "\n")), ">"),
  "quoted, CR LF": (line) =>
    quote(wrap(line, 70, "\n")).replaceAll("\n", "\r\n"),
  "wrapped again when quoted": (line) =>
    wrap(line, 72, "\n").replaceAll(/^.{68}/gm, "> $&\n> "),
  "twice": (line) => `${line}\n${line}`,
  "twice, one of them cut off": (line) => `${line.slice(0, 300)}\n\n${line}\n`,
  "twice without anything between": (line) => line + line,
  "an answer below it": (line) => `Thanks!\n\n${quote(wrap(line, 70, "\n"))}`,
  "quoted-printable": (line) => `Hi,\n${wrap(line, 75, "=\r\n")}\r\nBob`,
  "quoted-printable, with codes": (line) =>
    `Gr=C3=BC=C3=9Fe, ${line.replaceAll(".", "=2E").replaceAll("-", "=2D")}`,
  "quoted and quoted-printable": (line) =>
    quote(wrap(line, 70, "=\n")).replaceAll("\n> ", "\n"),
  "broken behind its hyphens": (line) => line.replaceAll("-", "-\n"),
  "with what nobody sees": (line) =>
    `\ufeff${wrap(line, 60, "\u200b")}\u00a0\u00ad`,
};

for (const [name, write] of Object.entries(LETTERS)) {
  Deno.test(`parseInvitation: finds it: ${name}`, () => {
    const letter = write(LINE);
    assertEquals(parseInvitation(letter), INVITATION);
    assertEquals([isBegun(letter), isWhole(letter)], [true, true]);
  });
}

Deno.test("parseInvitation: each character counts", () => {
  for (let i = 0; i < LINE.length; i++) {
    const other = LINE[i] === "0" ? "1" : "0";
    const flipped = LINE.slice(0, i) + other + LINE.slice(i + 1);
    assertThrows(() => parseInvitation(flipped), UsageError);
    assertThrows(() => parseInvitation(LINE.slice(0, i)), UsageError);
    assertThrows(() => parseInvitation(LINE.slice(i + 1)), UsageError);
    assertEquals(isWhole(LINE.slice(0, i)), false);
  }
});

/** A line that holds these bytes. */
function sealed(bytes: Uint8Array): string {
  const payload = bytes.toBase64({ alphabet: "base64url", omitPadding: true });
  const sum = createHash("sha256").update(payload).digest("hex").slice(0, 8);
  return `innerlock-1.${payload}.${sum}`;
}

/** The bytes of a line. */
function opened(line: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.fromBase64(line.split(".")[1]!, { alphabet: "base64url" });
}

Deno.test("formatInvitation: a key that is no string is none", () => {
  for (const key of [[INVITATION.key], { toString: () => INVITATION.key }]) {
    const said = { ...INVITATION, key: key as unknown as string };
    assertThrows(() => formatInvitation(said), TypeError);
  }
});

Deno.test("parseInvitation: says what is wrong, and nothing of what is in it", () => {
  const [, payload, sum] = LINE.split(".");
  const said = (change: Partial<typeof INVITATION>) =>
    formatInvitation({ ...INVITATION, ...change });
  const bytes = opened(LINE);
  for (
    const [line, why] of [
      ["", "This is not an invitation"],
      ["hello", "This is not an invitation"],
      ["Install innerlock-0.1.0.tgz\n", "This is not an invitation"],
      [`innerlock-2.${payload}.${sum}`, "has version 2, but this program"],
      [`innerlock-1.${payload}`, "is damaged; copy the whole line"],
      [`innerlock-1.${sum}.${payload}`, "is damaged"],
      [LINE + said({ port: 7 }), "There are several invitations"],
      [said({ port: 0 }), "is damaged"],
      [said({ host: "a b" }), "is damaged"],
      [said({ host: "\x1b[2J" }), "is damaged"],
      [said({ identity: "" }), "is damaged"],
      [said({ identity: "a\nb" }), "is damaged"],
      [said({ key: "0f" }), "is damaged"],
      [sealed(new Uint8Array(0)), "is damaged"],
      [sealed(bytes.subarray(0, 60)), "is damaged"],
      [sealed(bytes.subarray(0, -1)), "is damaged"],
      [sealed(new Uint8Array([...bytes, 0])), "is damaged"],
      // As many as there is room for say nothing, and one more is too much.
      [
        sealed(new Uint8Array([...bytes, ...new Uint8Array(40_000)])),
        "is damaged",
      ],
    ] as const
  ) {
    const error = assertThrows(() => parseInvitation(line), UsageError, why);
    assertEquals(error.message.includes("0f0f"), false);
  }
  assertThrows(
    () => said({ cert: CERT.repeat(1000) }),
    UsageError,
    "There are too many certificates",
  );
});

Deno.test("parseInvitation: whatever it holds, there is an answer or one line", () => {
  const bytes = opened(LINE);
  for (let at = 0; at < bytes.length; at++) {
    for (const value of [0, 0x30, 0x7f, 0x80, 0x84, 0xff]) {
      const other = bytes.slice();
      other[at] = value;
      try {
        const { cert } = parseInvitation(sealed(other));
        // What it says can be read by whoever takes it.
        describeCertificate(certificatesOf("the invitation", cert));
      } catch (error) {
        const isOurs = error instanceof UsageError;
        assertEquals(isOurs, true, `${at}: ${value}: ${error}`);
        assertMatch((error as Error).message, /^[\x20-\x7e]{1,200}$/);
      }
    }
  }
});

Deno.test("parseInvitation: a text of any shape is looked through in one go", () => {
  for (
    const piece of [
      ..."= > . - i \n \r\n 0 innerlock- innerlock-1. innerlock-1.a.".split(
        " ",
      ),
      ...["=    ", ">\t> ", " innerlock-1.0\n", ".0 1 2 3 ", "innerlock- "],
    ]
  ) {
    // One of which each part were looked at again and again would take minutes.
    const text = piece.repeat(MAX_TEXT / piece.length);
    assertThrows(() => parseInvitation(text), UsageError);
    assertThrows(() => parseInvitation(text + piece), UsageError);
  }
});

const reason = lacksPermissions(...MAY_RUN);

/** A test with a folder for a server, with its certificate, and one for a client. */
function test(
  name: string,
  fn: (folders: { server: string; client: string }) => Promise<void>,
  otherwise?: string,
): void {
  testInFolder(reason ?? otherwise, `invitation: ${name}`, async (dir) => {
    const folders = { server: `${dir}/server`, client: `${dir}/client` };
    await Deno.mkdir(folders.client);
    await succeeds(run("certs", ["--out", folders.server]));
    await fn(folders);
  });
}

async function succeeds(result: Promise<Result>): Promise<Result> {
  const { code, stderr } = await result;
  assertEquals([code, code === 0 ? "" : stderr], [0, ""]);
  return await result;
}

async function fails(result: Promise<Result>, why: RegExp): Promise<void> {
  const { code, text, stderr } = await result;
  assertEquals([code, text, stderr.split("\n").length], [2, "", 2], stderr);
  assertMatch(stderr, why);
}

/** A client's own folder lies in the one where it works. */
const own = (cwd: string) => ({ XDG_CONFIG_HOME: `${cwd}/config` });

/** Runs a program in a client's folder. */
const at = (
  cwd: string,
  task: "certs" | "client",
  args: string[],
  input = "",
) => run(task, args, input, own(cwd), cwd);

const ONE_LINE = /^innerlock-1\.[\w-]+\.[0-9a-f]{8}\n$/;
const mode = (path: string) => (Deno.statSync(path).mode! & 0o777).toString(8);

test("one line joins a running server, and no flag is needed then", async ({ server, client }) => {
  await using running = await TestServer.start(serverFlags(server));
  const port = ["--port", String(running.port)];
  const invited = await succeeds(
    run("certs", ["--out", server, "--invite", "alice", ...port]),
  );
  assertMatch(invited.text, ONE_LINE);
  assertMatch(invited.stderr, /psk\.txt: made a key for alice\n/);
  assertMatch(
    invited.stderr,
    new RegExp(`alice to localhost:${running.port}; .* can speak as alice`),
  );
  await running.logged("certificate and keys read again");
  const joined = await succeeds(
    at(client, "certs", ["--join"], invited.text),
  );
  assertMatch(
    joined.text,
    new RegExp(`joined localhost:${running.port} as alice`),
  );
  const files = ["", "/cert.pem", "/psk.txt", "/server.json"];
  assertEquals(files.map((name) => mode(`${client}/config/innerlock${name}`)), [
    "700",
    "600",
    "600",
    "600",
  ]);
  const said = await succeeds(at(client, "client", ["hello"]));
  assertEquals(said.text, "HELLO\n");
  {
    const listen = start("client", ["--listen", "0"], own(client), client);
    await using entrance = await TestEntrance.of(listen);
    assertEquals(await ask(entrance.address, "carried"), "CARRIED");
  }
  // A key of one service alone, and no other, opens no other.
  const again = await succeeds(
    run("certs", ["--out", server, "--invite", "bob@db", ...port]),
  );
  await running.logged("certificate and keys read again");
  const as = ["--join", "--as", "db"];
  await succeeds(at(client, "certs", as, again.text));
  const refused = await at(client, "client", ["--server", "db", "hello"]);
  assertEquals([refused.code, refused.text], [1, ""]);
  // The only identity is used where nothing says which.
  await Deno.rename(
    `${client}/config/innerlock/server.json`,
    `${client}/server.json`,
  );
  assertEquals(
    (await succeeds(at(client, "client", [...port, "x"]))).text,
    "X\n",
  );
  // The one that joined is used where there are more.
  await Deno.rename(
    `${client}/server.json`,
    `${client}/config/innerlock/server.json`,
  );
  const more = `default:${"0f".repeat(32)}\n`;
  await Deno.writeTextFile(`${client}/config/innerlock/psk.txt`, more, {
    append: true,
  });
  assertEquals((await succeeds(at(client, "client", ["x"]))).text, "X\n");
});

test("what is to be tried after it works, wherever it was put", async ({ server, client }) => {
  await using running = await TestServer.start(serverFlags(server));
  const port = ["--port", String(running.port)];
  const { text } = await succeeds(
    run("certs", ["--out", server, "--invite", "alice", ...port]),
  );
  await running.logged("certificate and keys read again");
  for (const where of [["--out", "keys"], ["--as", "office"], []]) {
    const joined = await succeeds(
      at(client, "certs", ["--join", ...where], text),
    );
    const [, flags] = /^try it: deno task client (.*)$/m.exec(joined.text)!;
    await succeeds(at(client, "client", flags!.split(" ")));
  }
});

test("a server that has not been joined: how to join it", async ({ client }) => {
  for (
    const [flags, join] of [[[], "--join'"], [
      ["--server", "office"],
      "--join --as office'",
    ]] as const
  ) {
    await fails(
      at(client, "client", [...flags, "hello"]),
      new RegExp(
        `Cannot read ${client}/certs/\\S*psk.txt: there is no such file; nothing is ` +
          `in ${client}/config/innerlock\\S* either; join .* 'deno task certs ${join}`,
      ),
    );
  }
});

test("two servers side by side, by files, and one again", async ({ server, client }) => {
  const file = `${client}/line`;
  const invite = (identity: string, ...more: string[]) =>
    succeeds(run("certs", [
      ...["--out", server, "--invite", identity, "--invite-file", file],
      ...more,
    ]));
  const join = (...args: string[]) =>
    succeeds(at(client, "certs", ["--join", "--invite-file", file, ...args]));
  const settings = async (folder: string) =>
    JSON.parse(
      await Deno.readTextFile(
        `${client}/config/innerlock${folder}/server.json`,
      ),
    );
  const invited = await invite("alice");
  assertEquals([invited.text, mode(file)], ["", "600"]);
  assertMatch(await Deno.readTextFile(file), ONE_LINE);
  await join();
  await Deno.chmod(file, 0o644);
  await invite("bob", "--port", "7");
  assertEquals(mode(file), "600");
  await join("--as", "office");
  assertEquals([await settings(""), await settings("/office")], [
    { host: "localhost", port: 5001, identity: "alice" },
    { host: "localhost", port: 7, identity: "bob" },
  ]);
  await invite("carol", "--port", "8", "--host", "127.0.0.1");
  const keys = `${client}/config/innerlock/office/psk.txt`;
  await Deno.chmod(keys, 0o644);
  await join("--as", "office");
  assertEquals(mode(keys), "600");
  assertEquals(await settings("/office"), {
    host: "127.0.0.1",
    port: 8,
    identity: "carol",
  });
  const psk = await Deno.readTextFile(keys);
  assertMatch(psk, /^carol:[0-9a-f]{64}\n$/);
  const { code, stderr } = await at(client, "client", [
    ...["--server", "office", "--port", "1", "hello"],
  ]);
  assertEquals(code, 1);
  assertMatch(stderr, /Cannot connect to 127\.0\.0\.1:1: /);
});

test("an IPv6 address stands in brackets", async ({ server, client }) => {
  const flags = ["--out", server, "--host", "fd00::1", "--invite", "alice"];
  const invited = await succeeds(run("certs", flags));
  assertMatch(invited.stderr, /alice to \[fd00::1\]:5001; /);
  const joined = await succeeds(at(client, "certs", ["--join"], invited.text));
  assertMatch(joined.text, /^joined \[fd00::1\]:5001 as alice/);
});

test("nothing is joined in a server's folder, or by a bad line", async ({ server, client }) => {
  const flags = ["--out", server, "--invite", "alice"];
  const { text } = await succeeds(run("certs", flags));
  const join = ["--join", "--out"];
  const own = run("certs", [...join, server], text);
  await fails(
    own,
    /belongs to a server, because it has a key\.pem; .*--as NAME/,
  );
  await Deno.remove(`${server}/key.pem`);
  const keys = run("certs", [...join, server], text);
  await fails(
    keys,
    /belongs to a server, because it has the keys of several clients; /,
  );
  for (
    const [input, why] of [
      ["", /This is not an invitation; /],
      [text.slice(0, -5), /This invitation is damaged; /],
      [
        text.replace("-1.", "-9."),
        /has version 9, but this program knows only version 1/,
      ],
    ] as const
  ) await fails(at(client, "certs", ["--join"], input), why);
  const missing = ["--join", "--invite-file", "none"];
  await fails(at(client, "certs", missing), /Cannot read none: there is no/);
  const slash = ["--join", "--as", "../x"];
  await fails(
    at(client, "certs", slash, text),
    /A server's name takes letters/,
  );
  const both = ["--join", "--invite", "bob"];
  await fails(at(client, "certs", both, text), /--join does not go with --inv/);
  assertEquals(Array.from(Deno.readDirSync(client)), []);
});

test("--join writes all files or none, and names the one that it cannot write", async ({ server, client }) => {
  const flags = ["--out", server, "--invite", "alice"];
  const { text } = await succeeds(run("certs", flags));
  await Deno.mkdir(`${client}/certs/server.json`, { recursive: true });
  await fails(
    at(client, "certs", ["--join", "--out", "certs"], text),
    /^certs: Cannot write certs\/server\.json: it is a folder\n$/,
  );
  const left = Array.from(Deno.readDirSync(`${client}/certs`));
  assertEquals(left.map(({ name }) => name), ["server.json"]);
});

test("--join: hostile input, however much, ends in one line", async ({ server, client }) => {
  const flags = ["--out", server, "--invite", "alice"];
  const { text } = await succeeds(run("certs", flags));
  const noise = crypto.getRandomValues(new Uint8Array(60_000));
  for (
    const [input, why] of [
      [noise, /This is not an invitation/],
      ["\x1b[2J\x07\0".repeat(1000), /This is not an invitation/],
      ["x".repeat(3_000_000), /too long for an invitation, 1048576 characters/],
      [`innerlock-${"\x1b"}.x.00000000`, /This is not an invitation/],
      [`innerlock-${"9".repeat(10_000)}.x.00000000`, /This is not an invi/],
      ["[".repeat(500_000), /This is not an invitation/],
      [text.replace(".", `.${"AAAA".repeat(100_000)}`), /is damaged/],
    ] as const
  ) {
    const result = await run(
      "certs",
      ["--join", "--out", `${client}/c`],
      input,
    );
    assertEquals([result.code, result.text], [2, ""]);
    assertMatch(result.stderr, /^certs: [\x20-\x7e]{1,300}\n$/);
    assertMatch(result.stderr, why);
  }
  // One that never ends, a folder, and one that has the line.
  for (
    const [file, why] of [
      ["/dev/zero", /too long for an invitation|Cannot read \/dev\/zero/],
      [client, /Cannot read \S+: it is a folder/],
    ] as const
  ) {
    const join = ["--join", "--out", `${client}/c`, "--invite-file", file];
    await fails(run("certs", join), why);
  }
  assertEquals(Array.from(Deno.readDirSync(client)), []);
});

test("an invitation that nobody could use is not made", async ({ server }) => {
  const invite = (...flags: string[]) =>
    run("certs", ["--out", server, "--invite", "alice", ...flags]);
  const psk = await Deno.readTextFile(`${server}/psk.txt`);
  for (
    const [host, why] of [
      [
        "*.example.com",
        /No client can dial \*\.example\.com; .* another --host/,
      ],
      [
        "fe80::1",
        /No client can dial fe80::1 without a zone, .* another --host/,
      ],
      ["0.0.0.0", /by which clients reach the server, not 0\.0\.0\.0/],
      ["0::0", /by which clients reach the server, not 0::0/],
    ] as const
  ) await fails(invite("--host", host), why);
  assertEquals(await Deno.readTextFile(`${server}/psk.txt`), psk);
  const local = await succeeds(invite());
  assertMatch(local.stderr, /only this machine can use it: localhost means/);
  const hosts = ["*.example.com", "fe80::1", "db.example.com"];
  const flags = hosts.flatMap((host) => ["--host", host]);
  const { stderr } = await succeeds(invite(...flags));
  assertMatch(stderr, /alice to db\.example\.com:5001/);
  assertEquals(stderr.includes("only this machine"), false);
  // Afterwards the certificate says it.
  assertMatch(
    (await succeeds(invite())).stderr,
    /alice to db\.example\.com:5001/,
  );
});

test("certs asks whether an e-mail address is meant; --service", async ({ server }) => {
  const certs = (...flags: string[]) =>
    run("certs", ["--out", server, ...flags]);
  const psk = await Deno.readTextFile(`${server}/psk.txt`);
  for (const flag of ["--invite", "--identity"]) {
    await fails(
      certs(flag, "alice@corp.example"),
      new RegExp(
        String
          .raw`^certs: Is corp\.example a service of yours\? Then say ${flag} alice --service corp\.example; .* say ${flag} alice\n$`,
      ),
    );
    await fails(certs(flag, "alice@x", "--service", "db"), /alice@x@db/);
  }
  await fails(certs("--service", "db"), /--service goes with --invite or/);
  assertEquals(await Deno.readTextFile(`${server}/psk.txt`), psk);
  for (
    const [flags, identity] of [
      [["alice", "--service", "corp.example"], "alice@corp.example"],
      [["bob", "--service", "db"], "bob@db"],
      [["carol@db"], "carol@db"],
    ] as const
  ) {
    const { text } = await succeeds(certs("--invite", ...flags));
    assertEquals(parseInvitation(text).identity, identity);
  }
  await succeeds(
    certs("--identity", "dan", "--identity", "eve", "--service", "db"),
  );
  assertMatch(
    (await succeeds(certs("--list"))).text,
    /^dan@db: the service db\neve@db: the service db$/m,
  );
});

test("a host that cannot be found, or trusted, is told", async ({ server, client }) => {
  const invite = ["--renew", "--invite", "alice", "--host", "no.such.invalid"];
  const { text } = await succeeds(run("certs", ["--out", server, ...invite]));
  await succeeds(at(client, "certs", ["--join"], text));
  const { code, stderr } = await at(client, "client", ["hello"]);
  assertEquals(code, 1);
  assertMatch(
    stderr,
    /no\.such\.invalid:5001: (there is no such name|the name server does not)/,
  );
});

test("a CA's certificate goes with its chain or not at all", async ({ server }) => {
  const openssl = (...args: string[]) =>
    printed(["openssl", ...args], { cwd: server });
  const self = ["-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=CA"];
  await openssl("req", ...self, "-keyout", "ca.key", "-out", "ca.pem");
  await succeeds(run("certs", ["--out", server, "--csr"]));
  await openssl(
    ...["x509", "-req", "-in", "cert.csr", "-CA", "ca.pem", "-CAkey", "ca.key"],
    ...["-CAcreateserial", "-copy_extensions", "copy", "-out", "cert.pem"],
  );
  const flags = ["--out", server, "--invite", "alice"];
  const lacks = /cert\.pem lacks the certificate of its CA, .*; append it/;
  await fails(run("certs", flags), lacks);
  const ca = await Deno.readTextFile(`${server}/ca.pem`);
  await Deno.writeTextFile(`${server}/cert.pem`, ca, { append: true });
  const { text } = await succeeds(run("certs", flags));
  assertEquals(parseInvitation(text).cert.match(/BEGIN CERT/g)?.length, 2);
});

const noTerminal = lacksProgram(["script", "--version"], "script");

test(
  "at a terminal it is pasted, however long, and not shown",
  async ({ client }) => {
    const cert = (await Deno.readTextFile(`${client}/../server/cert.pem`))
      .repeat(9);
    const line = formatInvitation({ ...INVITATION, cert });
    assertEquals(line.length > 4096, true);
    for (
      const [name, pasted] of [
        ["whole", line],
        ["wrapped", line.replaceAll(/.{76}/g, "$&\r")],
        ["CR LF", line.replaceAll(/.{76}/g, "$&\r\n")],
        [
          "a letter",
          `Hi,\r\rinstall innerlock-0.1.0.tgz.\r\r\rhere it is:\r> ${
            line.slice(0, 60)
          }\r> ${line.slice(60)}`,
        ],
      ] as const
    ) {
      const flags = ["--join", "--out", `${client}/${name}`];
      await using terminal = new Terminal("certs", flags);
      await terminal.expect("(it is not shown): ");
      await terminal.type(pasted + "\r");
      const shown = await terminal.expect("joined ");
      assertEquals(shown.trim(), "joined", name);
      assertEquals((await terminal.end()).code, 0);
    }
  },
  noTerminal,
);

test(
  "at a terminal an empty line, Ctrl-D and Ctrl-C end it",
  async ({ client }) => {
    for (
      const [keys, code, why] of [
        ["\r", 2, "This is not an invitation"],
        [`${LINE.slice(0, 90)}\r\r`, 2, "This invitation is damaged"],
        [`${LINE}x\x7f\x04`, 0, "joined server.example:5001"],
        ["abc\x03", 130, "after"],
      ] as const
    ) {
      await using terminal = new Terminal("shell");
      const flags = ["--join", "--out", `${client}/certs`];
      const words = command("certs", flags).join(" ");
      await terminal.type(`${words}; echo after $?; stty | grep echo; exit\n`);
      await terminal.expect("(it is not shown): ");
      await terminal.type(keys);
      await terminal.expect(why);
      // The shell's terminal is as it was: it shows what is typed.
      const { rest } = await terminal.end();
      assertMatch(`after${rest}`, new RegExp(`after ${code}`));
      assertEquals(/-echo\b|-icanon/.test(rest), false, rest);
    }
  },
  noTerminal,
);
