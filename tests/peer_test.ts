/**
 * The order of messages, between the independent implementation and itself, and
 * between it and our library, in both roles.
 */

import { assert, assertEquals } from "@std/assert";
import { connect } from "../lib/deno.ts";
import {
  type Channel,
  ChannelError,
  type ChannelErrorCode,
} from "../lib/mod.ts";
import { respondChannel } from "../lib/lock/channel.ts";
import { MAY_RUN, withCerts } from "./programs.ts";
import { lacksPeer, PythonPeer } from "./python_peer.ts";
import { lacksPermissions, testUnless } from "./requirements.ts";

const reason = lacksPermissions(...MAY_RUN) ?? lacksPeer();

/** A session in which one side breaks a rule, in the peer's steps. */
interface Fault {
  by: "client" | "server";
  client: string;
  server: string;
  /** What the other side says of it, if that is the peer. */
  error: string;
}

const byClient = (client: string, error: string): Fault => //
({ by: "client", client, server: "", error });
const byServer = (client: string, server: string, error: string): Fault => //
({ by: "server", client, server, error });

/** What no side may say at any time: sealed right, said wrong. */
const MALFORMED = [
  ["raw=", "a frame of 16 bytes"],
  ["raw=00", "malformed data"],
  ["raw=0100", "malformed end"],
  ["raw=0200", "malformed ping"],
  ["raw=0300", "malformed pong"],
  ["raw=0400", "malformed open"],
  ["raw=05", "malformed bye"],
  ["raw=050606", "malformed bye"],
  ["raw=0600", "malformed offer"],
  ["raw=07", "unknown type"],
  ["raw=ff06", "unknown type"],
] as const;

const FAULTS: Fault[] = [
  ...MALFORMED.flatMap(([message, error]) => [
    byClient(`>ping+open+${message}`, error),
    byServer(">ping+open", `<open >${message}`, error),
  ]),
  // Before the proof.
  byClient(">data=x", "data out of order"),
  byClient(">end", "end out of order"),
  byClient(">pong", "pong out of order"),
  byClient(">open", "open out of order"),
  byClient(">bye=6", "bye out of order"),
  byClient(">offer", "offer out of order"),
  // Before the stream has begun.
  byClient(">ping+data=x", "data out of order"),
  byClient(">ping+end", "end out of order"),
  byServer(">ping", "<ping >pong+data=x", "data out of order"),
  byServer(">ping", "<ping >pong+end", "end out of order"),
  // Who begins it, and how often.
  byClient(">ping+open+open", "open out of order"),
  byClient(">ping+open+end+open", "open out of order"),
  byServer(">ping", "<ping >pong+open", "open out of order"),
  byServer(">ping+open", "<open >open", "open out of order"),
  byServer(">ping", "<ping >pong+offer", "offer out of order"),
  byServer(">ping+open", "<open >offer", "offer out of order"),
  // After its end.
  byClient(">ping+open+end+data=x", "data out of order"),
  byClient(">ping+open+end+end", "end out of order"),
  byServer(">ping+open", "<open >end+data=x", "data out of order"),
  byServer(">ping+open", "<open >end+end", "end out of order"),
];

/** Of an offered session. */
const OFFER_FAULTS: Fault[] = [
  byClient(">ping+offer+data=x", "data out of order"),
  byClient(">ping+offer+end", "end out of order"),
  byClient(">ping+offer+open", "open out of order"),
  byClient(">ping+offer+offer", "offer out of order"),
  byClient(">ping+open+offer", "offer out of order"),
  byClient(">ping+open+end+offer", "offer out of order"),
  byServer(">ping+offer", "<offer >data=x", "data out of order"),
  byServer(">ping+offer", "<offer >end", "end out of order"),
  byServer(">ping+offer", "<offer >open+open", "open out of order"),
  byServer(">ping+offer", "<offer >offer", "offer out of order"),
  byServer(">ping+offer", "<offer >open+offer", "offer out of order"),
];

/** What may not follow a bye: nobody looks at it. */
const AFTER_BYE = ["ping", "pong", "data=x", "end", "bye=6", "raw=07"];

/** The codes of a bye, by their numbers; any other is `aborted`. */
const CODES: [number, ChannelErrorCode][] = [
  [1, "service"],
  [2, "backend"],
  [3, "limit"],
  [4, "revoked"],
  [5, "stopping"],
  [6, "aborted"],
  [7, "timeout"],
  [0, "aborted"],
  [8, "aborted"],
  [255, "aborted"],
];

