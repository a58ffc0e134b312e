import { assert, assertEquals } from "@std/assert";
import { FollowedFiles, type FollowOptions } from "../cli/followed_files.ts";
import { lacksPermissions, testInFolder } from "./requirements.ts";

const test = (name: string, fn: (dir: string) => Promise<void>) =>
  testInFolder(
    lacksPermissions("read", "write"),
    `FollowedFiles: ${name}`,
    fn,
  );

/** Follows two files, and lets a test wait for what comes of it. */
class Followed implements Disposable {
  readonly files: FollowedFiles<string>;
  readonly events: string[] = [];
  /** While it is there, nothing is put in force. */
  gate: Promise<void> | undefined;
  /** Whether one state was taken while another was. */
  overlapped = false;
  /** How often the files have been read. */
  reads = 0;
  #more = Promise.withResolvers<void>();
  #seen = 0;

  constructor(dir: string, options: FollowOptions = {}) {
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
    this.files = new FollowedFiles(files, read, { interval: 5, ...options });
  }

  follow(): void {
    const event = (text: string) => {
      this.events.push(text);
      this.#moves();
    };
    let isTaking = false;
    this.files.follow({
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
    this.files[Symbol.dispose]();
  }
}

async function followed(
  dir: string,
  options?: FollowOptions,
): Promise<Followed> {
  await Deno.writeTextFile(`${dir}/one`, "a");
  await Deno.writeTextFile(`${dir}/two`, "b");
  const followed = new Followed(dir, options);
  assertEquals(await followed.files.read(), "a,b");
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
  await files.files.read();
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
  files.files.reload();
  assertEquals(await files.next(), "failed: bad,b");
});

test("files that stay bad are read less and less often", async (dir) => {
  using files = await followed(dir);
  await replace(`${dir}/one`, "bad");
  assertEquals(await files.next(), "failed: bad,b");
  const start = performance.now();
  await files.haveBeenRead(files.reads + 5);
  // Pauses of 10, 20, 40, 80 and 160 ms; no load makes them shorter.
  const waited = performance.now() - start;
  assert(waited > 250, `${waited} ms`);
  assertEquals(files.events.length, 1);
});

test("reload: all that is asked meanwhile is one more, of the last state", async (dir) => {
  // It looks only when it is asked.
  using files = await followed(dir, { interval: 1e9 });
  const gate = Promise.withResolvers<void>();
  files.gate = gate.promise;
  for (let i = 0; i < 100; i++) files.files.reload();
  await Deno.writeTextFile(`${dir}/one`, "last");
  // While the first is put in force.
  for (let i = 0; i < 100; i++) {
    await Deno.stat(dir);
    files.files.reload();
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
  await files.files.read();
  files.files.reload();
  files.follow();
  assertEquals(await files.next(), "a,b");
});

test("a file that changes from look to look is left alone", async (dir) => {
  await Deno.writeTextFile(`${dir}/one`, "a");
  await Deno.writeTextFile(`${dir}/two`, "b");
  let looks = 0;
  const changing = Promise.withResolvers<void>();
  using files = new Followed(dir, {
    stat: async (file) => {
      const info = await Deno.stat(file as string);
      looks++;
      if (looks === 20) changing.resolve();
      return { ...info, size: Math.min(looks, 40) };
    },
  });
  await files.files.read();
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
  using files = new Followed(dir, {
    stat: async (file) => {
      const info = await Deno.stat(file as string);
      if (++looks === 20) enough.resolve();
      return { ...info, size: Math.min(looks, 5), isFile: false };
    },
  });
  await files.files.read();
  files.follow();
  await enough.promise;
  assertEquals(files.reads, 1);
});

test("a file that always changes is read in the end", async (dir) => {
  await Deno.writeTextFile(`${dir}/one`, "a");
  await Deno.writeTextFile(`${dir}/two`, "b");
  let looks = 0;
  using files = new Followed(dir, {
    stat: async (file) => ({ ...await Deno.stat(file), size: looks++ }),
  });
  await files.files.read();
  const before = looks;
  files.follow();
  assertEquals(await files.next(), "a,b");
  assertEquals(looks - before >= 2 * 40, true, String(looks - before));
});

test("a file system that does not answer is told, each time somebody asks", async (dir) => {
  for (const place of ["stat", "read", "take"] as const) {
    await Deno.writeTextFile(`${dir}/one`, "a");
    await Deno.writeTextFile(`${dir}/two`, "b");
    let isStuck = false;
    const released = Promise.withResolvers<void>();
    const stuckIn = (here: string) =>
      isStuck && here === place ? released.promise : undefined;
    const events: string[] = [];
    let more = Promise.withResolvers<void>();
    const event = (text: string) => {
      events.push(text);
      more.resolve();
      more = Promise.withResolvers();
    };
    const has = async (count: number) => {
      while (events.length < count) await more.promise;
    };
    using files = new FollowedFiles(
      [`${dir}/one`],
      async () => {
        await stuckIn("read");
        return await Deno.readTextFile(`${dir}/one`);
      },
      {
        interval: 5,
        patience: 20,
        stat: async (file) => {
          await stuckIn("stat");
          return await Deno.stat(file);
        },
      },
    );
    await files.read();
    files.follow({
      take: () => stuckIn("take"),
      taken: event,
      failed: (error) => event((error as Error).message.replace(dir, "")),
    });
    isStuck = true;
    files.reload();
    await has(1);
    files.reload();
    await has(2);
    const late = "/one: reading them, or taking what they say, has not ended " +
      "within 0.02 s; it goes on";
    assertEquals(events, [late, late], place);
    isStuck = false;
    released.resolve();
    // What was asked for meanwhile is done as well.
    while (events.filter((text) => text === "a").length < 2) await more.promise;
  }
});
