import { assertEquals } from "@std/assert";
import { Credentials } from "../cli/credentials.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const test = (name: string, fn: (dir: string) => Promise<void>) =>
  testUnless(
    lacksPermissions("read", "write"),
    `Credentials: ${name}`,
    async () => {
      const dir = await Deno.makeTempDir({ prefix: "innerlock-test-" });
      try {
        await fn(dir);
      } finally {
        await Deno.remove(dir, { recursive: true });
      }
    },
  );

/** Follows two files, and lets a test wait for what comes of it. */
class Followed implements Disposable {
  readonly credentials: Credentials<string>;
  readonly events: string[] = [];
  /** While it is there, nothing is put in force. */
  gate: Promise<void> | undefined;
  /** Whether one state was taken while another was. */
  overlapped = false;
  /** How often the files have been read. */
  reads = 0;
  #more = Promise.withResolvers<void>();
  #seen = 0;

  constructor(dir: string, stat = Deno.stat, interval = 5) {
    const read = async () => {
      const texts = ["one", "two"].map((name) =>
        Deno.readTextFile(`${dir}/${name}`)
      );
      const text = (await Promise.all(texts)).join();
      this.reads++;
      this.#moves();
      if (text.includes("bad")) throw new Error(text);
      return text;
    };
    const files = [`${dir}/one`, `${dir}/two`];
    this.credentials = new Credentials(files, read, interval, stat);
  }

  follow(): void {
    const event = (text: string) => {
      this.events.push(text);
      this.#moves();
    };
    let isTaking = false;
    this.credentials.follow({
      take: async () => {
        this.overlapped ||= isTaking;
        isTaking = true;
        await this.gate;
        isTaking = false;
      },
      taken: event,
      failed: (error) => event(`failed: ${(error as Error).message}`),
    });
  }

  /** The next event. */
  async next(): Promise<string> {
    while (this.events.length === this.#seen) await this.#more.promise;
    return this.events[this.#seen++]!;
  }

  /** Waits until the files have been read so often. */
  async haveBeenRead(times: number): Promise<void> {
    while (this.reads < times) await this.#more.promise;
  }

  #moves(): void {
    this.#more.resolve();
    this.#more = Promise.withResolvers();
  }

  [Symbol.dispose](): void {
    this.credentials[Symbol.dispose]();
  }
}

async function followed(dir: string, interval?: number): Promise<Followed> {
  await Deno.writeTextFile(`${dir}/one`, "a");
  await Deno.writeTextFile(`${dir}/two`, "b");
  const followed = new Followed(dir, Deno.stat, interval);
  assertEquals(await followed.credentials.read(), "a,b");
  followed.follow();
  return followed;
}

/** Writes a file beside its place, then renames it into it. */
async function replace(path: string, text: string): Promise<void> {
  await Deno.writeTextFile(`${path}.new`, text);
  await Deno.rename(`${path}.new`, path);
}

test("a file that is written, or renamed into place, is taken", async (dir) => {
  using files = await followed(dir);
  await Deno.writeTextFile(`${dir}/one`, "longer");
  // A busy machine may show it half written for longer than two looks.
  while (await files.next() !== "longer,b");
  await replace(`${dir}/two`, "c");
  assertEquals(await files.next(), "longer,c");
  await replace(`${dir}/two`, "d");
  assertEquals(await files.next(), "longer,d");
});

test("so is what is behind a link, and another link", async (dir) => {
  await Deno.mkdir(`${dir}/first`);
  await Deno.mkdir(`${dir}/second`);
  await Deno.writeTextFile(`${dir}/first/one`, "a");
  await Deno.writeTextFile(`${dir}/second/one`, "z");
  await Deno.symlink(`${dir}/first`, `${dir}/now`);
  await Deno.symlink(`${dir}/now/one`, `${dir}/one`);
  await Deno.writeTextFile(`${dir}/two`, "b");
  using files = new Followed(dir);
  await files.credentials.read();
  files.follow();
  await replace(`${dir}/first/one`, "c");
  assertEquals(await files.next(), "c,b");
  await Deno.symlink(`${dir}/second`, `${dir}/next`);
  await Deno.rename(`${dir}/next`, `${dir}/now`);
  assertEquals(await files.next(), "z,b");
});

test("what is wrong is told once, and what comes after it is taken", async (dir) => {
  using files = await followed(dir);
  await replace(`${dir}/one`, "bad");
  assertEquals(await files.next(), "failed: bad,b");
  // It is tried again, and fails again.
  await files.haveBeenRead(files.reads + 2);
  await Deno.remove(`${dir}/one`);
  assertEquals((await files.next()).startsWith("failed: No such file"), true);
  await replace(`${dir}/one`, "c");
  assertEquals(await files.next(), "c,b");
  assertEquals(files.events.length, 3);
  // Who asks is told each time.
  await replace(`${dir}/one`, "bad");
  assertEquals(await files.next(), "failed: bad,b");
  files.credentials.reload();
  assertEquals(await files.next(), "failed: bad,b");
});

test("reload: all that is asked meanwhile is one more, of the last state", async (dir) => {
  // It looks only when it is asked.
  using files = await followed(dir, 1e9);
  const gate = Promise.withResolvers<void>();
  files.gate = gate.promise;
  for (let i = 0; i < 100; i++) files.credentials.reload();
  await Deno.writeTextFile(`${dir}/one`, "last");
  // While the first is put in force.
  for (let i = 0; i < 100; i++) {
    await Deno.stat(dir);
    files.credentials.reload();
  }
  files.gate = undefined;
  gate.resolve();
  while (await files.next() !== "last,b");
  assertEquals(files.overlapped, false);
  assertEquals(files.events.length <= 3, true, files.events.join(" "));
});

test("reload: before it follows it is remembered", async (dir) => {
  await Deno.writeTextFile(`${dir}/one`, "a");
  await Deno.writeTextFile(`${dir}/two`, "b");
  using files = new Followed(dir);
  await files.credentials.read();
  files.credentials.reload();
  files.follow();
  assertEquals(await files.next(), "a,b");
});

test("a file that changes from look to look is left alone", async (dir) => {
  await Deno.writeTextFile(`${dir}/one`, "a");
  await Deno.writeTextFile(`${dir}/two`, "b");
  let looks = 0;
  const changing = Promise.withResolvers<void>();
  using files = new Followed(dir, async (file) => {
    const info = await Deno.stat(file as string);
    looks++;
    if (looks === 20) changing.resolve();
    return { ...info, size: Math.min(looks, 40) };
  });
  await files.credentials.read();
  files.follow();
  await changing.promise;
  assertEquals(files.reads, 1);
  // At last it stays as it is.
  assertEquals(await files.next(), "a,b");
});

test("what is no file is not read twice", async (dir) => {
  await Deno.writeTextFile(`${dir}/one`, "a");
  await Deno.writeTextFile(`${dir}/two`, "b");
  let looks = 0;
  const enough = Promise.withResolvers<void>();
  using files = new Followed(dir, async (file) => {
    const info = await Deno.stat(file as string);
    if (++looks === 20) enough.resolve();
    return { ...info, size: Math.min(looks, 5), isFile: false };
  });
  await files.credentials.read();
  files.follow();
  await enough.promise;
  assertEquals(files.reads, 1);
});
