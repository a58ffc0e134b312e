/** The demo's page, in a real browser. */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { Site } from "../demo/web/site.ts";
import { CHROMIUM, Chromium, type Page, type Screen } from "./chromium.ts";
import { MAY_RUN } from "./programs.ts";
import { lacksPermissions, lacksProgram, testUnless } from "./requirements.ts";
import { refusal, WebDemo } from "./web_demo.ts";

const missing = lacksPermissions(...MAY_RUN, "sys") ??
  lacksProgram(CHROMIUM, "chromium");

/** A test of the page; nothing in it may go wrong unseen. */
function testPage(
  name: string,
  check: (page: Page, context: { demo: WebDemo; browser: Chromium }) => Promise<
    void
  >,
  screen?: Screen,
): void {
  testUnless(missing, `web demo: ${name}`, async () => {
    await using demo = await WebDemo.start();
    await using browser = await Chromium.start();
    const page = await browser.open(demo.url, screen);
    await page.until(`${says("Each side has proved")} && ${frames} === 6`);
    await check(page, { demo, browser });
    assertEquals(page.complaints, []);
  });
}

const story = "document.querySelector('#story').textContent";

/** Whether the page's one sentence has this in it. */
const says = (text: string) => `${story}.includes(${JSON.stringify(text)})`;

const click = (selector: string) =>
  `document.querySelector(${JSON.stringify(selector)}).click()`;

/** What each row shows, in the order in which it came there. */
const rows = `[...document.querySelectorAll(".row")].map((row) =>
  [...row.children].map(({ classList }) => classList[1]).join(" "))`;

/** What one of the three has to show. */
const column = (place: string) =>
  `[...document.querySelectorAll(".${place}")].map((cell) =>
    cell.querySelector("q")?.textContent).filter(Boolean)`;

/** How many frames of all tabs have come to the box. */
const frames = "document.querySelectorAll('.box .arrow').length";

const isReady = "document.body.dataset.state === 'open'";
const isClosed = "document.body.dataset.state === 'closed'";

async function send(page: Page, text: string): Promise<void> {
  await page.evaluate(
    `document.querySelector("#text").value = ${JSON.stringify(text)}`,
  );
  await page.evaluate(click("#send"));
}

async function setLock(page: Page, isOn: boolean): Promise<void> {
  await page.evaluate(click("#lock"));
  await page.until(says(isOn ? "Each side has proved" : "plain text"));
}

/** Connects again, and lets the frames of the handshake pass. */
async function reconnect(page: Page): Promise<void> {
  await page.until(isClosed);
  const sealed = await page.evaluate("document.body.dataset.lock === 'inner'");
  const count = await page.evaluate(frames) + (sealed ? 6 : 0);
  await page.evaluate(click("#send"));
  await page.until(
    `${isReady} && ${says("Connected.")} && ${frames} >= ${count}`,
  );
}

testPage("what is typed passes the box unread", async (page, { demo }) => {
  await send(page, "straße <b>");
  await page.until(says("The box could not read a letter"));
  assertEquals(await page.evaluate(column("you")), [
    "straße <b>",
    "STRASSE <B>",
  ]);
  assertEquals(await page.evaluate(column("server")), [
    "straße <b>",
    "STRASSE <B>",
  ]);
  // All that it can read is who it is.
  assertEquals(await page.evaluate(column("box")), ["innerlock/1 tab-1"]);
  const way = await page.evaluate(rows);
  assertEquals(way.slice(-2), ["you box server", "server box you"]);
  const { host } = new URL(demo.url);
  for (const request of page.requests) {
    assertEquals(new URL(request).host, host);
  }
});

testPage("without the inner lock the box reads it", async (page) => {
  await setLock(page, false);
  await send(page, "pay 10");
  await page.until(says("The box could read every letter"));
  assertEquals((await page.evaluate(column("box"))).slice(-2), [
    "pay 10",
    "PAY 10",
  ]);
  await setLock(page, true);
  await send(page, "pay 10");
  await page.until(says("The box could not read a letter"));
});

