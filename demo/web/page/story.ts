/**
 * Who noticed what: a sentence after each thing that happens.
 *
 * @module
 */

import type { Act, Direction, Report } from "../events.ts";

/** What happens in the page itself. */
export type Local =
  | { type: "connected"; sealed: boolean }
  | { type: "armed"; act: Act | null; to: Direction }
  | { type: "typed" | "received"; text: string }
  /** The server's end has come or, with the outer lock alone, the connection's. */
  | { type: "over" }
  /** The client gave the connection up. */
  | { type: "broken"; code: string; message: string };

/** What to say, and how. */
export interface Sentence {
  text: string;
  tone: "calm" | "good" | "bad";
}

const inTone = (tone: Sentence["tone"]) => (text: string): Sentence => ({
  text,
  tone,
});
const calm = inTone("calm");
const good = inTone("good");
const bad = inTone("bad");

const ARMED: Record<Act, string> = {
  flip: "will have one bit flipped",
  drop: "will be dropped",
  repeat: "will be sent twice",
};

const NOTICED: Record<Act, string> = {
  flip: "One bit was flipped, and the frame did not open.",
  drop: "A frame was missing, and the next one did not open.",
  repeat: "The first copy opened, the second did not.",
};

const NAMES: Record<Direction, string> = {
  server: "the server",
  client: "you",
};

/** Follows one client through its connections. */
export class Story {
  #isSealed = true;
  /** What the box did last, until it has been told what became of it. */
  #deed: { act: Act; to: Direction } | undefined;
  #isCut = false;
  #isBroken = false;
  /** Whether it has been told what became of the last line. */
  #isTold = false;
  /** How often something came where the last deed pointed. */
  #arrivals = 0;
  #typed = "";
  #answered = "";

  /** What there is to say now; undefined if nothing new. */
  tell(event: Report | Local): Sentence | undefined {
    switch (event.type) {
      case "connected":
        this.#isSealed = event.sealed;
        this.#isCut = this.#isBroken = false;
        this.#deed = undefined;
        return undefined;
      case "accepted":
        return calm(
          event.identity
            ? "Connected. Each side has proved that it holds the key."
            : "Connected. Inside TLS there is plain text, and nobody has proved " +
              "anything.",
        );
      case "armed":
        return calm(
          event.act
            ? `Armed: the next frame to ${NAMES[event.to]} ${ARMED[event.act]}.`
            : "Disarmed: frames pass as they are.",
        );
      case "typed":
        this.#typed = event.text;
        this.#isTold = false;
        return undefined;
      case "frame":
        return event.act ? this.#did(event.act, event.to) : undefined;
      case "cut":
        this.#isCut = true;
        return undefined;
      case "got":
        return this.#arrived("server", event.text.trimEnd());
      case "answered":
        this.#answered = event.text.trimEnd();
        return undefined;
      case "received":
        return this.#arrived("client", event.text.trimEnd());
      case "failed":
        return this.#noticed("The server", event.message);
      case "broken":
        return this.#noticed("Your side", event.message);
      case "over":
        return this.#ended();
    }
  }

  #did(act: Act, to: Direction): Sentence | undefined {
    this.#deed = { act, to };
    this.#arrivals = 0;
    this.#isTold = false;
    if (act !== "drop") return undefined;
    if (this.#isSealed) {
      return calm(
        "Dropped. Nobody knows yet. Send another line: the next frame will not " +
          "open.",
      );
    }
    return this.#nobody(
      to === "server"
        ? `The server never got “${this.#typed}”.`
        : "The answer is gone, as if there had been none.",
    );
  }

  #arrived(where: Direction, text: string): Sentence | undefined {
    this.#arrivals++;
    if (this.#isTold) return undefined;
    if (this.#isSealed) {
      if (where === "server" || this.#deed) return undefined;
      return good("There and back. The box could not read a letter of it.");
    }
    if (this.#deed?.to === where) {
      if (this.#deed.act === "flip") {
        return this.#nobody(
          where === "server"
            ? `You typed “${this.#typed}”, the server got “${text}”.`
            : `The server answered “${this.#answered}”, you got “${text}”.`,
        );
      }
      if (this.#arrivals < 2) return undefined;
      const who = where === "server" ? "The server" : "You";
      return this.#nobody(`${who} got “${text}” twice.`);
    }
    if (where === "server" || this.#deed) return undefined;
    return bad("There and back. The box could read every letter of it.");
  }

  /** A side gave up. The other one then sees a cut, which is no news. */
  #noticed(who: string, message: string): Sentence | undefined {
    if (this.#isCut) {
      return good(
        "Both sides noticed. No end had been said, so this is a cut.",
      );
    }
    if (this.#isBroken) return undefined;
    this.#isBroken = true;
    if (!this.#deed) return bad(`${who} gave up: ${message}.`);
    const { act } = this.#deed;
    return good(`${who} noticed. ${NOTICED[act]}`);
  }

  #ended(): Sentence {
    if (this.#isSealed) {
      return good("Ended. Each side knows that it has heard all there was.");
    }
    return this.#isCut
      ? this.#nobody("Both sides take the cut for the end.")
      : calm("Closed. Had the box cut the connection, it would look the same.");
  }

  #nobody(what: string): Sentence {
    this.#deed = undefined;
    this.#isTold = true;
    return bad(`Nobody noticed. ${what}`);
  }
}
