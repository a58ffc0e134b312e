/**
 * What happened, as rows of three cells: what goes to the server from left to
 * right, what comes back from right to left.
 *
 * @module
 */

import type { Direction, Frame } from "../events.ts";

/** Where something happens. */
type Place = "you" | "box" | "server";

const PLACES: Place[] = ["you", "box", "server"];
const WORDS = {
  flip: "one bit flipped",
  drop: "dropped",
  repeat: "sent twice",
};

/** So many rows are kept. */
const MAX_ROWS = 150;

/** A frame that is longer than this, in bytes, is cut short. */
const LONG = 20;

/** How much is shown of it: at its head, and around what was changed. */
const HEX_HEAD = 16;
const HEX_AROUND = 2;

/** A row, and the place that it has come to. */
interface Row {
  readonly element: HTMLElement;
  readonly place: Place;
}

/** The list on the page. */
export class Timeline {
  readonly #list: HTMLElement;
  readonly #self: () => string;
  /** The latest row of each tab and direction. */
  readonly #rows = new Map<string, Row>();
  #follows = true;

  /**
   * @param list Takes the rows.
   * @param self The name of this tab.
   */
  constructor(list: HTMLElement, self: () => string) {
    this.#list = list;
    this.#self = self;
    list.addEventListener("scroll", () => {
      const { scrollTop, scrollHeight, clientHeight } = list;
      this.#follows = scrollTop + clientHeight > scrollHeight - 8;
    });
    new ResizeObserver(() => this.#follow()).observe(list);
  }

  /**
   * Shows what happens, in the row that has come to the place before it.
   *
   * @param tab Whose connection it is about.
   */
  add(
    tab: string,
    place: Place,
    to: Direction | "both",
    content: (Node | string)[],
    tone?: "bad",
  ): void {
    const isSelf = tab === this.#self();
    const cell = element("div", `cell ${place}`, [
      element("span", "sr-only", [`${place}: `]),
      ...(isSelf ? [] : [element("span", "who", [`${tab} · `])]),
      ...content,
    ]);
    if (tone) cell.dataset.tone = tone;
    const keys = (to === "both" ? ["server", "client"] as const : [to])
      .map((way) => `${way} ${tab}`);
    let row = this.#rows.get(keys[0]!);
    if (to === "both" || !row || !isBefore(row.place, place, to)) {
      const classes = `row to-${to}${isSelf ? "" : " other"}`;
      row = { element: element("li", classes, []), place };
      this.#append(row.element);
    }
    for (const key of keys) {
      this.#rows.set(key, { ...row, place });
    }
    row.element.append(cell);
    this.#follow();
  }

  /** Appends a line across all three. */
  note(text: string): void {
    this.#rows.clear();
    this.#append(element("li", "note", [text]));
    this.#follow();
  }

  #append(row: HTMLElement): void {
    this.#list.append(row);
    while (this.#list.childElementCount > MAX_ROWS) {
      this.#list.firstElementChild!.remove();
    }
  }

  /** Keeps what is new in view, unless somebody has scrolled back. */
  #follow(): void {
    if (this.#follows) this.#list.scrollTop = this.#list.scrollHeight;
  }
}

/** Whether the first place comes before the second on the way there. */
function isBefore(first: Place, second: Place, to: Direction): boolean {
  const step = PLACES.indexOf(second) - PLACES.indexOf(first);
  return to === "server" ? step > 0 : step < 0;
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
    if (length > LONG && i >= HEX_HEAD && !isNear) {
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
