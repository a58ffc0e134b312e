/** What a server, or whoever takes its place, can do to the client's programs. */

import { assertEquals, assertMatch } from "@std/assert";
import { acceptChannel, type PskMap } from "../lib/mod.ts";
import { encodeFrames } from "../lib/lock/frame.ts";
import { respond } from "../lib/lock/handshake.ts";
import { Type } from "../lib/lock/message.ts";
import { parsePsk, takePsks } from "../lib/lock/psk.ts";
import { Tracer } from "../lib/lock/trace.ts";
import { nextTurn } from "../lib/lock/runtime.ts";
import { writeAll } from "../lib/lock/transport.ts";
import { clientFlags, programTests, start, TestEntrance } from "./programs.ts";
import { sealed } from "./engines.ts";

const test = programTests("hostile server: ");

/** A server that does what a test wants with each connection. */
class Hostile implements AsyncDisposable {
  readonly #listener: Deno.TlsListener;
  readonly #work: Promise<unknown>[] = [];
  readonly #conns: Deno.TlsConn[] = [];
  readonly #accepting: Promise<void>;

  constructor(
    dir: string,
    serve: (conn: Deno.TlsConn, psk: PskMap, index: number) => Promise<unknown>,
  ) {
    const read = (name: string) => Deno.readTextFileSync(`${dir}/${name}`);
    const psk = parsePsk(read("psk.txt"));
    const listener = this.#listener = Deno.listenTls({
      hostname: "127.0.0.1",
      port: 0,
      cert: read("cert.pem"),
      key: read("key.pem"),
      alpnProtocols: ["innerlock/1"],
    });
    this.#accepting = (async () => {
      for await (const conn of listener) {
        this.#conns.push(conn);
        const index = this.#work.length;
        this.#work.push(serve(conn, psk, index).catch(() => {}));
      }
    })();
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.#accepting;
    await Promise.all(this.#work);
    for (const conn of this.#conns) {
      try {
        conn.close();
      } catch {
        // It has been closed.
      }
    }
  }
}

/** Proves the key, and sends messages of one kind until the client is gone. */
const flood = (message: Uint8Array<ArrayBuffer>) =>
async (
  conn: Deno.TlsConn,
  psk: PskMap,
): Promise<void> => {
  const { sending } = await respond(
    conn,
    takePsks(psk),
    new Tracer(undefined),
  );
  while (true) {
    const seals = Array.from({ length: 500 }, () => sealed(sending, message));
    await writeAll(conn, encodeFrames(await Promise.all(seals)));
    // This process has to see what the client does, too.
    await nextTurn();
  }
};

const FLOODS = {
  pings: Uint8Array.of(Type.ping),
  pongs: Uint8Array.of(Type.pong),
};

for (const [name, message] of Object.entries(FLOODS)) {
  test(`under a flood of ${name} the check ends, and a SIGTERM counts`, async (dir) => {
    await using server = new Hostile(dir, flood(message));
    const flags = clientFlags(dir, server.port);
    const checking = start("client", [...flags, "--check"]);
    await checking.stdin.close();
    const { code, stdout } = await checking.output();
    const text = new TextDecoder().decode(stdout);
    assertEquals(code, 1, text);
    assertMatch(text, /^\? backend: no answer within /m);
    await using entrance = await TestEntrance.start(dir, server.port);
    await entrance.logged("ready: ");
    assertEquals((await entrance.stop()).code, 0);
  });
}

test("one that goes away in a handshake is not said to refuse a key that it took", async (dir) => {
  const { promise: isReady, resolve: ready } = Promise.withResolvers<void>();
  await using server = new Hostile(dir, async (conn, psk, index) => {
    if (index > 0) {
      await conn.read(new Uint8Array(1000));
      return conn.close();
    }
    // One session, which is gone when the client knows it.
    const session = acceptChannel(conn, { psk });
    session.catch(() => {});
    await isReady;
    conn.close();
  });
  await using entrance = await TestEntrance.start(dir, server.port);
  await entrance.logged("ready: ");
  ready();
  await entrance.logged("the key of default was revoked or replaced; trying");
  const { code, log } = await entrance.stop();
  assertEquals(code, 0);
  assertMatch(log, /during the handshake: it has stopped, or the key/);
  assertEquals(log.includes("does not know this identity"), false, log);
});