testUnless(
  missing,
  "web demo: the lock is turned while it connects",
  async () => {
    await using demo = await WebDemo.start();
    await using browser = await Chromium.start();
    const screen = { width: 1280, height: 900, motion: true };
    const page = await browser.open(demo.url, screen);
    await page.until("document.body.dataset.state === 'connecting'");
    for (let i = 0; i < 3; i++) await page.evaluate(click("#lock"));
    await page.until(says("plain text"));
    await send(page, "pay 10");
    await page.until(says("The box could read every letter"));
    assertEquals(
      await page.evaluate("document.querySelectorAll('.note').length"),
      1,
    );
    assertEquals(page.complaints, []);
  },
);

/** What the box does, on the way to whom, and what is said of it. */
const DEEDS: {
  act: string;
  to: string;
  locked: string;
  alone: string;
  isLate?: boolean;
}[] = [
  {
    act: "flip",
    to: "server",
    locked: "The server noticed. One bit was flipped",
    alone: "Nobody noticed. You typed “pay 10”, the server got “pay 11”.",
  },
  {
    act: "flip",
    to: "client",
    locked: "Your side noticed. One bit was flipped",
    alone: "Nobody noticed. The server answered “PAY 10”, you got “PAY 11”.",
  },
  {
    act: "drop",
    to: "server",
    locked: "The server noticed. A frame was missing",
    alone: "Nobody noticed. The server never got “pay 10”.",
    isLate: true,
  },
  {
    act: "drop",
    to: "client",
    locked: "Your side noticed. A frame was missing",
    alone: "Nobody noticed. The answer is gone",
    isLate: true,
  },
  {
    act: "repeat",
    to: "server",
    locked: "The server noticed. The first copy opened, the second did not.",
    alone: "Nobody noticed. The server got “pay 10” twice.",
  },
  {
    act: "repeat",
    to: "client",
    locked: "Your side noticed. The first copy opened, the second did not.",
    alone: "Nobody noticed. You got “PAY 10” twice.",
  },
];

async function arm(page: Page, act: string, to: string): Promise<void> {
  await page.evaluate(click(`[name=to][value=${to}]`));
  await page.evaluate(click(`[data-act=${act}]`));
  await page.until(says("Armed: the next frame to"));
}

testPage("with both locks the box is found out", async (page) => {
  for (const { act, to, locked, isLate } of DEEDS) {
    await arm(page, act, to);
    await send(page, "pay 10");
    if (isLate) {
      await page.until(says("Dropped. Nobody knows yet."));
      await send(page, "pay 20");
    }
    await page.until(says(locked));
    await page.until(isClosed);
    assert(await page.evaluate(says(locked)));
    await reconnect(page);
  }
  await page.evaluate(click("#cut"));
  await page.until(says("Both sides noticed."));
  await page.until(isClosed);
  await page.until(
    `${rows}.at(-1).split(" ").sort().join() === "box,server,you"`,
  );
  await reconnect(page);
  await page.evaluate(click("#end"));
  await page.until(says("Each side knows that it has heard all there was."));
});

testPage("with the outer lock alone nobody notices", async (page) => {
  await setLock(page, false);
  for (const { act, to, alone } of DEEDS) {
    await arm(page, act, to);
    await send(page, "pay 10");
    await page.until(says(alone));
    await send(page, "next");
    await page.until(`${column("you")}.at(-1) === "NEXT"`);
  }
  await page.evaluate(click("#cut"));
  await page.until(
    says("Nobody noticed. Both sides take the cut for the end."),
  );
  await reconnect(page);
  await page.evaluate(click("#end"));
  await page.until(says("it would look the same"));
});

