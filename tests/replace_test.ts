import { assertEquals, assertRejects } from "@std/assert";
import { certificateWork } from "../cli/keys/certificate_files.ts";
import { describeCertificate } from "../cli/keys/certificates.ts";
import { UsageError } from "../cli/advice/errors.ts";
import { readPair } from "../cli/files.ts";
import { parse } from "../cli/main.ts";
import { foldersOf, replaceFiles, withFiles } from "../cli/keys/replace.ts";
import { outputOfSync } from "./limit.ts";
import { MAY_RUN } from "./programs.ts";
import { lacksPermissions, testInFolder } from "./requirements.ts";

const reason = lacksPermissions(...MAY_RUN);
const isRoot = reason === undefined &&
  outputOfSync("id", "-u").stdout[0] === 0x30;

function test(
  name: string,
  fn: (dir: string) => Promise<void>,
  otherwise?: string,
): void {
  testInFolder(reason ?? otherwise, name, fn);
}

const names = (dir: string) =>
  Array.from(Deno.readDirSync(dir), ({ name }) => name).sort();
const mode = (path: string) => Deno.statSync(path).mode! & 0o777;

test("replaceFiles: a link stays, and leads to the new text", async (dir) => {
  await Deno.mkdir(`${dir}/far/away`, { recursive: true });
  const target = `${dir}/far/away/psk`;
  await Deno.writeTextFile(target, "old");
  await Deno.chmod(target, 0o640);
  await Deno.symlink("far/away", `${dir}/near`);
  await Deno.symlink("near/psk", `${dir}/psk.txt`);
  const path = `${dir}/psk.txt`;
  assertEquals(await foldersOf([path]), [`${dir}/far/away`]);
  await replaceFiles([{ path, text: "new", mode: 0o600 }]);
  assertEquals(await Deno.readLink(path), "near/psk");
  assertEquals(await Deno.readTextFile(target), "new");
  assertEquals(mode(target), 0o640);
  assertEquals(names(`${dir}/far/away`), ["psk"]);
});

test("replaceFiles: others get no secret in the place of what they could read", async (dir) => {
  const paths = [`${dir}/a`, `${dir}/b`, `${dir}/c`] as const;
  for (const path of paths) {
    await Deno.writeTextFile(path, "old");
    await Deno.chmod(path, 0o644);
  }
  await replaceFiles([
    { path: paths[0], text: "new", mode: 0o600, isPrivate: true },
    { path: paths[1], text: "new", mode: 0o600 },
    { path: paths[2], text: "new", mode: 0o644 },
  ]);
  assertEquals(paths.map(mode), [0o600, 0o640, 0o644]);
});

test("replaceFiles: a link may lead to what is not there yet", async (dir) => {
  await Deno.mkdir(`${dir}/far`);
  await Deno.symlink("far/psk", `${dir}/psk.txt`);
  const path = `${dir}/psk.txt`;
  assertEquals(await foldersOf([path]), [`${dir}/far`]);
  await replaceFiles([{ path, text: "new", mode: 0o600 }]);
  assertEquals(await Deno.readTextFile(`${dir}/far/psk`), "new");
  assertEquals(mode(`${dir}/far/psk`), 0o600);
});

test("replaceFiles: root leaves another's file his own", async (dir) => {
  const path = `${dir}/psk.txt`;
  await Deno.writeTextFile(path, "old");
  await Deno.chmod(path, 0o440);
  await Deno.chown(path, 1234, 5678);
  await replaceFiles([{ path, text: "new", mode: 0o600 }]);
  const { uid, gid } = await Deno.stat(path);
  assertEquals([uid, gid, mode(path)], [1234, 5678, 0o440]);
}, isRoot ? undefined : "needs root");

test(
  "replaceFiles: what root makes in another's folder is his",
  async (dir) => {
    await Deno.chown(dir, 1234, 5678);
    const path = `${dir}/psk.txt`;
    await replaceFiles([{ path, text: "new", mode: 0o600 }]);
    const { uid, gid } = await Deno.stat(path);
    assertEquals([uid, gid, mode(path)], [1234, 5678, 0o600]);
  },
  isRoot ? undefined : "needs root",
);

test("replaceFiles: what a killed run has left is no hindrance", async (dir) => {
  const other = `${dir}/other`;
  await Deno.writeTextFile(other, "other");
  await Deno.writeTextFile(`${dir}/.a.0.new`, "half");
  await Deno.symlink("other", `${dir}/.b.1.new`);
  const files = ["a", "b"].map((name) => (
    { path: `${dir}/${name}`, text: "whole", mode: 0o644 }
  ));
  await replaceFiles(files);
  assertEquals(names(dir), ["a", "b", "other"]);
  assertEquals(await Deno.readTextFile(`${dir}/b`), "whole");
  assertEquals(await Deno.readTextFile(other), "other");
});

