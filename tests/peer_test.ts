/**
 * The order of messages, between the independent implementation and itself, and
 * between it and our library, in both roles.
 */

import { assert, assertEquals } from "@std/assert";
import { connect, listen } from "../lib/deno.ts";
import {
  type Channel,
  ChannelError,
  type ChannelErrorCode,
} from "../lib/mod.ts";
import { SessionChannel, shakeHands } from "../lib/lock/channel.ts";
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

function byClient(client: string, error: string): Fault {
  return { by: "client", client, server: "", error };
}

function byServer(client: string, server: string, error: string): Fault {
  return { by: "server", client, server, error };
}

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

interface Stage {
  name: string;
  client: string;
  server: string;
  offers?: boolean;
}

/** Where in a session a bye is said: what comes before it. */
const STAGES: Stage[] = [
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
  {
    name: "before the open of an offer",
    client: ">ping+offer",
    server: "<offer",
    offers: true,
  },
  {
    name: "mid-stream of an offer",
    client: ">ping+offer <open+data=hello >data=HELLO",
    server: "<offer >open+data=hello <data=HELLO",
    offers: true,
  },
  {
    name: "after the client's end of an offer",
    client: ">ping+offer <open+data=hello >data=HELLO+end",
    server: "<offer >open+data=hello <data=HELLO+end",
    offers: true,
  },
  {
    name: "after the server's end of an offer",
    client: ">ping+offer <open+data=hello+end >data=HELLO",
    server: "<offer >open+data=hello+end <data=HELLO",
    offers: true,
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
    for (const stage of STAGES) {
      for (const [number, code] of codesAt(stage)) {
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
  /** Whoever begins the stream says hello, the other one answers; else nothing. */
  talks?: boolean;
  /** The client offers the session, and the server begins the stream. */
  offers?: boolean;
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

/** What a channel came to: all that it read, and how it ended. */
async function outcome(
  role: "client" | "server",
  opening: Promise<SessionChannel | Channel>,
  { talks, offers = false, ends, gives }: Manner,
): Promise<Ours> {
  const begins = (role === "server") === offers;
  let text = "";
  try {
    const channel = await opening;
    if (offers && channel instanceof SessionChannel) await channel.offered;
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
    if (talks && begins) await write("hello");
    while (talks && text.length < "hello".length && await read());
    if (talks && !begins) await write("HELLO");
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
        outcome(
          "server",
          listener.accept().then((conn) =>
            shakeHands(conn, "server", { psk, idleTimeout: 0 })
          ),
          manner,
        ),
      ]);
      return [result, ours];
    },
    async (steps, manner) => {
      const [{ result }, ours] = await Promise.all([
        server.run(`- ${steps}`),
        outcome(
          "client",
          connect({
            port: server.port,
            caCerts: [cert],
            psk,
            idleTimeout: 0,
            standby: !manner.talks,
            offer: manner.offers ?? false,
          }),
          manner,
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
      for (const { by, client, server } of [...FAULTS, ...OFFER_FAULTS]) {
        const manner = {
          talks: client.includes("open"),
          offers: client.includes("offer"),
        };
        const [theirs, { code }] = by === "client"
          ? await ofServer(client, {})
          : await ofClient(server, manner);
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

testUnless(
  reason,
  "library: offered sessions end as others do, whoever ends first",
  withCerts((dir) =>
    withLibrary(dir, async (ofServer, ofClient) => {
      const manner = { talks: true, offers: true, ends: true };
      const offer = ">ping+offer <open+data=hello";
      for (
        const steps of [
          `${offer} >data=HELLO+end <end`,
          `${offer}+end >data=HELLO+end`,
        ]
      ) {
        assertEquals(
          await ofServer(steps, manner),
          ["end", { text: "HELLO", code: "end", isFromPeer: false }],
        );
      }
      const open = "<offer >open+data=hello";
      for (
        const steps of [
          `${open}+end <data=HELLO+end`,
          `${open} <data=HELLO+end >end`,
        ]
      ) {
        assertEquals(
          await ofClient(steps, manner),
          ["end", { text: "hello", code: "end", isFromPeer: false }],
        );
      }
    })
  ),
);

testUnless(
  reason,
  "Listener: it opens what a peer offers, and only what it wants offered",
  withCerts(async (dir) => {
    const [cert, key, psk] = await Promise.all(
      ["cert.pem", "key.pem", "psk.txt"].map((file) =>
        Deno.readTextFile(`${dir}/${file}`)
      ),
    ) as [string, string, string];
    using listener = listen({
      hostname: "127.0.0.1",
      port: 0,
      cert,
      key,
      psk,
      takesOffer: (identity) => identity === "alice@db",
    });
    await using peer = PythonPeer.client(dir, listener.addr.port);
    const offer = ">ping+offer <open+data=hello >data=HELLO+end <end";
    const [theirs, ours] = await Promise.all([
      peer.run(`alice@db ${offer}`),
      outcome("server", listener.open("alice@db"), {
        talks: true,
        offers: true,
        ends: true,
      }),
    ]);
    assertEquals(theirs.result, "end");
    assertEquals(ours, { text: "HELLO", code: "end", isFromPeer: false });
    for (const identity of ["default", "default@db", "alice", "alice@web"]) {
      const { result } = await peer.run(`${identity} >ping+offer <bye=1`);
      assertEquals(result, "heard bye service", identity);
    }
    // Whoever has another's key cannot offer in alice's name.
    const { result } = await peer.run("alice@db:default >ping+offer");
    assertEquals(result, "refused");
  }, ["--identity", "default", "--identity", "alice"]),
);

testUnless(
  reason,
  "library: a bye after both ends is the close of the connection",
  withCerts((dir) =>
    withLibrary(dir, async (ofServer, ofClient) => {
      const manner = { talks: true, ends: true };
      const ours = { code: "end" as const, isFromPeer: false };
      assertEquals(
        await ofServer(
          ">ping+open+data=hello+end <data=HELLO+end >bye=6",
          manner,
        ),
        ["said bye", { text: "hello", ...ours }],
      );
      assertEquals(
        await ofClient("<open+data=hello+end >data=HELLO+end+bye=6", manner),
        ["said bye", { text: "HELLO", ...ours }],
      );
    })
  ),
);

/** What our side does to come to a stage. */
const mannersOf = (
  { name, offers = false }: Stage,
  role: "client" | "server",
): Manner => ({
  talks: !name.startsWith("before"),
  ends: name.includes(role),
  offers,
});

/** What our server reads before a stage, and our client. */
function textsOf({ name, offers }: Stage): Record<"server" | "client", string> {
  const first = name.startsWith("before") ? "" : "hello";
  const answer = first.toUpperCase();
  return offers
    ? { server: answer, client: first }
    : { server: first, client: answer };
}

/** All codes at one stage, two of them at the others. */
const codesAt = ({ name }: Stage) =>
  name === "mid-stream" ? CODES : CODES.slice(3, 5);

testUnless(
  reason,
  "library: it hears a bye at each stage, of any code",
  withCerts((dir) =>
    withLibrary(dir, async (ofServer, ofClient) => {
      for (const stage of STAGES) {
        const texts = textsOf(stage);
        for (const [number, code] of codesAt(stage)) {
          const bye = `>bye=${number}`;
          const ours = { code, isFromPeer: true };
          const server = mannersOf(stage, "server");
          assertEquals(
            await ofServer(`${stage.client} ${bye}`, server),
            ["said bye", { text: texts.server, ...ours }],
            stage.name,
          );
          const client = mannersOf(stage, "client");
          assertEquals(
            await ofClient(`${stage.server} ${bye}`, client),
            ["said bye", { text: texts.client, ...ours }],
            stage.name,
          );
        }
      }
    })
  ),
);

testUnless(
  reason,
  "library: it says a bye at each stage, of any code",
  withCerts((dir) =>
    withLibrary(dir, async (ofServer, ofClient) => {
      for (const stage of STAGES) {
        const texts = textsOf(stage);
        for (const [number, code] of codesAt(stage)) {
          // It says no code that it does not know.
          if (number < 1 || number > 7) continue;
          const gives = new ChannelError(code, "A test gave it up");
          const bye = `<bye=${number}`;
          const ours = { code, isFromPeer: false };
          const server = { ...mannersOf(stage, "server"), gives };
          assertEquals(
            await ofServer(`${stage.client} ${bye}`, server),
            [`heard bye ${code}`, { text: texts.server, ...ours }],
            stage.name,
          );
          const client = { ...mannersOf(stage, "client"), gives };
          assertEquals(
            await ofClient(`${stage.server} ${bye}`, client),
            [`heard bye ${code}`, { text: texts.client, ...ours }],
            stage.name,
          );
        }
      }
    })
  ),
);