/** Where in a session a bye is said: what comes before it. */
const STAGES: { name: string; client: string; server: string }[] = [
  { name: "before the open", client: ">ping", server: "<ping >pong" },
  {
    name: "mid-stream",
    client: ">ping+open+data=hello <data=HELLO",
    server: "<open+data=hello >data=HELLO",
  },
  {
    name: "after the client's end",
    client: ">ping+open+data=hello+end <data=HELLO",
    server: "<open+data=hello+end >data=HELLO",
  },
  {
    name: "after the server's end",
    client: ">ping+open+data=hello <data=HELLO+end",
    server: "<open+data=hello >data=HELLO+end",
  },
];

testUnless(
  reason,
  "peer.py: it notices what breaks the rules",
  withCerts(async (dir) => {
    await using server = await PythonPeer.server(dir);
    await using client = PythonPeer.client(dir, server.port);
    const both = async (clientSteps: string, serverSteps: string) => {
      const [{ result: ofClient }, { result: ofServer }] = await Promise.all([
        client.run(`default ${clientSteps}`),
        server.run(`- ${serverSteps}`),
      ]);
      return { ofClient, ofServer };
    };
    for (const fault of [...FAULTS, ...OFFER_FAULTS]) {
      const { ofClient, ofServer } = await both(fault.client, fault.server);
      const heard = fault.by === "client" ? ofServer : ofClient;
      assertEquals(heard, `error: ${fault.error}`, JSON.stringify(fault));
    }
    for (const message of AFTER_BYE) {
      const { ofServer } = await both(`>ping+bye=6+${message}`, "");
      assert(/^error: (\w+ out of order|unknown type)$/.test(ofServer));
    }
    for (const [number, code] of CODES) {
      for (const stage of STAGES) {
        const bye = `bye=${number}`;
        const said = { ofClient: "said bye", ofServer: `heard bye ${code}` };
        assertEquals(
          await both(`${stage.client} >${bye}`, `${stage.server} <${bye}`),
          said,
        );
        assertEquals(
          await both(`${stage.client} <${bye}`, `${stage.server} >${bye}`),
          { ofClient: said.ofServer, ofServer: said.ofClient },
        );
      }
    }
  }),
);

/** How our side talks. */
interface Manner {
  /** It says hello as a client, or answers it as a server; else nothing. */
  talks?: boolean;
  /** It ends its stream then. */
  ends?: boolean;
  /** It gives the session up then. */
  gives?: unknown;
}

/** What a session came to at our side. */
interface Ours {
  text: string;
  code: ChannelErrorCode | "end";
  isFromPeer: boolean;
}

/** Our server's next session. */
async function serve(
  listener: Deno.TlsListener,
  psk: string,
  manner: Manner,
): Promise<Ours> {
  const conn = await listener.accept();
  return await outcome(
    (async () => {
      return await respondChannel(conn, { psk, idleTimeout: 0 });
    })(),
    manner,
  );
}

/** What a channel came to: all that it read, and how it ended. */
async function outcome(
  opening: Promise<Channel>,
  { talks, ends, gives }: Manner,
  greeting = "",
): Promise<Ours> {
  let text = "";
  try {
    const channel = await opening;
    const p = new Uint8Array(1000);
    const read = async () => {
      const count = await channel.read(p);
      text += new TextDecoder().decode(p.subarray(0, count ?? 0));
      return count !== null;
    };
    const write = async (text: string) => {
      await channel.write(new TextEncoder().encode(text));
      if (ends) await channel.closeWrite();
    };
    if (talks && greeting) await write(greeting);
    while (talks && text.length < "hello".length) await read();
    if (talks && !greeting) await write("HELLO");
    if (gives !== undefined) {
      await channel.confirmed;
      channel.abort(gives);
    }
    while (talks && await read());
    await channel.closed;
    return { text, code: "end", isFromPeer: false };
  } catch (error) {
    assert(error instanceof ChannelError, String(error));
    return { text, code: error.code, isFromPeer: error.isFromPeer };
  }
}

