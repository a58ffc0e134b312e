/**
 * What holds for two sessions that talk, whatever each does, however the way
 * between them cuts what it carries, and with each engine.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import type { Engine } from "../lib/lock/aes_gcm.ts";
import { FrameReader } from "../lib/lock/frame.ts";
import { MessageSeal } from "../lib/lock/message.ts";
import { CipherState } from "../lib/lock/noise.ts";
import { nextTurn } from "../lib/lock/runtime.ts";
import { MAX_BODY_LENGTH } from "../lib/lock/sender.ts";
import { type Role, Session } from "../lib/lock/session.ts";
import { ChannelError, type Transport } from "../lib/mod.ts";
import { random } from "./channels.ts";
import { ENGINES, WatchedEngine } from "./engines.ts";
import { pipe, type PipeEnd } from "./pipe.ts";
import { equal, type Property, within } from "./scripted.ts";

/** The longest write, in bytes. */
const MAX_LENGTH = 200_000;

/** How many things a side does. */
const MAX_STEPS = 5;

/** What each side says, as much of it as it writes. */
const TEXTS = {
  client: random(MAX_STEPS * MAX_LENGTH),
  server: random(MAX_STEPS * MAX_LENGTH),
};

/** So often is something cut; what comes then is whole, for the time it takes. */
const MAX_CUTS = 200;

type Step =
  | { does: "write"; length: number; isAwaited: boolean }
  | { does: "ping" }
  | { does: "turn" };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({
        does: fc.constant("write" as const),
        length: fc.oneof(
          fc.nat(50),
          fc.integer({ min: -20, max: 2 }).map((n) => MAX_BODY_LENGTH + n),
          fc.nat(MAX_LENGTH),
        ),
        isAwaited: fc.boolean(),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.constantFrom<Step>({ does: "ping" }, { does: "turn" }),
    },
  ),
  { maxLength: MAX_STEPS },
);

const sizes = fc.array(
  fc.oneof(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 9e4 })),
  { minLength: 1, maxLength: 8 },
);

/** What a side does, and how it reads. */
interface Side {
  steps: Step[];
  /** The lengths of its buffers, in turn. */
  reads: number[];
  /** Whether it lets much come before it reads, until so much was cut. */
  isSlow: boolean;
  /** How its transport cuts what it reads and writes, in turn. */
  cuts: number[];
}

const side: fc.Arbitrary<Side> = fc.record({
  steps,
  reads: sizes,
  isSlow: fc.boolean(),
  cuts: sizes,
});

/** Where the counters begin: some sessions rekey on their way, others do not. */
const count = fc.constantFrom(0n, 65_530n, 65_535n);

/** The length of the `i`th piece. */
const lengthOf = (lengths: number[], i: number) =>
  i < MAX_CUTS ? lengths[i % lengths.length]! : 65_536;

/** A transport that reads and writes no more than its cuts allow. */
function cutting(end: PipeEnd, cuts: number[]): Transport {
  let i = 0;
  const cut = (p: Uint8Array) => p.subarray(0, lengthOf(cuts, i++));
  return {
    read: (p) => end.read(cut(p)),
    write: (p) => end.write(cut(p)),
    closeWrite: () => end.closeWrite(),
    close: () => end.close(),
  };
}

function pair(
  engine: Engine,
  [client, server]: [Side, Side],
  n: bigint,
): [Session, Session] {
  const seal = (fill: number) =>
    new MessageSeal(
      CipherState.initializeKey(new Uint8Array(32).fill(fill), engine, n),
    );
  const [near, far] = pipe();
  const session = (
    role: Role,
    transport: Transport,
    sending: number,
    receiving: number,
  ) => {
    const handshake = {
      identity: "default",
      handshakeHash: new Uint8Array(32),
      sending: seal(sending),
      receiving: seal(receiving),
      frames: new FrameReader(transport),
    };
    return new Session(transport, handshake, role, 0);
  };
  const sessions: [Session, Session] = [
    session("client", cutting(near, client.cuts), 1, 2),
    session("server", cutting(far, server.cuts), 2, 1),
  ];
  sessions[0].prove();
  return sessions;
}

