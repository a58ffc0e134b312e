/**
 * What happened, as rows of three cells: what goes to the server from left to
 * right, what comes back from right to left.
 *
 * @module
 */

import type { Direction, Frame } from "../events.ts";

/** Where something happens. */
export type Place = "you" | "box" | "server";

/** What one place has to show. */
export interface Moment {
  /** Whose connection it is about. */
  tab: string;
  place: Place;
  to: Direction;
  /** What it shows. */
  content: (Node | string)[];
  tone?: "bad" | "good";
}

const PLACES: Place[] = ["you", "box", "server"];
const WORDS = {
  flip: "one bit flipped",
  drop: "dropped",
  repeat: "sent twice",
};

/** So many rows are kept. */
const MAX_ROWS = 150;

/** How much of a frame is shown, in bytes, and how much around a change. */
const HEX_SHOWN = 24;
const HEX_AROUND = 2;

/** The list on the page. */
export class Timeline {
  readonly #list: HTMLElement;
  readonly #self: () => string;
  #row: { element: HTMLElement; last: Moment } | undefined;

  /**
   * @param list Takes the rows.
   * @param self The name of this tab.
   */
  constructor(list: HTMLElement, self: () => string) {
    this.#list = list;
    this.#self = self;
  }

  /** Appends a moment, to the row that it goes on with if there is one. */
  add(moment: Moment): void {
    const cell = element("div", `cell ${moment.place}`, [
      element("span", "who", [this.#nameOf(moment)]),
      ...moment.content,
    ]);
    if (moment.tone) cell.dataset.tone = moment.tone;
    this.#keepInView(() => {
      const row = this.#rowFor(moment);
      if (moment.tab !== this.#self()) row.classList.add("other");
      row.append(cell);
    });
  }

  /** Appends a line across all three. */
  note(text: string): void {
    this.#row = undefined;
    this.#keepInView(() => this.#append(element("li", "note", [text])));
  }

  #nameOf({ tab, place }: Moment): string {
    const isSelf = tab === this.#self();
    if (place === "you") return "you";
    return isSelf ? place : `${place}, ${tab}`;
  }

  #rowFor(moment: Moment): HTMLElement {
    if (!this.#row || !goesOn(this.#row.last, moment)) {
      const element_ = element("li", `row to-${moment.to}`, []);
      this.#append(element_);
      this.#row = { element: element_, last: moment };
    }
    this.#row.last = moment;
    return this.#row.element;
  }

  #append(row: HTMLElement): void {
    this.#list.append(row);
    while (this.#list.childElementCount > MAX_ROWS) {
      this.#list.firstElementChild!.remove();
    }
  }

  /** Follows what is new, unless somebody has scrolled back. */
  #keepInView(change: () => void): void {
    const { scrollTop, scrollHeight, clientHeight } = this.#list;
    const isAtEnd = scrollTop + clientHeight > scrollHeight - 40;
    change();
    if (isAtEnd) this.#list.scrollTop = this.#list.scrollHeight;
  }
}

/** Whether the second is the next place on the way of the first. */
function goesOn(first: Moment, second: Moment): boolean {
  const step = PLACES.indexOf(second.place) - PLACES.indexOf(first.place);
  return first.tab === second.tab && first.to === second.to &&
    (first.to === "server" ? step > 0 : step < 0);
}

/** A text that somebody typed or got. */
export function quote(text: string): Node {
  return element("q", "", [text.replace(/\n$/, "")]);
}

/** A remark in words. */
export function remark(text: string): Node {
  return element("span", "remark", [text]);
}

/** A frame as the box sees it. */
export function frameContent(frame: Frame): Node[] {
  const { to, hex, text, act } = frame;
  const arrow = element("span", "arrow", [to === "server" ? "→" : "←"]);
  arrow.ariaHidden = "true";
  const way = to === "server" ? "to the server" : "to the client";
  const meta = element("span", "meta", [
    arrow,
    ` ${hex.length / 2} bytes `,
    element("span", "sr-only", [way]),
  ]);
  if (act) meta.append(element("strong", "act", [WORDS[act]]));
  return [
    meta,
    ...(text === null ? [] : [quote(text)]),
    element("code", "hex", hexContent(frame)),
  ];
}

/** Pairs of digits; a long frame is cut short, but for what was changed. */
function hexContent({ hex, flipped }: Frame): (Node | string)[] {
  const length = hex.length / 2;
  const content: (Node | string)[] = [];
  let isSkipping = false;
  for (let i = 0; i < length; i++) {
    const isNear = flipped && Math.abs(i - flipped.at) <= HEX_AROUND;
    if (length > HEX_SHOWN + 8 && i >= HEX_SHOWN && !isNear) {
      if (!isSkipping) content.push("… ");
      isSkipping = true;
      continue;
    }
    isSkipping = false;
    const digits = hex.slice(2 * i, 2 * i + 2);
    if (i === flipped?.at) {
      content.push(element("del", "", [digits]), " ");
      content.push(element("ins", "", [flipped.hex]), " ");
    } else content.push(`${digits} `);
  }
  return content;
}

function element(
  name: string,
  className: string,
  content: (Node | string)[],
): HTMLElement {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content);
  return made;
}
