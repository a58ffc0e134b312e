/**
 * Preloaded into a program: at SIGUSR2 it tries what a program may do, and says
 * on stderr what it was let do.
 *
 * @module
 */

const here = new URL(".", import.meta.url);

/** Each does no harm where it is let. */
const ATTEMPTS: Record<string, () => unknown> = {
  read: () => Deno.readTextFile(new URL(import.meta.url)),
  write: () => Deno.mkdir(here),
  listen: () => Deno.listen({ hostname: "127.0.0.1", port: 0 }).close(),
  connect: () => Deno.connect({ hostname: "127.0.0.1", port: 9 }),
  run: () => new Deno.Command("true").output(),
  env: () => Deno.env.get("HOME"),
  sys: () => Deno.hostname(),
  ffi: () => Deno.dlopen("libc.so.6", {}),
};

Deno.addSignalListener("SIGUSR2", async () => {
  const done: string[] = [];
  for (const [name, attempt] of Object.entries(ATTEMPTS)) {
    try {
      await attempt();
      done.push(name);
    } catch (error) {
      // What fails in another way was tried.
      if (!(error instanceof Deno.errors.NotCapable)) done.push(name);
    }
  }
  console.error(`let: ${done.join(" ")}.`);
});