/** Does a side's steps, then ends its direction; what it wrote is its text. */
async function act(
  session: Session,
  { steps }: Side,
  text: Uint8Array,
  isOver: (i: number) => boolean = () => false,
): Promise<void> {
  const working: Promise<unknown>[] = [];
  let offset = 0;
  for (const [i, step] of steps.entries()) {
    if (isOver(i)) return;
    if (step.does === "turn") await nextTurn();
    // It is over when the session is, at the latest.
    else if (step.does === "ping") working.push(settle(session.probe()));
    else {
      const part = text.subarray(offset, offset += step.length);
      const writing = settle(session.write(part));
      working.push(writing);
      if (step.isAwaited) await writing;
    }
  }
  if (isOver(steps.length)) return;
  working.push(settle(session.closeWrite()));
  await Promise.all(working);
}

/** What a promise failed with, if it did. */
async function settle(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
  } catch (error) {
    return error;
  }
}

const written = ({ steps }: Side) =>
  steps.reduce((sum, step) => sum + ("length" in step ? step.length : 0), 0);

/** Reads to the end, or to a failure; each byte must be the text's next one. */
async function hear(
  session: Session,
  { reads, isSlow }: Side,
  text: Uint8Array,
): Promise<number> {
  let heard = 0;
  try {
    for (let i = 0;; i++) {
      if (isSlow && i < MAX_CUTS) await nextTurn();
      const p = new Uint8Array(lengthOf(reads, i));
      const count = await session.read(p);
      if (count === null) break;
      assert(equal(p.subarray(0, count), text.subarray(heard, heard + count)));
      heard += count;
    }
  } catch (error) {
    if (!(error instanceof ChannelError)) throw error;
  }
  return heard;
}

/** Lets sessions talk, and leaves no call of their engine behind. */
async function withEngine(
  engine: Engine,
  work: (watched: Engine) => Promise<void>,
): Promise<void> {
  const watched = new WatchedEngine(engine);
  await within(work(watched));
  await watched.idle();
}

/** All of one engine. */
function propertiesOf(name: string, engine: Engine): Record<string, Property> {
  return {
    [`Session: every byte comes once and in order, and both ends close, ${name}`]:
      fc.asyncProperty(
        side,
        side,
        count,
        (client, server, n) =>
          withEngine(engine, async (engine) => {
            const [near, far] = pair(engine, [client, server], n);
            const [atClient, atServer] = await Promise.all([
              hear(near, client, TEXTS.server),
              hear(far, server, TEXTS.client),
              act(near, client, TEXTS.client),
              act(far, server, TEXTS.server),
            ]);
            assertEquals([atServer, atClient], [client, server].map(written));
            await Promise.all([near.closed, far.closed]);
          }),
      ) as Property,

    [`Session: what comes before an abort is a prefix, and the bye says why, ${name}`]:
      fc.asyncProperty(
        side,
        side,
        count,
        fc.constantFrom("client" as const, "server" as const),
        fc.nat(MAX_STEPS),
        fc.nat(3),
        (client, server, n, who, at, turns) =>
          withEngine(engine, async (engine) => {
            const sessions = pair(engine, [client, server], n);
            const [near, far] = sessions;
            const [mine, peers] = who === "client" ? [near, far] : [far, near];
            const reason = new ChannelError("limit", "enough");
            const last = Math.min(
              at,
              (who === "client" ? client : server).steps.length,
            );
            // Before that step of its own, or some turns after its last.
            const abort = (i: number) => {
              if (i === last && turns === 0) mine.abort(reason);
              return i === last && turns === 0;
            };
            const acting = [
              act(
                near,
                client,
                TEXTS.client,
                who === "client" ? abort : undefined,
              ),
              act(
                far,
                server,
                TEXTS.server,
                who === "server" ? abort : undefined,
              ),
            ];
            const hearing = Promise.all([
              hear(near, client, TEXTS.server),
              hear(far, server, TEXTS.client),
            ]);
            hearing.catch(() => {});
            if (turns > 0) {
              for (let i = 0; i < turns; i++) await nextTurn();
              mine.abort(reason);
            }
            const [own, error] = await Promise.all([
              settle(mine.closed),
              settle(peers.closed),
            ]);
            await Promise.all(acting);
            const heard = await hearing;
            assert(own === undefined || own === reason, String(own));
            if (error === undefined) {
              // Both ends had been said before.
              const [sent, came] = who === "client"
                ? [client, heard[1]]
                : [server, heard[0]];
              assertEquals(came, written(sent));
              return;
            }
            assert(error instanceof ChannelError);
            assertEquals([error.code, error.isFromPeer], ["limit", true]);
          }),
      ) as Property,
  };
}

/** By what they are of. */
export const SESSION_PROPERTIES: Record<string, Property> = Object.assign(
  {},
  ...Object.entries(ENGINES).map(([name, engine]) =>
    propertiesOf(name, engine)
  ),
);