/** Our library's two roles, each with a peer in the other. */
async function withLibrary(
  dir: string,
  work: (
    /** Our server, and the steps of a client. */
    ofServer: (steps: string, manner: Manner) => Promise<[string, Ours]>,
    /** Our client, and the steps of a server. */
    ofClient: (steps: string, manner: Manner) => Promise<[string, Ours]>,
  ) => Promise<void>,
): Promise<void> {
  const [cert, key, psk] = await Promise.all(
    ["cert", "key", "psk"].map((name) =>
      Deno.readTextFile(`${dir}/${name}.${name === "psk" ? "txt" : "pem"}`)
    ),
  ) as [string, string, string];
  using listener = Deno.listenTls({
    hostname: "127.0.0.1",
    port: 0,
    cert,
    key,
  });
  await using server = await PythonPeer.server(dir);
  await using client = PythonPeer.client(
    dir,
    (listener.addr as Deno.NetAddr).port,
  );
  await work(
    async (steps, manner) => {
      const [{ result }, ours] = await Promise.all([
        client.run(`default ${steps}`),
        serve(listener, psk, manner),
      ]);
      return [result, ours];
    },
    async (steps, manner) => {
      const [{ result }, ours] = await Promise.all([
        server.run(`- ${steps}`),
        outcome(
          connect({
            port: server.port,
            caCerts: [cert],
            psk,
            idleTimeout: 0,
            standby: !manner.talks,
          }),
          manner,
          "hello",
        ),
      ]);
      return [result, ours];
    },
  );
}

testUnless(
  reason,
  "library: whatever the peer may not say ends the session in silence",
  withCerts((dir) =>
    withLibrary(dir, async (ofServer, ofClient) => {
      for (const { by, client, server } of FAULTS) {
        const [theirs, { code }] = by === "client"
          ? await ofServer(client, {})
          : await ofClient(server, { talks: client.includes("open") });
        const told = `${by}: ${client} ${server}: ${theirs}`;
        assertEquals(code, "protocol", told);
        assert(/^(closed|said)/.test(theirs), told);
      }
    })
  ),
);

testUnless(
  reason,
  "library: nothing that follows a bye is looked at",
  withCerts((dir) =>
    withLibrary(dir, async (ofServer, ofClient) => {
      const talks = { talks: true };
      const ours = { code: "aborted" as const, isFromPeer: true };
      for (const message of AFTER_BYE) {
        assertEquals(
          await ofServer(`>ping+open+data=hello+bye=6+${message}`, talks),
          ["said bye", { text: "hello", ...ours }],
        );
        assertEquals(
          await ofClient(`<open >data=HELLO+bye=6+${message}`, talks),
          ["said bye", { text: "HELLO", ...ours }],
        );
      }
    })
  ),
);

testUnless(
  reason,
  "library: a client hears a bye in place of the pong",
  withCerts((dir) =>
    withLibrary(dir, async (_, ofClient) => {
      assertEquals(
        await ofClient("<ping >bye=3", {}),
        ["said bye", { text: "", code: "limit", isFromPeer: true }],
      );
    })
  ),
);

/** What stands in the stages' names for what our side does in them. */
const mannersOf = (name: string, role: "client" | "server"): Manner => ({
  talks: name !== "before the open",
  ends: name.includes(role),
});

for (const stage of STAGES) {
  const text = stage.name === "before the open" ? "" : "hello";

  testUnless(
    reason,
    `library: it hears a bye ${stage.name}, of any code`,
    withCerts((dir) =>
      withLibrary(dir, async (ofServer, ofClient) => {
        for (const [number, code] of CODES) {
          const bye = `>bye=${number}`;
          assertEquals(
            await ofServer(
              `${stage.client} ${bye}`,
              mannersOf(stage.name, "server"),
            ),
            ["said bye", { text, code, isFromPeer: true }],
          );
          assertEquals(
            await ofClient(
              `${stage.server} ${bye}`,
              mannersOf(stage.name, "client"),
            ),
            ["said bye", { text: text.toUpperCase(), code, isFromPeer: true }],
          );
        }
      })
    ),
  );

  testUnless(
    reason,
    `library: it says a bye ${stage.name}, of any code`,
    withCerts((dir) =>
      withLibrary(dir, async (ofServer, ofClient) => {
        for (const [number, code] of CODES.slice(0, 7)) {
          const gives = new ChannelError(code, "A test gave it up");
          const bye = `<bye=${number}`;
          const ours = { code, isFromPeer: false };
          assertEquals(
            await ofServer(`${stage.client} ${bye}`, {
              ...mannersOf(stage.name, "server"),
              gives,
            }),
            [`heard bye ${code}`, { text, ...ours }],
          );
          assertEquals(
            await ofClient(`${stage.server} ${bye}`, {
              ...mannersOf(stage.name, "client"),
              gives,
            }),
            [`heard bye ${code}`, { text: text.toUpperCase(), ...ours }],
          );
        }
      })
    ),
  );
}