testPage("a second tab is a second client", async (first, context) => {
  const second = await context.browser.open(context.demo.url);
  await second.until(says("Connected."));
  await send(second, "from two");
  await second.until(says("There and back."));
  await first.until(
    `document.querySelectorAll(".other .server q").length === 2`,
  );
  assertEquals(await first.evaluate(column("you")), []);
  assertEquals(await first.evaluate(column("other .box")), [
    "innerlock/1 tab-2",
  ]);
  // What happens to one is no matter of the other.
  await arm(first, "flip", "server");
  await send(second, "once more");
  await second.until(`${column("you")}.length === 4`);
  await send(first, "pay 10");
  await first.until(says("The server noticed."));
  await send(second, "still here");
  await second.until(`${column("you")}.length === 6`);
  await second.close();
  await reconnect(first);
});

testPage("the keyboard is enough", async (page) => {
  const focus = `(() => {
    const { activeElement: it } = document;
    const { outlineStyle, outlineWidth } = getComputedStyle(it);
    const isSeen = outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
    return (it.id || it.value || it.textContent.trim()) +
      (isSeen ? "" : " (not seen)");
  })()`;
  const order = [
    ..."What this page cannot promise,lock,timeline,text,send,end".split(","),
    ..."server,Flip a bit,Drop,Repeat,cut,second tab".split(","),
  ];
  for (const stop of order) {
    await page.press("Tab");
    assertEquals(await page.evaluate(focus), stop);
  }
  const goTo = async (stop: string, shift = false) => {
    do await page.press("Tab", { shift }); while (
      await page.evaluate(focus) !== stop
    );
  };
  await goTo("text", true);
  await page.type("typed by hand");
  await page.press("Enter");
  await page.until(says("The box could not read a letter"));
  await goTo("server");
  await page.press("ArrowRight");
  assertEquals(await page.evaluate(focus), "client");
  await goTo("Flip a bit");
  await page.press(" ");
  await page.until(says("Armed: the next frame to you will have one bit"));
  await goTo("text", true);
  await page.press("Enter");
  await page.until(says("Your side noticed."));
  await page.until(isClosed);
  await page.press("Enter");
  await page.until(`${isReady} && ${says("Connected.")}`);
  await goTo("lock", true);
  await page.press(" ");
  await page.until(says("plain text"));
  assertEquals(
    await page.evaluate("document.querySelector('#story').ariaLive"),
    "polite",
  );
});

const PHONE = { width: 360, height: 740 };

/** Text whose contrast with what is behind it is under 4.5, as WCAG counts it. */
const FAINT = `(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {
    willReadFrequently: true,
  });
  const luminance = (colors) => {
    canvas.fillStyle = "#fff";
    for (const color of ["#fff", ...colors]) {
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
    }
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) =>
      v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const backgrounds = (element) => element
    ? [...backgrounds(element.parentElement),
      getComputedStyle(element).backgroundColor]
    : [];
  // What lies behind the middle column is no ancestor of it.
  const pillar = getComputedStyle(document.querySelector(".pillar i"));
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const faint = [];
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest("[aria-disabled=true]")) continue;
    const behind = backgrounds(element);
    if (element.closest(".cell.box, .tools, .heads > :nth-child(2)")) {
      behind.splice(3, 0, pillar.backgroundColor);
    }
    const [a, b] = [luminance(behind),
      luminance([...behind, getComputedStyle(element).color])]
      .sort((a, b) => b - a);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) faint.push(texts.currentNode.data + contrast.toFixed(1));
  }
  return faint;
})()`;

/** What does not fit in its place, sideways. */
const TOO_WIDE = `[...document.querySelectorAll("body *")]
  .filter((element) => !element.matches("input, .sr-only, .sr-only *"))
  .filter((element) => element.checkVisibility())
  .filter((element) => element.scrollWidth > element.clientWidth + 1 &&
      getComputedStyle(element).display !== "inline" ||
    element.getBoundingClientRect().right > innerWidth)
  .map((element) => element.id || element.className || element.localName)`;

