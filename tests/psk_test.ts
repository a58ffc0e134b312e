import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Buffer } from "node:buffer";
import { setImmediate } from "node:timers";
import {
  findPsk,
  isIdentity,
  parsePsk,
  type PskMap,
  pskOf,
  serviceOf,
  takePsks,
  takePsksInTurns,
} from "../lib/lock/psk.ts";
import { acceptChannel, connectChannel } from "../lib/mod.ts";
import { assertFails, endAll } from "./channels.ts";
import { duplex } from "./duplex.ts";

const HEX = "0123456789abcdefABCDEF0123456789".repeat(2);

Deno.test("parsePsk: comments, blank lines, CRLF and spaces are no matter", () => {
  const text = `# first\r\n\r\n alice:${HEX} # hers\r\nb-2@x.y_z-1:${HEX}`;
  const keys = parsePsk(text);
  assertEquals([...keys.keys()], ["alice", "b-2@x.y_z-1"]);
  assertEquals(keys.get("alice")!.toHex(), HEX.toLowerCase());
});

for (
  const [name, text, line] of [
    ["no colon", "alice", "line 1 has no colon"],
    ["a short key", `a:${HEX}\nb:${HEX.slice(1)}`, "line 2 has no key"],
    ["a long key", `a:${HEX}0`, "line 1 has no key"],
    ["no hex", `#\n\na:${HEX.replace("0", "g")}`, "line 3 has no key"],
    ["an empty identity", `:${HEX}`, "line 1 has no identity"],
    ["two @ in it", `bob:${HEX}\na@b@c:${HEX}`, "line 2 has no identity"],
    ["an empty name", `@db:${HEX}`, "line 1 has no identity"],
    ["an empty service", `alice@:${HEX}`, "line 1 has no identity"],
    ["a space in it", `a b:${HEX}`, "line 1 has no identity"],
    ["an identity twice", `a:${HEX}\na:${HEX}`, "line 2 repeats"],
    ["nothing", "# nobody\n", "it has no key"],
  ] as const
) {
  Deno.test(`parsePsk: ${name} is refused`, () => {
    const error = assertThrows(() => parsePsk(text), SyntaxError, line);
    assertEquals(error.message.includes(HEX.slice(0, 8)), false);
  });
}

Deno.test("takePsksInTurns: others have a turn every thousand lines", async () => {
  const key = (i: number) => `client-${i}:${HEX}\n`;
  const lines = Array.from({ length: 3000 }, (_, i) => key(i)).join("");
  for (const text of [lines, "# nobody\n".repeat(3000) + key(0)]) {
    let turns = 0;
    let isOver = false;
    const others = (async () => {
      while (!isOver) {
        await new Promise((resolve) => setImmediate(resolve));
        turns++;
      }
    })();
    assertEquals(await takePsksInTurns(text), takePsks(text));
    isOver = true;
    await others;
    assertEquals(turns >= 3, true, String(turns));
  }
  await assertRejects(
    () => takePsksInTurns(lines + key(7)),
    SyntaxError,
    "line 3001 repeats the identity client-7",
  );
});

Deno.test("isIdentity: 1 to 64 characters", () => {
  const valid = [0, 1, 63, 64, 65].map((n) => isIdentity("a".repeat(n)));
  assertEquals(valid, [false, true, true, true, false]);
  assertEquals(isIdentity("a\n"), false);
  assertEquals(isIdentity("ä"), false);
});

Deno.test("isIdentity: NAME, or NAME@SERVICE with neither left out", () => {
  for (const identity of ["a", "a@b", "-@.", `${"a".repeat(60)}@web`]) {
    assertEquals(isIdentity(identity), true, identity);
  }
  for (
    const other of [
      ...["@", "a@", "@b", "a@@b", "a@b@c", "@a@b", "a@b@", `a@b\n`, "a@ä"],
      ...[`${"a".repeat(61)}@web`, undefined, null, 5, ["a"], new String("a")],
    ]
  ) {
    assertEquals(isIdentity(other), false, String(other));
  }
});

const lines = ["alice", "bob@db", "carol", "carol@db"];
const keys = takePsks(
  lines.map((name, i) => `${name}:${`0${i}`.repeat(32)}`).join("\n"),
);
for (
  const [identity, line, service] of [
    ["alice", "alice", undefined],
    ["alice@db", "alice", "db"],
    // A line for one service opens that one alone.
    ["bob@db", "bob@db", "db"],
    ["bob@web", undefined, "web"],
    ["bob", undefined, undefined],
    // Where there are both, each opens its own.
    ["carol@db", "carol@db", "db"],
    ["carol@web", "carol", "web"],
    ["alice2", undefined, undefined],
    // Upper and lower case differ.
    ["Alice", undefined, undefined],
  ] as const
) {
  Deno.test(`findPsk, serviceOf: ${identity} has the key of ${line}`, () => {
    const key = line === undefined ? undefined : keys.get(line)!;
    assertEquals(findPsk(identity, keys), key);
    assertEquals(serviceOf(identity), service);
    if (key) assertEquals(pskOf(identity, keys), key);
    else {
      assertThrows(
        () => pskOf(identity, keys),
        TypeError,
        `The key file has no identity ${identity}`,
      );
    }
  });
}

