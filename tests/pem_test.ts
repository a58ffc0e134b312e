import {
  assertEquals,
  assertMatch,
  assertRejects,
  assertThrows,
} from "@std/assert";
import {
  certificatesOf,
  describeCertificate,
  timeWarning,
} from "../cli/keys/certificates.ts";
import { UsageError } from "../cli/advice/errors.ts";
import { readPair, readPrivateKey, readSecret } from "../cli/files.ts";
import { makeKey } from "../cli/keys/openssl.ts";
import { parsePem } from "../cli/keys/pem.ts";
import { launch } from "./limit.ts";
import { pairUnless } from "./pair.ts";
import { MAY_RUN } from "./programs.ts";
import { lacksPermissions, testInFolder, testUnless } from "./requirements.ts";

const reason = lacksPermissions(...MAY_RUN);
const { cert, key } = await pairUnless(reason, ["localhost", "::1"]);

/** Runs openssl, and gives what it prints. */
async function openssl(args: string[], input = ""): Promise<string> {
  const child = launch("openssl", {
    args,
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  });
  const [{ success, stdout }] = await Promise.all([
    child.output(),
    new Blob([input]).stream().pipeTo(child.stdin),
  ]);
  if (!success) throw new Error(`openssl ${args.join(" ")} failed`);
  return new TextDecoder().decode(stdout);
}

const test = (name: string, fn: (dir: string) => Promise<void>) =>
  testInFolder(reason, name, fn);

/** Writes a secret. */
async function put(path: string, text: string): Promise<string> {
  await Deno.writeTextFile(path, text, { mode: 0o600 });
  return path;
}

/** What people have around their keys and certificates. */
const SURROUNDINGS: Record<string, (text: string) => string> = {
  "the other of the pair": (text) => key + cert + text,
  "a comment": (text) => `the server's, of May:\n${text}# the end`,
  "a second newline": (text) => `${text}\n`,
  "spaces behind its lines": (text) => text.replaceAll("\n", " \t\n"),
  "spaces before its lines": (text) => text.replaceAll(/^/gm, "    "),
  "CR LF": (text) => text.replaceAll("\n", "\r\n"),
  "a byte order mark": (text) => `\ufeff${text}`,
  "no newline": (text) => text.trim(),
  "one long line": (text) => text.replaceAll(/(?<!-)\n(?!-)/g, ""),
};

test("readPair: what is around a key and a certificate is no matter", async (dir) => {
  const plain = await readPair(
    await put(`${dir}/cert.pem`, cert),
    await put(`${dir}/key.pem`, key),
    {},
  );
  assertEquals(plain.key, key);
  for (const [name, surround] of Object.entries(SURROUNDINGS)) {
    const certPath = await put(`${dir}/cert`, surround(cert));
    const keyPath = await put(`${dir}/key`, surround(key));
    const { cert: read, key: readKey } = await readPair(certPath, keyPath, {});
    // So Deno gets the same, whatever it makes of that which is around.
    assertEquals(readKey, plain.key, name);
    const [block] = parsePem("", read, "CERTIFICATE");
    assertEquals(block, parsePem("", cert, "CERTIFICATE")[0], name);
    assertMatch(
      read,
      /^(-----BEGIN CERTIFICATE-----\n[^-]+-----END[^-]+-----\n)+$/,
    );
  }
});

test("readPair: of several keys it takes the one that fits", async (dir) => {
  const certPath = await put(`${dir}/cert.pem`, cert);
  const other = await makeKey(false);
  for (const text of [other + key, key + other, other + cert + key]) {
    const keyPath = await put(`${dir}/key.pem`, text);
    assertEquals((await readPair(certPath, keyPath, {})).key, key);
  }
  const keyPath = await put(`${dir}/key.pem`, other + other);
  await assertRejects(
    () => readPair(certPath, keyPath, {}),
    UsageError,
    `${keyPath}: it is not the key of ${certPath}`,
  );
});

testUnless(
  reason,
  "parsePem: one that is cut off is told from one that is not there",
  () => {
    const begin = "-----BEGIN PRIVATE KEY-----\n";
    for (
      const [text, why] of [
        ["", "it contains no private key"],
        [cert, "it contains no private key, but a certificate"],
        [key.slice(0, 100), "it is cut off"],
        [key.slice(40), "it is cut off"],
        [key + key.slice(0, 100), "it is cut off"],
        [key.replace(/\n/, "\n!"), "it is damaged"],
        [key.replace("END PRIVATE", "END EC PRIVATE"), "it is cut off"],
        [begin + key, "it is cut off"],
      ] as const
    ) {
      assertThrows(
        () => parsePem("k", text, "PRIVATE KEY"),
        UsageError,
        `Cannot use k: ${why}`,
      );
    }
    return Promise.resolve();
  },
);