testPage("a phone, a wide screen, light and dark", async (page) => {
  const check = async (screen: Screen) => {
    await page.show(screen);
    assertEquals(await page.evaluate(FAINT), []);
    assertEquals(await page.evaluate(TOO_WIDE), []);
    assertEquals(
      await page.evaluate("document.documentElement.scrollWidth"),
      screen.width,
    );
  };
  await arm(page, "flip", "server");
  await send(page, "W".repeat(120));
  await page.until(says("The server noticed."));
  await page.until(isClosed);
  for (const isOn of [false, true]) {
    await setLock(page, isOn);
    await send(page, "x".repeat(120));
    await page.until(says("There and back."));
    for (const dark of [false, true]) {
      for (const width of [320, PHONE.width, 768, 1280, 1920]) {
        await check({ width, height: 740, dark });
      }
    }
  }
}, PHONE);

testPage("nothing moves where no motion is asked for", async (page) => {
  const animation = "getComputedStyle(document.querySelector('.cell'))" +
    ".animationName";
  assertEquals(await page.evaluate(animation), "none");
  await page.show({ ...PHONE, motion: true });
  assertEquals(await page.evaluate(animation), "arrive");
});

/** What a label must be as high as, and more (WCAG 2.5.8). */
const SMALL_TARGETS =
  `[...document.querySelectorAll("label:has([type=radio]), button")]
  .filter((element) => element.getBoundingClientRect().height < 24)
  .map((element) => element.textContent)`;

testPage("a phone says where TLS ends, and all can be hit", async (page) => {
  const heads = `[...document.querySelectorAll(".heads p")]
    .filter((element) => element.checkVisibility())
    .map(({ innerText }) => innerText.trim())`;
  assertEquals(await page.evaluate(heads), ["TLS ends here."]);
  assertEquals(await page.evaluate(SMALL_TARGETS), []);
  await page.show({ width: 1280, height: 900 });
  assertEquals((await page.evaluate(heads)).length, 3);
  assertEquals(await page.evaluate(SMALL_TARGETS), []);
}, PHONE);

testPage("scrollbars have no gutter of another colour", async (page) => {
  const color =
    "getComputedStyle(document.querySelector('#timeline')).scrollbarColor";
  assert((await page.evaluate(color)).endsWith(" rgba(0, 0, 0, 0)"));
});

testPage(
  "in forced colours the switch has a knob, and a pressed button shows it",
  async (page) => {
    const knob = `(() => {
    const track = document.querySelector(".track");
    const [one, other] = [getComputedStyle(track, "::before"),
      getComputedStyle(track)].map((style) => style.backgroundColor);
    return [one !== other && one !== "rgba(0, 0, 0, 0)", one, other];
  })()`;
    const button = (name: string) =>
      `getComputedStyle(document.querySelector("[data-act=${name}]"))
      .backgroundColor`;
    for (const dark of [false, true]) {
      await page.show({ width: 1280, height: 900, forced: true, dark });
      for (const isOn of [false, true]) {
        await setLock(page, isOn);
        const [isSeen, ...colors] = await page.evaluate(knob);
        assert(isSeen, colors.join());
      }
      await arm(page, "flip", "server");
      assertNotEquals(
        await page.evaluate(button("flip")),
        await page.evaluate(button("drop")),
      );
      await page.evaluate(click("[data-act=flip]"));
      await page.until(says("Disarmed"));
    }
  },
);

testUnless(missing, "web demo: without JavaScript it says so", async () => {
  await using demo = await WebDemo.start();
  await using browser = await Chromium.start();
  const page = await browser.open("about:blank");
  await page.disableScripts();
  const desktop = { width: 1280, height: 900 };
  await page.load(demo.url, desktop);
  const text = await page.evaluate("document.body.innerText");
  assert(text.includes("it needs JavaScript"), text);
  assertEquals(text.includes("Connecting"), false);
});

