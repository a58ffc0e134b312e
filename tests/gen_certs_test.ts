import { X509Certificate } from "node:crypto";
import { assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { parsePsk } from "../lib/mod.ts";
import { parseInvitation } from "../cli/keys/invitation.ts";
import { withFiles } from "../cli/keys/replace.ts";
import { printed } from "./limit.ts";
import { command, MAY_RUN, run, spawn, start } from "./programs.ts";
import { lacksPermissions, testInFolder } from "./requirements.ts";

const reason = lacksPermissions(...MAY_RUN);

function test(
  name: string,
  fn: (dir: string, read: (file: string) => Promise<string>) => Promise<void>,
): void {
  testInFolder(
    reason,
    `gen_certs: ${name}`,
    (dir) => fn(dir, (file) => Deno.readTextFile(`${dir}/${file}`)),
  );
}

const openssl = (...args: string[]) => printed(["openssl", ...args]);

const files = (dir: string) =>
  Array.from(Deno.readDirSync(dir), ({ name }) => name).sort();
const mode = (path: string) => (Deno.statSync(path).mode! & 0o777).toString(8);

test("makes a set, and keeps it when run again", async (dir, read) => {
  const first = await run("certs", ["--out", dir]);
  assertEquals([first.code, first.stderr], [0, ""]);
  assertMatch(
    first.text,
    /key SHA-256 [0-9A-F:]{95}, certificate valid until \d{4}-/,
  );
  assertEquals(files(dir), ["cert.pem", "key.pem", "psk.txt"]);
  assertEquals(mode(`${dir}/key.pem`), "600");
  assertEquals(mode(`${dir}/psk.txt`), "600");
  assertEquals([...parsePsk(await read("psk.txt")).keys()], ["default"]);
  const before = await Promise.all(files(dir).map(read));
  const second = await run("certs", ["--out", dir]);
  assertEquals(second.code, 0);
  assertMatch(second.text, /valid until \d{4}-\d\d-\d\d, kept/);
  assertEquals(await Promise.all(files(dir).map(read)), before);
  const renewed = await run("certs", ["--out", dir, "--renew"]);
  assertEquals(renewed.code, 0);
  assertNotEquals(await read("cert.pem"), before[0]);
});

test("the certificate says what it should", async (dir) => {
  const hosts = ["--host", "server.example", "--host", "2001:db8::7"];
  const days = ["--days", "7", "--csr"];
  const { code } = await run("certs", ["--out", dir, ...hosts, ...days]);
  assertEquals(code, 0);
  const cert = `${dir}/cert.pem`;
  const text = await openssl("x509", "-in", cert, "-noout", "-text");
  assertMatch(text, /CA:FALSE/);
  assertMatch(text, /TLS Web Server Authentication/);
  assertMatch(text, /NIST CURVE: P-256/);
  assertMatch(
    text,
    /DNS:localhost, IP Address:127\.0\.0\.1, IP Address:0:0:0:0:0:0:0:1, DNS:server\.example, IP Address:2001:DB8:0:0:0:0:0:7/,
  );
  const csr = await openssl("req", "-in", `${dir}/cert.csr`, "-noout", "-text");
  assertMatch(csr, /DNS:server\.example/);
  const again = await run("certs", ["--out", dir, ...hosts]);
  assertEquals(again.code, 0);
});

test("--rsa makes an RSA key of 4096 bits", async (dir) => {
  await run("certs", ["--out", dir, "--rsa"]);
  const key = await openssl("pkey", "-in", `${dir}/key.pem`, "-noout", "-text");
  assertMatch(key, /4096 bit/);
});

test("--identity adds one and leaves the rest alone", async (dir, read) => {
  await run("certs", ["--out", dir, "--identity", "a"]);
  const before = await read("psk.txt");
  await run("certs", ["--out", dir, "--identity", "b", "--identity", "a"]);
  const after = await read("psk.txt");
  assertEquals(after.startsWith(before), true);
  assertEquals([...parsePsk(after).keys()], ["a", "b"]);
});

test("wrong usage exits 2 and leaves nothing", async (dir) => {
  for (
    const args of [
      ["--identity", "a b"],
      ["--identity", "alice@"],
      ["--identity", "@"],
      ["--identity", "a@b@c"],
      ["--rekey", "alice@"],
      ["--rekey", "a@b@c"],
      ["--revoke", "a@b@c"],
      ["--revoke", "@db"],
      ["--invite", "a@b@c"],
      ["--invite", "alice@"],
      ["--invite", "@db"],
      ["--host", "a b"],
      ["--days", "x"],
      ["--invite", "alice", "--port", "70000"],
    ]
  ) {
    const target = `${dir}/certs`;
    const { code, stderr } = await run("certs", ["--out", target, ...args]);
    assertEquals(code, 2);
    assertMatch(stderr, /^certs: --\w+ takes [^\n]+\n$/);
    assertEquals(files(dir), []);
  }
});

test("a flag that would do nothing is refused", async (dir) => {
  for (const flag of ["--port=7", "--invite-file=x", "--as=x", "--new-key"]) {
    const { code, stderr } = await run("certs", ["--out", dir, flag]);
    assertEquals(code, 2);
    assertMatch(stderr, /^certs: --[\w-]+ goes with --(invite|join|renew)\n$/);
  }
  assertEquals(files(dir), []);
});

test("without openssl one line says so", async (dir) => {
  const { code, stderr } = await run("certs", ["--out", dir], "", {
    PATH: "/nonexistent",
  });
  assertEquals(code, 2);
  assertEquals(files(dir), []);
  assertMatch(stderr, /^certs: Cannot find openssl[^\n]+\n$/);
});

/**
 * What LibreSSL's openssl takes (4.3, as on macOS and OpenBSD) of the commands
 * that are used here. It refuses any other option, and a configuration of `ca`
 * that names no file of serial numbers.
 */
const LIBRESSL: Record<string, string> = {
  genpkey: "algorithm pkeyopt out outform",
  req: "new key subj addext config in out noout text sha256",
  ca: "batch notext selfsign keyfile config in out startdate enddate days " +
    "create_serial policy extensions extfile subj md outdir",
  pkcs8: "topk8 in out v2 passin passout",
};

/** A command `openssl` in a folder that is as narrow, before the real one. */
async function makeLibreSsl(dir: string): Promise<void> {
  const real = (await printed(["sh", "-c", "command -v openssl"])).trim();
  const cases = Object.entries(LIBRESSL).map(([name, options]) =>
    `${name}) known=" ${options} " ;;`
  );
  await Deno.writeTextFile(
    `${dir}/openssl`,
    `#!/bin/sh
    fail() { echo "$1" >&2; exit 1; }
    case $1 in ${cases.join("\n")} *) fail "unknown command $1" ;; esac
    for word in "$@"; do
      case $word in
        -*) case $known in *" \${word#-} "*) ;; *) fail "unknown option $word" ;; esac ;;
      esac
    done
    if [ "$1" = ca ]; then
      grep -q '^serial=' config ||
        fail 'variable lookup failed for innerlock::serial'
    fi
    exec ${real} "$@"
    `,
    { mode: 0o700 },
  );
}

test("LibreSSL's openssl will do as well", async (dir, read) => {
  await makeLibreSsl(dir);
  const serials = new Set<string>();
  for (const flag of ["--csr", "--renew", "--rsa"]) {
    const out = flag === "--rsa" ? "rsa" : "certs";
    const shell = ["sh", "-c", 'PATH=$0:$PATH exec "$@"', dir];
    const certs = command("certs", ["--out", `${dir}/${out}`, flag]);
    const child = spawn([...shell, ...certs]);
    await child.stdin.close();
    const { code, stderr } = await child.output();
    assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
    serials.add(
      new X509Certificate(await read(`${out}/cert.pem`)).serialNumber,
    );
  }
  assertEquals(serials.size, 3);
});

test("a certificate without its key is not replaced", async (dir, read) => {
  await run("certs", ["--out", dir]);
  const before = await read("cert.pem");
  await Deno.remove(`${dir}/key.pem`);
  const { code, stderr } = await run("certs", ["--out", dir]);
  assertEquals(code, 2);
  assertMatch(
    stderr,
    /There is \S+cert\.pem but no \S+key\.pem, .* --renew --new-key/,
  );
  assertEquals(await read("cert.pem"), before);
});

test(
  "--csr for a key that is there; --passphrase and --rsa not",
  async (dir, read) => {
    await run("certs", ["--out", dir]);
    const before = await read("key.pem");
    assertEquals((await run("certs", ["--out", dir, "--csr"])).code, 0);
    const publicKey = (kind: string, file: string) =>
      openssl(kind, "-in", `${dir}/${file}`, "-noout", "-pubkey");
    assertEquals(
      await publicKey("req", "cert.csr"),
      await publicKey("x509", "cert.pem"),
    );
    for (const flag of ["--passphrase", "--rsa"]) {
      const { code, stderr } = await run("certs", ["--out", dir, flag]);
      assertEquals(code, 2);
      assertMatch(
        stderr,
        /key\.pem exists and stays as it is; --renew --new-key/,
      );
    }
    assertEquals(await read("key.pem"), before);
  },
);

test("--revoke takes an identity out and nothing else", async (dir, read) => {
  const names = ["--identity", "alice", "--identity", "bob"];
  await run("certs", ["--out", dir, ...names]);
  const before = await read("psk.txt");
  const { code } = await run("certs", ["--out", dir, "--revoke", "alice"]);
  assertEquals(code, 0);
  assertEquals(await read("psk.txt"), before.replace(/^alice:.*\n/m, ""));
  for (
    const [name, why] of [
      ["alice", /There is no identity alice/],
      ["bob", /would have no key left; add another/],
    ] as const
  ) {
    const refused = await run("certs", ["--out", dir, "--revoke", name]);
    assertEquals(refused.code, 2);
    assertMatch(refused.stderr, why);
  }
  assertEquals((await Deno.stat(`${dir}/psk.txt`)).mode! & 0o777, 0o600);
});

/** The certificate in a folder signed anew by its key, expired yesterday. */
async function expire(dir: string): Promise<void> {
  const [cert, key] = [`${dir}/cert.pem`, `${dir}/key.pem`];
  const signed = ["x509", "-in", cert, "-signkey", key, "-days", "-1"];
  const passphrase = ["-passin", "pass:x"];
  await Deno.writeTextFile(cert, await openssl(...signed, ...passphrase));
}

/** The certificate in a folder signed by a CA, for the names and days given. */
async function signByCa(dir: string, names: string, days: string) {
  const ca = `${dir}/ca`;
  const self = ["-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=CA"];
  await openssl("req", ...self, "-keyout", `${ca}.key`, "-out", `${ca}.pem`);
  const request = ["-new", "-key", `${dir}/key.pem`, "-subj", "/CN=x"];
  await openssl("req", ...request, "-out", `${ca}.csr`);
  await Deno.writeTextFile(`${ca}.ext`, `subjectAltName=${names}`);
  await openssl(
    ...["x509", "-req", "-in", `${ca}.csr`, "-extfile", `${ca}.ext`],
    ...["-CA", `${ca}.pem`, "-CAkey", `${ca}.key`, "-CAcreateserial"],
    ...["-days", days, "-out", `${dir}/cert.pem`],
  );
}

async function namesOf(dir: string): Promise<string> {
  const cert = `${dir}/cert.pem`;
  return await openssl(
    ...["x509", "-in", cert, "-noout", "-ext", "subjectAltName"],
  );
}

test("a certificate made anew keeps its names", async (dir, read) => {
  const hosts = ["--host", "server.example", "--host", "2001:DB8:0::7"];
  await run("certs", ["--out", dir, ...hosts]);
  await expire(dir);
  const expired = await run("certs", ["--out", dir]);
  assertEquals([expired.code, expired.stderr], [0, ""]);
  assertMatch(expired.text, /cert\.pem: expired on \d{4}-\d\d-\d\d, replaced/);
  assertMatch(expired.text, /its key is the same, so clients need nothing new/);
  const made = "DNS:localhost, IP Address:127.0.0.1, " +
    "IP Address:0:0:0:0:0:0:0:1, DNS:server.example, " +
    "IP Address:2001:DB8:0:0:0:0:0:7";
  assertEquals((await namesOf(dir)).split("\n")[1]?.trim(), made);
  const before = await read("cert.pem");
  const more = ["--host", "new.example", "--host", "2001:db8::7"];
  const forced = await run("certs", ["--out", dir, "--renew", ...more]);
  assertEquals(forced.code, 0);
  assertMatch(forced.text, /its key is the same, so clients need nothing new/);
  assertNotEquals(await read("cert.pem"), before);
  assertEquals(
    (await namesOf(dir)).split("\n")[1]?.trim(),
    `${made}, DNS:new.example`,
  );
});

test("a first certificate asks nothing of the clients", async (dir) => {
  const { text } = await run("certs", ["--out", dir]);
  assertEquals(/clients? /.test(text.split("a client needs")[0]!), false);
});

test("a certificate of ours makes room for --host", async (dir) => {
  await run("certs", ["--out", dir]);
  const args = ["--out", dir, "--host", "server.example", "--identity", "al"];
  const { code, text } = await run("certs", args);
  assertEquals(code, 0);
  assertMatch(text, /its key is the same, so clients need nothing new/);
  assertMatch(await namesOf(dir), /DNS:localhost.* DNS:server\.example/);
});

test("an encrypted key stays, and its passphrase renews", async (dir, read) => {
  await run("certs", ["--out", dir]);
  const key = `${dir}/key.pem`;
  const encrypted = ["-topk8", "-in", key, "-passout", "pass:x"];
  await Deno.writeTextFile(key, await openssl("pkcs8", ...encrypted));
  const before = [await read("key.pem"), await read("cert.pem")];
  const kept = await run("certs", ["--out", dir]);
  assertEquals([kept.code, kept.stderr], [0, ""]);
  const { code, stderr } = await run("certs", ["--out", dir, "--renew"]);
  assertEquals(code, 2);
  assertMatch(stderr, /key\.pem: it is encrypted; give --passphrase-file FILE/);
  assertEquals([await read("key.pem"), await read("cert.pem")], before);
  const file = `${dir}/passphrase`;
  await Deno.writeTextFile(file, "x\n", { mode: 0o600 });
  const flags = ["--out", dir, "--renew", "--passphrase-file", file];
  const renewed = await run("certs", flags);
  assertEquals([renewed.code, renewed.stderr], [0, ""]);
  assertMatch(renewed.text, /clients need nothing new/);
  assertEquals(await read("key.pem"), before[0]);
  assertNotEquals(await read("cert.pem"), before[1]);
});

test(
  "a new key is encrypted if there is a passphrase, and stays so",
  async (dir, read) => {
    const file = `${dir}/passphrase`;
    const out = `${dir}/certs`;
    const certs = (...flags: string[]) =>
      run("certs", ["--out", out, ...flags]);
    const encrypted = /^-----BEGIN ENCRYPTED PRIVATE KEY-----\n/;
    const passphrase = ["--passphrase-file", file];
    await Deno.writeTextFile(file, "\n", { mode: 0o600 });
    const empty = await certs(...passphrase);
    assertEquals(empty.code, 2);
    assertMatch(empty.stderr, /^certs: The passphrase must not be empty\n$/);
    assertEquals(files(out), []);
    await Deno.writeTextFile(file, "x\n");
    assertEquals((await certs(...passphrase)).code, 0);
    const before = await read("certs/key.pem");
    assertMatch(before, encrypted);
    const another = ["--renew", "--new-key"];
    const plain = await certs(...another);
    assertEquals(plain.code, 2);
    assertMatch(
      plain.stderr,
      /key\.pem is encrypted; say --passphrase to encrypt the new key, too\n$/,
    );
    assertEquals(await read("certs/key.pem"), before);
    assertEquals((await certs(...another, ...passphrase)).code, 0);
    const after = await read("certs/key.pem");
    assertMatch(after, encrypted);
    assertNotEquals(after, before);
  },
);

test(
  "--days does not go with a certificate of other days",
  async (dir, read) => {
    const certs = (...flags: string[]) =>
      run("certs", ["--out", dir, ...flags]);
    for (let i = 0; i < 2; i++) {
      assertEquals(
        (await certs("--days=30")).code,
        0,
      );
    }
    assertEquals((await certs()).code, 0);
    const before = await read("cert.pem");
    const other = await certs("--days", "31");
    assertEquals(other.code, 2);
    assertMatch(
      other.stderr,
      /cert\.pem is kept, valid until \S+; --renew --days 31 makes another\n$/,
    );
    assertEquals(await read("cert.pem"), before);
    assertEquals((await certs("--renew", "--days", "31")).code, 0);
    assertEquals((await certs("--days", "31")).code, 0);
    await signByCa(dir, "DNS:*.example", "9");
    const ofCa = await certs("--days", "31");
    assertEquals(ofCa.code, 2);
    assertMatch(
      ofCa.stderr,
      /cert\.pem is kept, .*; its CA decides on its days/,
    );
  },
);

test("a CA's certificate takes --identity and stays", async (dir, read) => {
  for (const days of ["9", "-1"]) {
    await run("certs", ["--out", dir]);
    await signByCa(dir, "DNS:*.example", days);
    const before = [await read("cert.pem"), await read("key.pem")];
    const identity = ["--identity", `bob${days}`, "--host", "db.example"];
    const added = await run("certs", ["--out", dir, ...identity]);
    assertEquals([added.code, added.stderr], [0, ""]);
    assertMatch(added.text, days === "9" ? /valid until/ : /its CA/);
    assertEquals(parsePsk(await read("psk.txt")).has(`bob${days}`), true);
    for (
      const [flags, why] of [
        [["--renew"], /cert\.pem is from a CA, which has to renew it; --renew/],
        [["--host", "db.other"], /is not for db\.other; ask its CA for one/],
      ] as const
    ) {
      const { code, stderr } = await run("certs", ["--out", dir, ...flags]);
      assertEquals(code, 2);
      assertMatch(stderr, why);
    }
    assertEquals([await read("cert.pem"), await read("key.pem")], before);
  }
});

test(
  "a certificate of another's making gets no name unasked",
  async (dir, read) => {
    await run("certs", ["--out", dir]);
    const subject = ["-subj", "/CN=other", "-addext", "subjectAltName=DNS:a.b"];
    const key = ["-key", `${dir}/key.pem`];
    await Deno.writeTextFile(
      `${dir}/cert.pem`,
      await openssl("req", "-x509", ...key, ...subject),
    );
    const before = await Promise.all(files(dir).map(read));
    const args = ["--out", dir, "--host", "new.example", "--identity", "bob"];
    const { code, text, stderr } = await run("certs", args);
    assertEquals([code, text], [2, ""]);
    assertMatch(
      stderr,
      /not for new\.example; --renew adds it, and every client/,
    );
    assertEquals(await Promise.all(files(dir).map(read)), before);
    const renewed = await run("certs", [...args, "--renew"]);
    assertEquals([renewed.code, renewed.stderr], [0, ""]);
    assertMatch(
      renewed.text,
      /every client must join again/,
    );
  },
);

test("a pair that does not fit is not kept", async (dir, read) => {
  await run("certs", ["--out", dir, "--identity", "alice"]);
  const [cert, key, psk] = await Promise.all(files(dir).map(read));
  const other = await openssl("genpkey", "-algorithm", "ED25519");
  const noKey = /key\.pem: it contains no private key/;
  const notKey = /key\.pem is not the key of \S+cert\.pem; --renew makes/;
  const notCert = /cert\.pem is not a certificate; --renew makes/;
  for (
    const [file, text, why] of [
      ["key.pem", "", noKey],
      ["key.pem", cert!, noKey],
      ["key.pem", other, notKey],
      ["cert.pem", "", notCert],
      ["cert.pem", key!, notCert],
      ["cert.pem", cert!.slice(0, 300), notCert],
    ] as const
  ) {
    await Deno.writeTextFile(`${dir}/${file}`, text);
    const args = ["--out", dir, "--identity", "bob"];
    const { code, stdout, stderr } = await run("certs", args);
    assertEquals([code, stdout.length], [2, 0], stderr);
    assertMatch(stderr, why);
    assertEquals([await read(file), await read("psk.txt")], [text, psk]);
    await Deno.writeTextFile(`${dir}/cert.pem`, cert!);
    await Deno.writeTextFile(`${dir}/key.pem`, key!);
  }
  await Deno.writeTextFile(`${dir}/cert.pem`, `${key}${cert}`);
  assertEquals((await run("certs", ["--out", dir])).code, 0);
});

test("--revoke goes with no other flag", async (dir, read) => {
  const names = ["--identity", "alice", "--identity", "bob"];
  await run("certs", ["--out", dir, ...names]);
  const before = await read("psk.txt");
  for (
    const other of [
      ["--identity", "carol"],
      ["--host", "server.example"],
      ["--days", "9"],
      ["--csr"],
      ["--renew"],
    ]
  ) {
    const args = ["--out", dir, "--revoke", "alice", ...other];
    const { code, stderr } = await run("certs", args);
    assertEquals(code, 2);
    assertMatch(stderr, new RegExp(`--revoke does not go with ${other[0]}:`));
  }
  assertEquals(await read("psk.txt"), before);
});

test("--host takes names and addresses only", async (dir) => {
  for (
    const host of [
      ...[
        "999.1.1.1",
        "*.::1",
        "1.2",
        "https://x",
        "a b",
        "x:5001",
        "a:5001",
        "*",
      ],
      ...["a..b", "-a", "a-.b", "fe80::1%eth0", "[::1]", `${"a".repeat(64)}.b`],
    ]
  ) {
    const { code, stderr } = await run("certs", [
      "--out",
      dir,
      `--host=${host}`,
    ]);
    assertEquals(code, 2);
    assertMatch(stderr, /^certs: --host takes [^\n]+\n$/);
  }
  const hosts = ["*.a.example", "my_db", "::ffff:1.2.3.4", "1a.b2", "10.0.0.1"];
  const flags = hosts.flatMap((host) => ["--host", host]);
  for (let i = 0; i < 2; i++) {
    const { code, stderr } = await run("certs", ["--out", dir, ...flags]);
    assertEquals([code, stderr], [0, ""]);
  }
});

test("nothing is said to be made before it is", async (dir) => {
  await Deno.mkdir(`${dir}/psk.txt`);
  await Deno.writeTextFile(`${dir}/file`, "");
  for (const out of [dir, `${dir}/file`, `${dir}/file/x`, "/proc/x", "/proc"]) {
    const { code, text, stderr } = await run("certs", ["--out", out]);
    assertEquals([code, text], [2, ""]);
    assertMatch(stderr, new RegExp(`^certs: Cannot [^\n]*${out}[^\n]*\n$`));
    assertEquals(stderr.includes("--allow-all"), false);
  }
  assertEquals(files(dir), ["file", "psk.txt"]);
});

test("--revoke and --rekey name what else opens the same", async (dir) => {
  const names = ["alice", "alice@db", "alice@web", "alice2", "bob@db"];
  const ids = names.flatMap((name) => ["--identity", name]);
  await run("certs", ["--out", dir, ...ids]);
  const notes = async (...args: string[]) => {
    const { code, text } = await run("certs", ["--out", dir, ...args]);
    assertEquals(code, 0);
    return text.match(/^.* still there.*$/gm)?.map((line) =>
      line.replace(`${dir}/psk.txt: `, "")
    ) ?? [];
  };
  const both = ["alice@db, alice@web are still there, with keys of their own"];
  const one = ["alice@web is still there, with a key of its own"];
  const name = ["alice is still there, with a key of its own"];
  assertEquals(await notes("--rekey", "alice"), both);
  assertEquals(await notes("--revoke", "alice@db"), name);
  assertEquals(await notes("--revoke", "alice"), one);
  assertEquals(await notes("--revoke", "alice@web", "--revoke", "alice2"), []);
});

test("several at once: one pair, and every key is kept", async (dir, read) => {
  const names = ["a", "b", "c", "d"];
  const all = await Promise.all(
    names.map((name) => run("certs", ["--out", dir, "--identity", name])),
  );
  assertEquals(
    all.map(({ code, stderr }) => [code, stderr]),
    names.map(() => [0, ""]),
  );
  const made = all.filter(({ text }) => /key\.pem: made/.test(text));
  assertEquals(made.length, 1);
  assertEquals([...parsePsk(await read("psk.txt")).keys()].sort(), names);
  assertEquals(files(dir), ["cert.pem", "key.pem", "psk.txt"]);
  const more = ["e", "f"].map((name) => ["--identity", name]);
  const changes = [["--revoke", "a"], ...more, ["--revoke", "b"]];
  for (
    const { code, stderr } of await Promise.all(
      changes.map((change) => run("certs", ["--out", dir, ...change])),
    )
  ) assertEquals([code, stderr], [0, ""]);
  const left = [...parsePsk(await read("psk.txt")).keys()].sort();
  assertEquals(left, ["c", "d", "e", "f"]);
});

/** Waits until a process waits for a lock. */
async function waitsForLock(pid: number): Promise<void> {
  const waiting = new RegExp(`-> FLOCK .* ${pid} `);
  // Deno itself may not read it.
  const patience = AbortSignal.timeout(30_000);
  while (true) {
    patience.throwIfAborted();
    if (waiting.test(await printed(["cat", "/proc/locks"]))) return;
  }
}

test(
  "--revoke during --invite: the invitation's key is in the key file",
  async (dir, read) => {
    const out = `${dir}/out`;
    const file = `${dir}/first/line`;
    await Deno.mkdir(`${dir}/first`);
    const both = ["--identity", "alice", "--identity", "bob"];
    await run("certs", ["--out", out, ...both]);
    const invite = ["--invite", "alice", "--invite-file", file];
    let inviting!: Deno.ChildProcess;
    await withFiles([file], async () => {
      inviting = start("certs", ["--out", out, ...invite]);
      await inviting.stdin.close();
      await waitsForLock(inviting.pid);
      const { code } = await run("certs", ["--out", out, "--revoke", "alice"]);
      assertEquals(code, 0);
    });
    const { code, stderr } = await inviting.output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
    const { key } = parseInvitation(await Deno.readTextFile(file));
    const keys = parsePsk(await read("out/psk.txt"));
    assertEquals([...keys.keys()], ["bob", "alice"]);
    assertEquals(keys.get("alice")!.toHex(), key);
  },
);

test("--join waits for a folder, and leaves it if it is a server's by then", async (dir) => {
  const out = `${dir}/out`;
  const { text } = await run("certs", ["--out", out, "--invite", "alice"]);
  const folder = `${dir}/joined`;
  await Deno.mkdir(folder);
  let joining!: Deno.ChildProcess;
  await withFiles([`${folder}/psk.txt`], async () => {
    joining = start("certs", ["--join", "--out", folder]);
    await new Blob([text]).stream().pipeTo(joining.stdin);
    await waitsForLock(joining.pid);
    await Deno.copyFile(`${out}/key.pem`, `${folder}/key.pem`);
  });
  const { code, stderr } = await joining.output();
  assertMatch(
    new TextDecoder().decode(stderr),
    /belongs to a server, because it has a key\.pem; /,
  );
  assertEquals(code, 2);
  assertEquals(files(folder), ["key.pem"]);
});

test("links stay, and what they lead to is changed", async (dir, read) => {
  const [out, far] = [`${dir}/certs`, `${dir}/far`];
  await run("certs", ["--out", out, "--identity", "alice"]);
  await Deno.mkdir(far);
  for (const name of files(out)) {
    await Deno.rename(`${out}/${name}`, `${far}/${name}`);
    await Deno.symlink(`../far/${name}`, `${out}/${name}`);
  }
  await Deno.chmod(`${far}/psk.txt`, 0o640);
  const flags = [["--identity", "bob"], ["--revoke", "alice"], ["--renew"]];
  const before = await read("far/cert.pem");
  for (const flag of flags) {
    const { code, stderr } = await run("certs", ["--out", out, ...flag]);
    assertEquals([code, stderr], [0, ""]);
  }
  assertEquals([...parsePsk(await read("far/psk.txt")).keys()], ["bob"]);
  assertEquals(mode(`${far}/psk.txt`), "640");
  assertNotEquals(await read("far/cert.pem"), before);
  for (const name of files(out)) {
    assertEquals(await Deno.readLink(`${out}/${name}`), `../far/${name}`);
  }
  assertEquals(files(far), ["cert.pem", "key.pem", "psk.txt"]);
});

test("the folder is the owner's alone, whatever the umask", async (dir) => {
  for (const umask of ["000", "077"]) {
    const out = `${dir}/${umask}/certs`;
    const shell = ["sh", "-c", `umask ${umask} && exec "$@"`, "sh"];
    const child = spawn([...shell, ...command("certs", ["--out", out])]);
    await child.stdin.close();
    assertEquals((await child.output()).code, 0);
    assertEquals(mode(out), "700");
    assertEquals(["cert", "key"].map((name) => mode(`${out}/${name}.pem`)), [
      "644",
      "600",
    ]);
  }
});

test(
  "--renew is for the pair, --rekey for an identity's key",
  async (dir, read) => {
    const names = ["--identity", "alice", "--identity", "bob"];
    await run("certs", ["--out", dir, ...names]);
    const all = () => Promise.all(files(dir).map(read));
    const [cert, key, psk] = await all();
    const renew = ["--renew", "--new-key", "--identity", "alice"];
    const renewed = await run("certs", ["--out", dir, ...renew]);
    assertEquals([renewed.code, renewed.stderr], [0, ""]);
    const [newCert, newKey, samePsk] = await all();
    assertNotEquals([newCert, newKey], [cert, key]);
    assertEquals(samePsk, psk);
    const rekeyed = await run("certs", ["--out", dir, "--rekey", "alice"]);
    assertEquals([rekeyed.code, rekeyed.stderr], [0, ""]);
    assertMatch(rekeyed.text, /psk\.txt: made another key for alice/);
    assertEquals(await all(), [newCert, newKey, await read("psk.txt")]);
    const [before, after] = [parsePsk(psk!), parsePsk(await read("psk.txt"))];
    assertEquals(after.get("bob"), before.get("bob"));
    assertNotEquals(after.get("alice"), before.get("alice"));
    const unknown = await run("certs", ["--out", dir, "--rekey", "carol"]);
    assertEquals(unknown.code, 2);
    assertMatch(unknown.stderr, /There is no identity carol in/);
  },
);

test("a certificate is valid from an hour ago", async (dir, read) => {
  await run("certs", ["--out", dir, "--days", "2"]);
  const { validFrom, validTo } = new X509Certificate(await read("cert.pem"));
  const [from, to] = [validFrom, validTo].map((time) => Date.parse(time));
  const hours = (Date.now() - from!) / 3_600_000;
  assertEquals([Math.round(hours), Math.round((to! - from!) / 3_600_000)], [
    1,
    49,
  ]);
});

test("LD_LIBRARY_PATH and LD_PRELOAD are no matter", async (dir) => {
  // As conda and CUDA set it; of the other, what is loaded anyway.
  const variables = { LD_LIBRARY_PATH: dir, LD_PRELOAD: "libc.so.6" };
  for (const [name, value] of Object.entries(variables)) {
    const env = { [name]: value };
    const args = ["--out", `${dir}/${name}`];
    const { code, stderr } = await run("certs", args, "", env);
    assertEquals([code, stderr], [0, ""]);
  }
});

test("a key without a certificate gets one", async (dir, read) => {
  await run("certs", ["--out", dir]);
  const key = await read("key.pem");
  await Deno.remove(`${dir}/cert.pem`);
  const refused = await run("certs", ["--out", dir, "--rsa"]);
  assertEquals(refused.code, 2);
  assertMatch(
    refused.stderr,
    /key\.pem exists and stays as it is; --renew --new-key/,
  );
  const { code, text } = await run("certs", ["--out", dir]);
  assertEquals(code, 0);
  assertMatch(text, /cert\.pem: made for localhost/);
  assertEquals(await read("key.pem"), key);
  assertMatch((await run("certs", ["--out", dir])).text, /, kept/);
});

test("in the end it may read and write where its flags point, nowhere else", async (dir) => {
  const path = (name: string) => `${dir}/${name}`;
  for (const name of ["server", "line", "elsewhere"]) {
    await Deno.mkdir(path(name));
  }
  // Preloaded, it says of each folder whether it is open when the program exits.
  await Deno.writeTextFile(
    path("preload.js"),
    `const { exit } = Deno;
    Deno.exit = (code) => {
      const open = ${
      JSON.stringify([...files(dir), "client"])
    }.filter((folder) =>
        ["read", "write"].some((name) => Deno.permissions.querySync({
          name, path: ${JSON.stringify(dir)} + "/" + folder,
        }).state === "granted"));
      console.error("open:", open.join());
      exit(code);
    };`,
  );
  const open = async (...args: string[]) => {
    const [deno, run, ...rest] = command("certs", args);
    const preload = ["--preload", path("preload.js")];
    const child = spawn([deno!, run!, ...preload, ...rest]);
    await child.stdin.close();
    const { code, stderr } = await child.output();
    const text = new TextDecoder().decode(stderr);
    assertEquals(code, 0, text);
    return /^open: (.*)$/m.exec(text)![1];
  };
  const server = ["--out", path("server")];
  const line = ["--invite-file", path("line/line")];
  assertEquals(await open(...server, "--identity", "alice"), "server");
  assertEquals(
    await open(...server, "--invite", "bob", ...line),
    "line,server",
  );
  assertEquals(await open(...server, "--revoke", "alice"), "server");
  const client = ["--out", path("client")];
  assertEquals(await open(...client, "--join", ...line), "client");
});
