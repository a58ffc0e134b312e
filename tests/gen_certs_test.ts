import { assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { parsePsk } from "../lib/mod.ts";
import { MAY_RUN, run } from "./programs.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const reason = lacksPermissions(...MAY_RUN);

function test(
  name: string,
  fn: (dir: string, read: (file: string) => Promise<string>) => Promise<void>,
): void {
  testUnless(reason, `gen_certs: ${name}`, async () => {
    const dir = await Deno.makeTempDir({ prefix: "innerlock-test-" });
    try {
      await fn(dir, (file) => Deno.readTextFile(`${dir}/${file}`));
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  });
}

async function openssl(...args: string[]): Promise<string> {
  const { stdout } = await new Deno.Command("openssl", { args, stderr: "null" })
    .output();
  return new TextDecoder().decode(stdout);
}

const files = (dir: string) =>
  Array.from(Deno.readDirSync(dir), ({ name }) => name).sort();
const mode = (path: string) => (Deno.statSync(path).mode! & 0o777).toString(8);

test("makes a set, and keeps it when run again", async (dir, read) => {
  const first = await run("certs", ["--out", dir]);
  assertEquals([first.code, first.stderr], [0, ""]);
  assertMatch(first.text, /SHA-256 [0-9A-F:]{95}, valid until \d{4}-/);
  assertEquals(files(dir), ["cert.pem", "key.pem", "psk.txt"]);
  assertEquals(mode(`${dir}/key.pem`), "600");
  assertEquals(mode(`${dir}/psk.txt`), "600");
  assertEquals([...parsePsk(await read("psk.txt")).keys()], ["default"]);
  const before = await Promise.all(files(dir).map(read));
  const second = await run("certs", ["--out", dir]);
  assertEquals(second.code, 0);
  assertMatch(second.text, /valid until \d{4}-\d\d-\d\d, kept/);
  assertEquals(await Promise.all(files(dir).map(read)), before);
  const forced = await run("certs", ["--out", dir, "--force"]);
  assertEquals(forced.code, 0);
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
  const more = await run("certs", ["--out", dir, "--host", "new.example"]);
  assertEquals(more.code, 2);
  assertMatch(more.stderr, /not made out to new\.example: --force/);
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
    const args of [["--identity", "a b"], ["--host", "a b"], ["--days", "x"]]
  ) {
    const target = `${dir}/certs`;
    const { code, stderr } = await run("certs", ["--out", target, ...args]);
    assertEquals(code, 2);
    assertMatch(stderr, /^gen_certs: --\w+ takes [^\n]+\n$/);
    assertEquals(files(dir), []);
  }
});

test("without openssl one line says so", async (dir) => {
  const { code, stderr } = await run("certs", ["--out", dir], "", {
    PATH: "/nonexistent",
  });
  assertEquals(code, 2);
  assertEquals(files(dir), []);
  assertMatch(stderr, /gen_certs: Cannot find openssl[^\n]+\n$/);
});

test("a certificate without its key is not replaced", async (dir, read) => {
  await run("certs", ["--out", dir]);
  const before = await read("cert.pem");
  await Deno.remove(`${dir}/key.pem`);
  const { code, stderr } = await run("certs", ["--out", dir]);
  assertEquals(code, 2);
  assertMatch(stderr, /There is \S+cert\.pem but no \S+key\.pem: --force/);
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
      assertMatch(stderr, /key\.pem is there and stays as it is: --force/);
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
      ["bob", /Nobody would be left .* add another/],
    ] as const
  ) {
    const refused = await run("certs", ["--out", dir, "--revoke", name]);
    assertEquals(refused.code, 2);
    assertMatch(refused.stderr, why);
  }
  assertEquals((await Deno.stat(`${dir}/psk.txt`)).mode! & 0o777, 0o600);
});
