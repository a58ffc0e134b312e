import { assertEquals, assertThrows } from "@std/assert";
import { ChannelError } from "../lib/mod.ts";
import { MAX_FRAME_LENGTH } from "../lib/lock/frame.ts";
import { TAG_LENGTH } from "../lib/lock/aes_gcm.ts";
import { messageType, Type } from "../lib/lock/message.ts";

/** The longest body that fits into a frame, in bytes. */
const LONGEST = MAX_FRAME_LENGTH - TAG_LENGTH - 1;

/** How long each type's body may be, in bytes: at least, and at most. */
const LIMITS: Record<keyof typeof Type, [min: number, max: number]> = {
  data: [1, LONGEST],
  end: [0, 0],
  ping: [0, 0],
  pong: [0, 0],
  open: [0, 0],
  bye: [1, 1],
  offer: [0, 0],
};

for (const [name, [min, max]] of Object.entries(LIMITS)) {
  const type = Type[name as keyof typeof Type];
  const lengths = [min - 1, min, min + 1, max - 1, max, max + 1]
    .filter((length) => length >= 0 && length <= LONGEST);
  for (const length of new Set(lengths)) {
    const isAllowed = length >= min && length <= max;
    const verb = isAllowed ? "may" : "may not";
    Deno.test(`messageType: ${name} ${verb} have ${length} bytes`, () => {
      const plaintext = new Uint8Array(1 + length);
      plaintext[0] = type;
      if (isAllowed) assertEquals(messageType(plaintext), type);
      else assertMalformed(plaintext);
    });
  }
}

Deno.test("messageType: the types are 0 to 6", () => {
  assertEquals(Object.values(Type).toSorted(), [0, 1, 2, 3, 4, 5, 6]);
  for (let type = 7; type < 256; type++) {
    for (const length of [0, 1, 2]) {
      const plaintext = new Uint8Array(1 + length);
      plaintext[0] = type;
      assertMalformed(plaintext);
    }
  }
});

Deno.test("messageType: a message has a type", () => {
  assertMalformed(new Uint8Array(0));
});

function assertMalformed(plaintext: Uint8Array<ArrayBuffer>): void {
  const error = assertThrows(() => messageType(plaintext), ChannelError);
  assertEquals([error.code, error.message], [
    "protocol",
    "The peer sent a malformed message",
  ]);
}