test("replaceFiles: one that cannot be written leaves all as they were", async (dir) => {
  await Deno.writeTextFile(`${dir}/a`, "old");
  const files = ["a", "missing/b"].map((name) => (
    { path: `${dir}/${name}`, text: "new", mode: 0o600 }
  ));
  await assertRejects(() => replaceFiles(files), UsageError);
  assertEquals(await Deno.readTextFile(`${dir}/a`), "old");
  assertEquals(names(dir), ["a"]);
});

test("replaceFiles: a folder in the place of one is named, and all stay", async (dir) => {
  await Deno.writeTextFile(`${dir}/a`, "old");
  await Deno.mkdir(`${dir}/b`);
  const files = ["a", "b"].map((name) => (
    { path: `${dir}/${name}`, text: "new", mode: 0o600 }
  ));
  const why = `Cannot write ${dir}/b: it is a folder`;
  await assertRejects(() => replaceFiles(files), UsageError, why);
  assertEquals(await Deno.readTextFile(`${dir}/a`), "old");
  assertEquals(names(dir), ["a", "b"]);
});

test("replaceFiles: a pipe in the place of one is not waited for", async (dir) => {
  const path = `${dir}/pipe`;
  outputOfSync("mkfifo", path);
  const why = `Cannot write ${path}: it is no file`;
  const files = [{ path, text: "new", mode: 0o600 }];
  await assertRejects(() => replaceFiles(files), UsageError, why);
  assertEquals(names(dir), ["pipe"]);
});

test("replaceFiles: one that cannot be put in its place takes all back", async (dir) => {
  // Bytes that are no text come back, too.
  const old = new Uint8Array([0x66, 0xff, 0x00]);
  await Deno.writeFile(`${dir}/a`, old);
  await Deno.chmod(`${dir}/a`, 0o640);
  const files = ["a", "new", "b"].map((name) => (
    { path: `${dir}/${name}`, text: "new", mode: 0o600 }
  ));
  // As where a file is mounted by itself.
  const rename = async (from: string | URL, to: string | URL) => {
    if (to === `${dir}/b`) throw new Deno.errors.Busy("it is in use");
    await Deno.rename(from, to);
  };
  const why = `Cannot write ${dir}/b: it is in use`;
  await assertRejects(() => replaceFiles(files, rename), UsageError, why);
  assertEquals(await Deno.readFile(`${dir}/a`), old);
  assertEquals([names(dir), mode(`${dir}/a`)], [["a"], 0o640]);
});

test("withFiles: one after the other, also where links lead", async (dir) => {
  await Deno.mkdir(`${dir}/a`);
  await Deno.mkdir(`${dir}/b`);
  await Deno.symlink("../a/psk", `${dir}/b/psk`);
  const path = `${dir}/a/psk`;
  await Deno.writeTextFile(path, "");
  // Each reads, and writes what it has read and one more.
  const append = async (where: string) =>
    await withFiles([where], async () => {
      const old = await Deno.readTextFile(where);
      const text = old + "x";
      await replaceFiles([{ path: where, text, mode: 0o600 }]);
    });
  const places = [path, `${dir}/b/psk`];
  await Promise.all([...places, ...places, ...places].map(append));
  assertEquals(await Deno.readTextFile(path), "xxxxxx");
});

const USAGE = `
  --days N
  --passphrase-file FILE
  --renew
  --new-key
  --rsa
  --passphrase
  --csr`;

const keyOf = (cert: string) => describeCertificate(cert).keyFingerprint;

test("certificates: killed after any write, a run leaves a pair that fits", async (dir) => {
  const paths = [`${dir}/cert.pem`, `${dir}/key.pem`] as const;
  const work = async (...argv: string[]) =>
    (await certificateWork(
      parse(argv, USAGE, { default: { days: "2" } }),
      dir,
      [],
    )).files;
  // The first time, the next run makes what is missing.
  const [first] = await work();
  await replaceFiles([first!]);
  const rest = await work();
  await replaceFiles(rest);
  const old = await readPair(...paths, {});
  assertEquals(old.key, first!.text);
  const files = await work("--renew", "--new-key");
  assertEquals(files.map(({ path }) => path), [paths[1], ...paths]);
  for (const [index, file] of files.entries()) {
    await replaceFiles([file]);
    // A renewal then is for the key of the certificate that is there.
    const [renewed] = await work("--renew");
    const used = index === 0 ? old : { cert: files[1]!.text };
    assertEquals(keyOf(renewed!.text), keyOf(used.cert));
    const now = await readPair(...paths, {});
    assertEquals(now.cert === old.cert, index === 0);
    assertEquals(await work(), []);
  }
  assertEquals((await Deno.readTextFile(paths[1])).includes(old.key), false);
});