Deno.test("findPsk: what is no identity has no key, and is an error to ask with", () => {
  for (const none of ["bob@db@ssh", "alice@db@", "alice@", "@", "", "alice "]) {
    assertEquals(findPsk(none, keys), undefined, none);
    assertThrows(() => pskOf(none, keys), TypeError, "it is not NAME or NAME@");
  }
});

const sound = Uint8Array.fromHex(HEX);
/** What is not a key: what a program may pass all the same, and its error. */
const UNSOUND: [unknown, ErrorConstructor][] = [
  ...[0, 1, 16, 31, 33, 1000].map((length): [unknown, ErrorConstructor] => [
    new Uint8Array(length),
    RangeError,
  ]),
  ...[HEX, [...sound], undefined, null, 32, { length: 32 }, sound.buffer]
    .map((value): [unknown, ErrorConstructor] => [value, TypeError]),
  [new Uint16Array(16), TypeError],
  [new Uint8ClampedArray(32), TypeError],
  [new DataView(sound.buffer), TypeError],
];

Deno.test("takePsks: a key is a Uint8Array of exactly 32 bytes", () => {
  for (const [key, ErrorClass] of UNSOUND) {
    const psk = new Map([["good", sound], ["alice", key as Uint8Array]]);
    assertThrows(() => takePsks(psk), ErrorClass, "the key of alice");
  }
  for (const identity of ["a@b@c", "", "a b", 5, undefined]) {
    const psk = new Map([[identity as string, sound]]);
    assertThrows(() => takePsks(psk), TypeError, "Cannot use the identity");
  }
  for (const psk of [undefined, null, {}, sound, 5]) {
    assertThrows(() => takePsks(psk as PskMap), TypeError, "this psk");
  }
});

Deno.test("takePsks: any Uint8Array of 32 bytes is copied", () => {
  const shared = new Uint8Array(new SharedArrayBuffer(32));
  const within = new Uint8Array(100).subarray(7, 39);
  const keys = { shared, within, node: Buffer.alloc(32) };
  const psk = new Map<string, Uint8Array>(Object.entries(keys));
  for (const key of psk.values()) key.set(sound);
  const taken = takePsks(psk);
  for (const [identity, key] of psk) {
    key.fill(0);
    assertEquals(taken.get(identity), sound);
    assertEquals(taken.get(identity)!.buffer.byteLength, 32);
  }
  psk.clear();
  assertEquals(taken.size, 3);
  assertEquals(takePsks(taken), taken);
});

Deno.test("connectChannel, acceptChannel: no other key is taken, and nothing is sent", async () => {
  for (const [key, ErrorClass] of UNSOUND) {
    const psk = new Map([["default", key as Uint8Array]]);
    for (const make of [connectChannel, acceptChannel]) {
      const [near, far] = duplex();
      const error = await assertRejects(() => make(near, { psk }), ErrorClass);
      assertEquals(error.constructor, ErrorClass);
      // It is closed.
      assertEquals(
        (await far.readable.getReader().read().catch(() => null))
          ?.value,
        undefined,
      );
    }
  }
});

Deno.test("connectChannel, acceptChannel: a caller that wipes its key changes nothing", async () => {
  const keyOf = () => {
    const key = sound.slice();
    return [new Map([["default", key]]), () => key.fill(0)] as const;
  };
  const [near, far] = duplex();
  const [mine, wipeMine] = keyOf();
  const [theirs, wipeTheirs] = keyOf();
  const both = Promise.all([
    connectChannel(near, { psk: mine }),
    acceptChannel(far, { psk: theirs }),
  ]);
  wipeMine();
  wipeTheirs();
  const [client, server] = await both;
  await endAll(client, server);

  // Nor does it let in who has nothing but zeros.
  const [stranger, door] = duplex();
  const [psk, wipe] = keyOf();
  const accepting = acceptChannel(door, { psk });
  wipe();
  const zeros = new Map([["default", new Uint8Array(32)]]);
  await Promise.all([
    assertFails(accepting, "refused"),
    assertFails(connectChannel(stranger, { psk: zeros }), "refused"),
  ]);
});
