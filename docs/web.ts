/**
 * Takes the pictures of the web demo from a real run: docs/web-*.png.
 *
 * ```sh
 * deno run --allow-net=127.0.0.1 --allow-read --allow-write --allow-run \
 *   --allow-sys=uid docs/web.ts
 * ```
 *
 * @module
 */

import { Chromium, type Page, type Screen } from "../tests/chromium.ts";
import { WebDemo } from "../tests/web_demo.ts";

/** How much is seen of a row that is not seen whole. */
const PARTLY_SEEN = `(() => {
  const list = document.querySelector("#timeline");
  const { top } = list.getBoundingClientRect();
  const rows = [...list.children].map((row) => row.getBoundingClientRect());
  return rows.find((row) => row.top < top && row.bottom > top)?.bottom - top || 0;
})()`;

const PHONE = { width: 360, height: 800, scale: 1.5 };

await using browser = await Chromium.start();

await take("light", { width: 1240, height: 905 }, async (page) => {
  await say(page, "pay 10", "The box could not read a letter");
  await flip(page);
  await say(page, "pay 10", "The server noticed.");
  await page.until("document.body.dataset.state === 'closed'");
});

await take("dark", { width: 1200, height: 800, dark: true }, async (page) => {
  await withoutLock(page);
  await say(page, "hello, bob", "The box could read every letter");
  await flip(page);
  await say(page, "pay 10", "Nobody noticed.");
  await page.until("document.querySelectorAll('.you q').length === 4");
});

await take("phone", PHONE, async (page) => {
  await say(page, "pay 10", "The box could not read a letter");
});

/** Opens the page, does something there, and takes a picture. */
async function take(
  name: string,
  screen: Screen,
  act: (page: Page) => Promise<void>,
): Promise<void> {
  await using demo = await WebDemo.start();
  const page = await browser.open(demo.url, screen);
  await says(page, "Each side has proved");
  await act(page);
  await page.evaluate("document.activeElement.blur()");
  await page.evaluate("getSelection().empty()");
  // On a wide screen, where the height decides, no row is cut in two.
  const rest = screen === PHONE ? 0 : await page.evaluate(PARTLY_SEEN);
  await page.show({ ...screen, height: screen.height - Math.ceil(rest) });
  const file = new URL(`web-${name}.png`, import.meta.url);
  await Deno.writeFile(file, await page.screenshot());
  await page.close();
}

async function says(page: Page, text: string): Promise<void> {
  await page.until(
    `document.querySelector("#story").textContent.includes("${text}")`,
  );
}

async function say(page: Page, text: string, result: string): Promise<void> {
  await page.evaluate(`document.querySelector("#text").value = "${text}"`);
  await page.evaluate("document.querySelector('#send').click()");
  await says(page, result);
}

async function flip(page: Page): Promise<void> {
  await page.evaluate("document.querySelector('[data-act=flip]').click()");
  await says(page, "Armed");
}

async function withoutLock(page: Page): Promise<void> {
  await page.evaluate("document.querySelector('#lock').click()");
  await says(page, "plain text");
}