const PASSPHRASE = ["-passout", "pass:open sesame"];

/** Ways to encrypt a key; of those that Deno does not know the name is marked. */
const CIPHERS: Record<string, string[]> = {
  "AES-256-CBC": ["pkcs8", "-topk8", "-v2", "aes-256-cbc"],
  "AES-128-CBC, SHA-512": [
    ...["pkcs8", "-topk8", "-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA512"],
  ],
  "scrypt": ["pkcs8", "-topk8", "-scrypt"],
  "old format, AES-128-CBC": ["ec", "-aes128"],
  "old format, 3DES": ["ec", "-des3"],
  "unknown: 3DES": ["pkcs8", "-topk8", "-v2", "des3"],
  "unknown: SHA-1": ["pkcs8", "-topk8", "-v2prf", "hmacWithSHA1"],
  "unknown: PKCS#12": ["pkcs8", "-topk8", "-v1", "PBE-SHA1-3DES"],
  "unknown: old format, Camellia": ["ec", "-camellia256"],
};

test("readPrivateKey: an unknown cipher is not called a wrong passphrase", async (dir) => {
  const right = await put(`${dir}/right`, "open sesame\n");
  const wrong = await put(`${dir}/wrong`, "open barley\n");
  for (const [name, args] of Object.entries(CIPHERS)) {
    const encrypted = await openssl([...args, ...PASSPHRASE], key);
    const path = await put(`${dir}/key.pem`, encrypted);
    const read = (file: string) => readPrivateKey(path, cert, { file });
    if (name.startsWith("unknown")) {
      for (const file of [right, wrong]) {
        const why = "Deno does not know its cipher";
        await assertRejects(() => read(file), UsageError, why);
      }
    } else {
      assertEquals(await read(right), key, name);
      const why = "the passphrase is wrong";
      await assertRejects(() => read(wrong), UsageError, why);
    }
  }
});

test("readPrivateKey: keys of an old format, and those that TLS cannot use", async (dir) => {
  const read = async (text: string) =>
    await readPrivateKey(await put(`${dir}/key.pem`, text), cert, {});
  const sec1 = await openssl(["ec"], key);
  assertMatch(sec1, /BEGIN EC PRIVATE KEY/);
  assertEquals(await read(sec1), key);
  const parameters = await openssl(["ecparam", "-name", "prime256v1"]);
  assertEquals(await read(parameters + sec1), key);
  const ed448 = await openssl(["genpkey", "-algorithm", "ED448"]);
  await assertRejects(() => read(ed448), UsageError, "TLS takes no ed448 key");
  const ssh = key.replaceAll("PRIVATE", "OPENSSH PRIVATE");
  await assertRejects(
    () => read(ssh),
    UsageError,
    "or not a key that TLS can use",
  );
});

test("readSecret: blank lines may follow, others may not", async (dir) => {
  for (
    const text of ["x y", "x y\n", "x y\n\n", "x y\r\n\r\n", "\ufeffx y\n"]
  ) {
    const path = await put(`${dir}/passphrase`, text);
    assertEquals(await readSecret(path), "x y", JSON.stringify(text));
  }
  const path = await put(`${dir}/passphrase`, "x\ny\n");
  const why = "it has more than one line";
  await assertRejects(() => readSecret(path), UsageError, why);
});

testUnless(
  reason,
  "certificates: seconds where they decide, ::1 as it is",
  () => {
    const { names, isCurrent } = describeCertificate(certificatesOf("", cert));
    assertEquals([names, isCurrent], [["localhost", "::1"], true]);
    // A client's clock that is five seconds behind, and one that is an hour.
    const behind = (time: number) => Date.now() - time;
    assertEquals(
      timeWarning("c", cert, behind(5000))?.includes("is not valid until"),
      false,
    );
    const clock = /not valid until \d{4}-\d\d-\d\d at \d\d:\d\d:\d\d UTC/;
    assertMatch(timeWarning("c", cert, behind(3_700_000))!, clock);
    return Promise.resolve();
  },
);
