/**
 * The page: what a person does, and what is shown of it.
 *
 * @module
 */

import { ChannelError, type Transport } from "../../../lib/mod.ts";
import type { Act, Command, Direction, Report } from "../events.ts";
import { connect, listen, openSocket, say } from "./client.ts";
import { type Local, type Sentence, Story } from "./story.ts";
import { frameContent, quote, remark, Timeline } from "./timeline.ts";

/** So long a frame is seen at the box before it goes on, in milliseconds. */
const PAUSE = 180;

const find = <T extends HTMLElement>(selector: string): T =>
  document.querySelector<T>(selector)!;

const lock = find("#lock");
const story = find("#story");
const form = find<HTMLFormElement>("#say");
const input = find<HTMLInputElement>("#text");
const send = find<HTMLButtonElement>("#send");
const end = find<HTMLButtonElement>("#end");
const cut = find<HTMLButtonElement>("#cut");
const acts = [...document.querySelectorAll<HTMLButtonElement>("[data-act]")];
const directions = [
  ...document.querySelectorAll<HTMLInputElement>("[name=to]"),
];
const isCalm = matchMedia("(prefers-reduced-motion: reduce)");

/** What this tab is called, and the key that it was given. */
let tab = "";
let psk = "";

/** The connection, while there is one. */
let transport: Transport | undefined;
/** It, or the attempt. */
let opening: Promise<Transport> | undefined;
/** How often the lock has been turned. */
let turns = 0;
/** Resolves when the last connection is over, on both sides. */
let isOver: Promise<unknown> = Promise.resolve();
/** Is called when the server has said that it is. */
let serverIsDone = () => {};

const timeline = new Timeline(find("#timeline"), () => tab);
const teller = new Story();
const watch = openSocket("/console");

function isSealed(): boolean {
  return lock.ariaChecked === "true";
}

function tell(event: Report | Local): void {
  const sentence = teller.tell(event);
  if (sentence && !isGone()) show(sentence);
}

function show({ text, tone }: Sentence): void {
  story.dataset.tone = tone;
  story.replaceChildren(text);
}

function command(command: Command): void {
  watch.send(JSON.stringify(command));
}

const VERBS = {
  connecting: "Send",
  open: "Send",
  closed: "Connect",
  gone: "Reload",
};

/** Shows whether there is a connection, or no process any more. */
function showState(state: keyof typeof VERBS): void {
  if (isGone()) return;
  document.body.dataset.state = state;
  send.textContent = VERBS[state];
  for (const button of [end, cut]) button.ariaDisabled = `${state !== "open"}`;
  for (const button of [lock, ...acts]) {
    button.ariaDisabled = `${state === "gone"}`;
  }
}

/** Whether the process behind the page has stopped. */
function isGone(): boolean {
  return document.body.dataset.state === "gone";
}

/** Loads the page anew if there is a process again: it knows another key. */
async function reload(): Promise<void> {
  try {
    await fetch("/", { method: "HEAD" });
    location.reload();
  } catch {
    show({
      text: "There is no process here yet. Start it with " +
        `“deno task demo:web --port ${location.port}”, and press Reload.`,
      tone: "bad",
    });
  }
}

function start(): void {
  if ((document.body.dataset.state ?? "closed") !== "closed") return;
  const served = new Promise<void>((resolve) => serverIsDone = resolve);
  isOver = Promise.all([converse(), served]);
}

/** Connects, and shows what comes until the connection is over. */
async function converse(): Promise<void> {
  showState("connecting");
  const sealed = isSealed();
  try {
    transport = await (opening = connect(tab, sealed ? psk : null));
    tell({ type: "connected", sealed });
    showState("open");
    await listen(transport, (text) => {
      you("client", [quote(text)]);
      tell({ type: "received", text });
    });
    you("client", [remark(sealed ? "the server’s end" : "closed")]);
    tell({ type: "over" });
  } catch (error) {
    const code = error instanceof ChannelError ? error.code : "error";
    const message = error instanceof Error ? error.message : `${error}`;
    you("client", [remark(`${code}: ${message}`)], "bad");
    tell({ type: "broken", code, message });
  } finally {
    transport?.close();
    transport = undefined;
    showState("closed");
  }
}