testUnless(
  missing,
  "web demo: the page says that the process is gone, and finds another",
  async () => {
    await using browser = await Chromium.start();
    let page: Page;
    let port: string;
    {
      await using demo = await WebDemo.start();
      ({ port } = new URL(demo.url));
      page = await browser.open(demo.url);
      await page.until(says("Connected."));
    }
    await page.until(
      says(`Start it again with “deno task demo:web --port ${port}”`),
    );
    // Nothing covers it up.
    for (const button of ["#lock", "[data-act=flip]", "#end", "#cut"]) {
      await page.evaluate(click(button));
    }
    assert(await page.evaluate(says("has stopped")));
    assertEquals(
      await page.evaluate("document.querySelector('#send').textContent"),
      "Reload",
    );
    await page.evaluate(click("#send"));
    await page.until(says("There is no process here yet."));
    await using _ = await WebDemo.start("--port", port);
    const loaded = page.nextLoad();
    await page.evaluate(click("#send"));
    await loaded;
    await page.until(isReady);
    await page.close();
  },
);

testPage(
  "what is no command ends its WebSocket, and nothing else",
  async (page) => {
    for (
      const message of [
        "no JSON",
        "null",
        "[]",
        '{"type":"x"}',
        '{"type":"arm","act":"explode","to":"server"}',
        '{"type":"arm","act":"flip","to":"mars"}',
        '{"type":"shown","id":"1"}',
      ]
    ) {
      const code = await page.evaluate(`new Promise((resolve) => {
      const socket = new WebSocket("ws://" + location.host + "/console");
      socket.onopen = () => socket.send(${JSON.stringify(message)});
      socket.onclose = ({ code }) => resolve(code);
    })`);
      assertEquals(code, 3003, message);
    }
    await send(page, "still here");
    await page.until(says("There and back."));
  },
);

testUnless(
  lacksPermissions(...MAY_RUN),
  "web demo: what it cannot do it says in a line",
  async () => {
    for (
      const [args, code, message] of [
        [["--port", "65536"], 2, "--port takes 0 to 65535"],
        [["--port", "x"], 2, "--port takes 0 to 65535"],
        [["--color"], 2, "unknown argument --color"],
        [["now"], 2, "unknown argument now"],
        [[], 1, "deno bundle made nothing"],
      ] as const
    ) {
      const refused = await refusal(...args);
      assertEquals(refused.code, code);
      assert(refused.stderr.startsWith(`demo:web: ${message}`), refused.stderr);
      assertEquals(refused.stderr.trim().split("\n").length, 1);
    }
  },
);

Deno.test("web demo: only its own page gets anything", async () => {
  const site = new Site("");
  const ask = async (url: string, headers: Record<string, string> = {}) => {
    const response = site.handle(new Request(url, { headers }));
    await response.body?.cancel();
    return response;
  };
  const page = await ask("http://127.0.0.1:1/");
  assertEquals(page.status, 200);
  const policy = page.headers.get("content-security-policy") ?? "";
  assert(policy.startsWith("default-src 'self';"));
  assertEquals((await ask("http://127.0.0.1:1/other")).status, 404);
  assertEquals((await ask("http://evil.example/")).status, 421);
  const upgrade = { upgrade: "websocket" };
  for (const origin of ["http://evil.example", "http://127.0.0.1:2"]) {
    const headers = { ...upgrade, origin };
    assertEquals(
      (await ask("http://127.0.0.1:1/console", headers)).status,
      403,
    );
  }
  const headers = { ...upgrade, origin: "http://127.0.0.1:1" };
  assertEquals((await ask("http://127.0.0.1:1/console", headers)).status, 400);
  assertEquals(
    (await ask("http://127.0.0.1:1/wire?tab=x", headers)).status,
    404,
  );
});
