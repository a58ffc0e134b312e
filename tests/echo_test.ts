import { assertEquals, assertRejects } from "@std/assert";
import { echo } from "../handlers/echo.ts";
import { type Channel, ChannelError } from "../lib/mod.ts";
import { channels } from "./channels.ts";

const FOREVER = new AbortController().signal;

Deno.test("echo: what comes goes back, up to the end", async () => {
  const [client, server] = await channels();
  const echoing = echo(server, FOREVER);
  await client.write(new TextEncoder().encode("there and back"));
  await client.closeWrite();
  assertEquals(await new Response(client.readable).text(), "there and back");
  await echoing;
  await client.closed;
});

Deno.test("echo: a channel that fails after its end has failed", async () => {
  const reason = new ChannelError("cut", "The peer cut the connection");
  const channel: Pick<Channel, "read" | "write" | "closeWrite" | "closed"> = {
    read: () => Promise.resolve(null),
    write: () => Promise.resolve(0),
    closeWrite: () => Promise.resolve(),
    closed: Promise.reject(reason),
  };
  const error = await assertRejects(
    () => echo(channel as Channel, FOREVER),
    ChannelError,
  );
  assertEquals(error, reason);
});