/** Says the end, and waits for the server's. */
async function finish(): Promise<void> {
  try {
    await (await opening)?.closeWrite();
  } catch {
    // It has been said before, or the connection has failed.
  }
  await isOver;
}

function you(
  to: Direction,
  content: (Node | string)[],
  tone?: "bad",
): void {
  timeline.add(tab, "you", to, content, tone);
}

function arm(act: Act | null): void {
  const to = directions.find(({ checked }) => checked)!.value as Direction;
  showArmed(act);
  command({ type: "arm", act, to });
  tell({ type: "armed", act, to });
}

function showArmed(act: Act | null): void {
  for (const button of acts) {
    button.ariaPressed = `${button.dataset.act === act}`;
  }
}

function armed(): HTMLButtonElement | undefined {
  return acts.find(({ ariaPressed }) => ariaPressed === "true");
}

/** What the box and the server have to tell, of all tabs. */
function report(event: Report): void {
  const isOurs = event.tab === tab;
  const add = timeline.add.bind(timeline, event.tab);
  switch (event.type) {
    case "welcome":
      ({ tab, psk } = event);
      find("#name").textContent = tab;
      document.title = `${tab} · ${document.title}`;
      start();
      return;
    case "frame":
      add("box", event.to, frameContent(event));
      if (!isOurs) break;
      if (event.act) showArmed(null);
      letGoOn(event.id);
      break;
    case "closed":
      add("box", "client", [remark("closed by the server")]);
      if (isOurs) letGoOn(event.id);
      break;
    case "cut":
      add("box", "both", [remark("cut here, both ways")], "bad");
      break;
    case "accepted": {
      const who = event.identity
        ? `${event.identity} holds the key`
        : "somebody is there";
      add("server", "server", [remark(who)]);
      break;
    }
    case "got":
      add("server", "server", [quote(event.text)]);
      break;
    case "answered":
      add("server", "client", [quote(event.text)]);
      break;
    case "ended":
      add("server", "server", [remark("the end: that was all")]);
      if (isOurs) serverIsDone();
      break;
    case "failed":
      add(
        "server",
        "server",
        [remark(`${event.code}: ${event.message}`)],
        "bad",
      );
      if (isOurs) serverIsDone();
  }
  if (isOurs) tell(event);
}

function letGoOn(id: number): void {
  setTimeout(
    () => command({ type: "shown", id }),
    isCalm.matches ? 0 : PAUSE,
  );
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (isGone()) return await reload();
  if (!transport) return start();
  const text = input.value;
  if (text === "") return;
  input.select();
  you("server", [quote(text)]);
  tell({ type: "typed", text });
  try {
    await say(transport, text);
  } catch {
    // The connection has failed: whoever listens on it tells.
  }
});

end.addEventListener("click", async () => {
  if (!transport) return;
  you("server", [remark(isSealed() ? "the end" : "close")]);
  send.focus();
  await finish();
});

cut.addEventListener("click", () => {
  if (transport) command({ type: "cut" });
});

for (const button of acts) {
  button.addEventListener("click", () => {
    if (isGone()) return;
    arm(button.ariaPressed === "true" ? null : button.dataset.act as Act);
  });
}

for (const direction of directions) {
  direction.addEventListener("change", () => {
    const act = armed()?.dataset.act as Act | undefined;
    if (act) arm(act);
  });
}

lock.addEventListener("click", async () => {
  if (isGone()) return;
  const sealed = !isSealed();
  lock.ariaChecked = `${sealed}`;
  document.body.dataset.lock = sealed ? "inner" : "none";
  if (armed()) arm(null);
  const turn = ++turns;
  await finish();
  if (turn !== turns) return;
  timeline.note(sealed ? "Inner lock on" : "Inner lock off: TLS alone");
  start();
});

watch.addEventListener("message", ({ data }) => report(JSON.parse(data)));
watch.addEventListener("close", () => {
  showState("gone");
  show({
    text: "The process behind this page has stopped. Start it again with " +
      `“deno task demo:web --port ${location.port}”, and press Reload.`,
    tone: "bad",
  });
});

show({ text: "Connecting …", tone: "calm" });
