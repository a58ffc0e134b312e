/**
 * Which key opens what: the holder of each line of a key file, asking for each
 * identity. The line `NAME` opens every service of its client, `NAME@SERVICE`
 * that one alone.
 */

import { assertEquals, assertRejects } from "@std/assert";
import { encodeFrames } from "../lib/lock/frame.ts";
import { initiate, respond } from "../lib/lock/handshake.ts";
import { takePsks } from "../lib/lock/psk.ts";
import { Tracer } from "../lib/lock/trace.ts";
import { toTransport, writeAll } from "../lib/lock/transport.ts";
import { listen } from "../lib/deno.ts";
import {
  acceptChannel,
  ChannelError,
  connectChannel,
  type StreamPair,
  type Transport,
} from "../lib/mod.ts";
import { sealed } from "./engines.ts";
import { duplex } from "./duplex.ts";
import { MAY_RUN, withCerts } from "./programs.ts";
import { lacksPeer, PythonPeer } from "./python_peer.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";
import { ping } from "./raw_peer.ts";

/** What each line opens: this table is the rule. */
const OPENS: Record<string, string[]> = {
  alice: ["alice", "alice@db", "alice@web", "alice@alice"],
  "alice@db": ["alice@db"],
  "bob@db": ["bob@db"],
  "bob@ssh": ["bob@ssh"],
  db: ["db", "db@web"],
};
const LINES = Object.keys(OPENS);

/** What is asked for: what some line opens, and what looks like it. */
const ASKED = [
  ...new Set(Object.values(OPENS).flat()),
  ...["bob", "bob@web", "bob@db@ssh", "bob@db@db", "alice@db@web", "db@web@x"],
  ...["alice@db@", "alice@", "@db", "@", "@@", "@bob@db", "bob@", "Alice"],
  ...["alice2", "ali", "", "alice ", "alice\n", "bob@db\n", "nobody@db"],
];

const keyOf = (line: string) =>
  `${LINES.indexOf(line)}${LINES.indexOf(line)}`.repeat(32);
const linesOf = (lines: string[]) =>
  lines.map((line) => `${line}:${keyOf(line)}\n`).join("");

/** Whether a line opens an identity, in a file of these lines. */
const isOpenedBy = (line: string, identity: string, lines: string[]) =>
  OPENS[line]!.includes(identity) &&
  // An identity's own line comes first.
  (line === identity || !lines.includes(identity));

/** Those of all pairs that hold, each as `LINE → IDENTITY`. */
async function matrix(
  opens: (line: string, identity: string) => Promise<boolean> | boolean,
): Promise<string[]> {
  const pairs: string[] = [];
  for (const line of LINES) {
    for (const identity of ASKED) {
      if (await opens(line, identity)) pairs.push(`${line} → ${identity}`);
    }
  }
  return pairs;
}

const tracer = new Tracer(undefined);

/** A client that proves any identity with any key, up to its ping. */
async function proves(
  end: StreamPair | Transport,
  key: string,
  identity: string,
): Promise<void> {
  const transport = toTransport(end);
  const psk = Uint8Array.fromHex(key);
  try {
    const { sending } = await initiate(transport, psk, identity, tracer);
    await writeAll(transport, encodeFrames([await sealed(sending, ping)]));
  } finally {
    transport.close();
  }
}

for (
  const [name, linesFor] of [
    ["its line alone", (line: string) => [line]],
    ["all lines", () => LINES],
  ] as const
) {
  Deno.test(`access: a server with ${name} lets in by them`, async () => {
    const seen = await matrix(async (line, identity) => {
      const [near, far] = duplex();
      const transport = toTransport(far);
      const psks = takePsks(linesOf(linesFor(line)));
      const proving = proves(near, keyOf(line), identity).catch(() => {});
      try {
        const result = await respond(transport, psks, tracer);
        assertEquals(result.identity, identity);
        return true;
      } catch (error) {
        if (error instanceof ChannelError) return false;
        throw error;
      } finally {
        transport.close();
        await proving;
      }
    });
    const expected = await matrix((line, identity) =>
      isOpenedBy(line, identity, linesFor(line))
    );
    assertEquals(seen, expected);
  });
}

Deno.test("access: a client with one line says no more than it opens", async () => {
  const seen = await matrix(async (line, identity) => {
    let said = 0;
    const transport = {
      read: () => Promise.resolve(null),
      write: (p: Uint8Array) => {
        said += p.length;
        return Promise.resolve(p.length);
      },
      closeWrite: () => Promise.resolve(),
      close: () => {},
    };
    const psk = linesOf([line]);
    const error = await assertRejects(
      () => connectChannel(transport, { psk, identity }),
      Error,
    );
    assertEquals(error instanceof TypeError, said === 0, identity);
    return said > 0;
  });
  assertEquals(
    seen,
    await matrix((line, identity) => isOpenedBy(line, identity, [line])),
  );
});

Deno.test("access: both sides take each identity's own key", async () => {
  for (const identity of new Set(Object.values(OPENS).flat())) {
    const [near, far] = duplex();
    const psk = linesOf(LINES);
    const [client, server] = await Promise.all([
      connectChannel(near, { psk, identity }),
      acceptChannel(far, { psk }),
    ]);
    assertEquals(server.identity, identity);
    assertEquals(server.service, identity.split("@")[1]);
    client.abort();
    server.abort();
  }
});

/** What the peer's script can say: an identity is a word of it. */
const canBeScripted = (identity: string) => /^[^\s:]+$/.test(identity);

const EXPECTED = await matrix((line, identity) =>
  isOpenedBy(line, identity, LINES)
);
const reason = lacksPermissions(...MAY_RUN) ?? lacksPeer();

testUnless(
  reason,
  "access: a client in Python comes in by the same rule",
  withCerts(async (dir) => {
    await Deno.writeTextFile(`${dir}/psk.txt`, linesOf(LINES));
    const [cert, key] = await Promise.all(
      ["cert.pem", "key.pem"].map((name) =>
        Deno.readTextFile(`${dir}/${name}`)
      ),
    );
    using listener = listen({
      port: 0,
      psk: linesOf(LINES),
      cert: cert!,
      key: key!,
    });
    await using peer = PythonPeer.client(dir, listener.addr.port);
    const seen = await matrix(async (line, identity) => {
      if (!canBeScripted(identity)) return false;
      const session = `${identity}:${line} >ping <pong >cut`;
      return (await peer.run(session)).result === "closed by this side";
    });
    assertEquals(seen, EXPECTED);
    await listener.shutdown();
  }),
);

testUnless(
  reason,
  "access: a server in Python lets in by the same rule",
  withCerts(async (dir) => {
    await Deno.writeTextFile(`${dir}/psk.txt`, linesOf(LINES));
    const caCerts = [await Deno.readTextFile(`${dir}/cert.pem`)];
    await using peer = await PythonPeer.server(dir);
    const seen = await matrix(async (line, identity) => {
      if (!canBeScripted(identity)) return false;
      const session = peer.run("- <ping >cut");
      const conn = await Deno.connectTls({ port: peer.port, caCerts });
      await proves(conn, keyOf(line), identity).catch(() => {});
      return (await session).identity === identity;
    });
    assertEquals(seen, EXPECTED);
  }),
);
