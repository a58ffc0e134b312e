/**
 * The page's HTTP: four files, and two WebSockets for each tab. One carries what
 * the tab's client says, through the {@linkcode Box} to the server; on the other
 * the page watches, and works the box.
 *
 * @module
 */

import { toTransport } from "../../lib/lock/transport.ts";
import { webSocketPair } from "../../lib/platform_websocket.ts";
import { Box } from "./box.ts";
import { ACTS, type Command, DIRECTIONS, type Report } from "./events.ts";
import icon from "./page/icon.svg" with { type: "text" };
import html from "./page/index.html" with { type: "text" };
import css from "./page/style.css" with { type: "text" };
import { serve } from "./server.ts";

const HEADERS = {
  "cache-control": "no-store",
  "content-security-policy": "default-src 'self'; base-uri 'none'; " +
    "form-action 'none'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
};

/** Why a WebSocket is closed: a code from the range of applications. */
const NO_COMMAND = 3003;

/** A person types; much less than this comes. In bytes. */
const MAX_BUFFERED = 1024 * 1024;

/** Everything that one process serves. */
export class Site {
  readonly #files: Record<string, { type: string; text: string }>;
  readonly #tabs = new Map<string, Tab>();
  readonly #keys = new Map<string, Uint8Array<ArrayBuffer>>();

  /** @param script The page's code. */
  constructor(script: string) {
    this.#files = {
      "/": { type: "text/html", text: html },
      "/style.css": { type: "text/css", text: css },
      "/icon.svg": { type: "image/svg+xml", text: icon },
      "/main.js": { type: "text/javascript", text: script },
    };
  }

  /** Answers a request. */
  handle(request: Request): Response {
    const { hostname, origin, pathname, searchParams } = new URL(request.url);
    // A name of somebody's own that leads here would make us of their origin.
    if (hostname !== "127.0.0.1" && hostname !== "localhost") {
      return refusal(421, "This page is at 127.0.0.1");
    }
    if (request.headers.get("upgrade") !== "websocket") {
      const file = this.#files[pathname];
      if (!file) return refusal(404, "There is no such page");
      return new Response(file.text, {
        headers: { ...HEADERS, "content-type": `${file.type}; charset=utf-8` },
      });
    }
    // The pages of others may open WebSockets to here, but not lie about who
    // they are.
    if (request.headers.get("origin") !== origin) {
      return refusal(403, "This WebSocket is for this page");
    }
    const tab = this.#tabs.get(searchParams.get("tab") ?? "");
    if (pathname !== "/console" && !(pathname === "/wire" && tab)) {
      return refusal(404, "There is no such WebSocket");
    }
    let upgraded: Deno.WebSocketUpgrade;
    try {
      upgraded = Deno.upgradeWebSocket(request);
    } catch {
      return refusal(400, "This is no WebSocket");
    }
    const { socket, response } = upgraded;
    if (pathname === "/console") this.#addTab(socket);
    else this.#connect(tab!, socket, searchParams.get("lock") === "inner");
    return response;
  }

  #addTab(socket: WebSocket): void {
    let number = 1;
    while (this.#tabs.has(`tab-${number}`)) number++;
    const name = `tab-${number}`;
    const tab = new Tab(name, socket, (report) => this.#tell(report));
    const key = crypto.getRandomValues(new Uint8Array(32));
    this.#tabs.set(name, tab);
    this.#keys.set(name, key);
    socket.addEventListener("open", () => {
      const psk = `${name}:${key.toHex()}`;
      socket.send(JSON.stringify({ type: "welcome", tab: name, psk }));
    });
    socket.addEventListener("close", () => {
      this.#tabs.delete(name);
      this.#keys.delete(name);
      tab.leave();
    });
  }

  #tell(report: Report): void {
    for (const tab of this.#tabs.values()) tab.tell(report);
  }

  /** Box and server for what comes on a tab's other WebSocket. */
  #connect({ name, box }: Tab, socket: WebSocket, sealed: boolean): void {
    const client = webSocketPair(socket, { maxBuffered: MAX_BUFFERED });
    const up = new TransformStream<Uint8Array, Uint8Array<ArrayBuffer>>();
    const down = new TransformStream<Uint8Array, Uint8Array<ArrayBuffer>>();
    const outside = { readable: down.readable, writable: up.writable };
    const inside = { readable: up.readable, writable: down.writable };
    const served = serve(
      inside,
      sealed ? this.#keys : null,
      (report) => this.#tell({ ...report, tab: name }),
    );
    box.carry(toTransport(client), toTransport(outside), sealed, served);
  }
}

/** One page that is open: a client, and who watches the box. */
class Tab {
  readonly name: string;
  readonly box: Box;
  readonly #socket: WebSocket;
  /** What waits at the box until the page shows it. */
  readonly #waiting = new Map<number, () => void>();
  #lastId = 0;

  constructor(
    name: string,
    socket: WebSocket,
    tellAll: (report: Report) => void,
  ) {
    this.name = name;
    this.#socket = socket;
    this.box = new Box({
      frame: (seen) =>
        this.#shown((id) => tellAll({ type: "frame", tab: name, id, ...seen })),
      closed: () =>
        this.#shown((id) => tellAll({ type: "closed", tab: name, id })),
      cut: () => tellAll({ type: "cut", tab: name }),
    });
    socket.addEventListener("message", ({ data }) => {
      const command = parseCommand(data);
      if (command) this.#obey(command);
      else socket.close(NO_COMMAND, "This is no command");
    });
  }

  /** Tells the page, if it still listens. */
  tell(report: Report): void {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    this.#socket.send(JSON.stringify(report));
  }

  /** The page is gone: so is its client. */
  leave(): void {
    this.box.close();
    for (const shown of this.#waiting.values()) shown();
    this.#waiting.clear();
  }

  /** Resolves when the page shows what it has been told. */
  async #shown(tell: (id: number) => void): Promise<void> {
    const id = ++this.#lastId;
    const shown = new Promise<void>((resolve) => {
      this.#waiting.set(id, resolve);
    });
    tell(id);
    if (this.#socket.readyState === WebSocket.OPEN) await shown;
  }

  #obey(command: Command): void {
    switch (command.type) {
      case "arm":
        return this.box.arm(command.act, command.to);
      case "cut":
        return this.box.cut();
      case "shown":
        this.#waiting.get(command.id)?.();
        this.#waiting.delete(command.id);
    }
  }
}

/** What a page says, if it is one of ours that says it. */
function parseCommand(data: unknown): Command | undefined {
  try {
    const { type, act, to, id } = JSON.parse(data as string);
    const isKnown = type === "cut" ||
      type === "shown" && typeof id === "number" ||
      type === "arm" && (act === null || ACTS.includes(act)) &&
        DIRECTIONS.includes(to);
    return isKnown ? { type, act, to, id } as Command : undefined;
  } catch {
    return undefined;
  }
}

function refusal(status: number, text: string): Response {
  return new Response(`${text}\n`, { status, headers: HEADERS });
}
