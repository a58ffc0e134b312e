import { launch } from "./limit.ts";
/**
 * A real browser for tests, over the Chrome DevTools Protocol.
 *
 * Playwright would be the ready-made thing, but it reads the whole environment,
 * which tests may not.
 */

const BINARY = "chromium";

/** How one asks whether it is there. */
export const CHROMIUM = [BINARY, "--version"];

const FLAGS = [
  "--headless",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
  "--hide-scrollbars",
  "--remote-debugging-port=0",
];

/** What has not come about by then will not, in milliseconds. */
const PATIENCE = 10_000;

type Parameters = Record<string, unknown>;

interface Message {
  id?: number;
  sessionId?: string;
  method?: string;
  params?: Parameters;
  // deno-lint-ignore no-explicit-any -- As many shapes as methods.
  result?: any;
  error?: { message: string };
}

/** What a page is shown on. */
export interface Screen {
  width: number;
  height: number;
  /** Device pixels for each of CSS. @default {1} */
  scale?: number;
  dark?: boolean;
  /** Whether motion is welcome. @default {false} */
  motion?: boolean;
  /** Whether all colours are the system's. @default {false} */
  forced?: boolean;
}

const DESKTOP: Screen = { width: 1280, height: 900 };

/** A Chromium with a new profile. */
export class Chromium implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #profile: string;
  readonly #socket: WebSocket;
  readonly #closed = Promise.withResolvers<void>();
  readonly #output: Promise<void>;
  readonly #calls = new Map<number, PromiseWithResolvers<Message["result"]>>();
  readonly #pages = new Map<string, Page>();
  #lastId = 0;

  private constructor(
    child: Deno.ChildProcess,
    profile: string,
    socket: WebSocket,
    output: Promise<void>,
  ) {
    this.#child = child;
    this.#profile = profile;
    this.#socket = socket;
    this.#output = output;
    socket.addEventListener("message", ({ data }) => {
      this.#receive(JSON.parse(data));
    });
    socket.addEventListener("close", () => {
      this.#closed.resolve();
      for (const { reject } of this.#calls.values()) {
        reject(new Error("Chromium has gone"));
      }
    });
  }

  static async start(): Promise<Chromium> {
    const profile = await Deno.makeTempDir({ prefix: "innerlock-chromium-" });
    // Its sandbox refuses root.
    const flags = Deno.uid() === 0 ? [...FLAGS, "--no-sandbox"] : FLAGS;
    const child = launch(BINARY, {
      args: [...flags, `--user-data-dir=${profile}`, "about:blank"],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    });
    const reader = child.stderr.pipeThrough(new TextDecoderStream())
      .getReader();
    let said = "";
    let address: string | undefined;
    while (!address) {
      const { done, value } = await reader.read();
      if (done) throw new Error(`Chromium did not start: ${said}`);
      said += value;
      address = /^DevTools listening on (\S+)\s/m.exec(said)?.[1];
    }
    const output = (async () => {
      while (!(await reader.read()).done);
    })();
    const socket = new WebSocket(address);
    await new Promise((resolve) => socket.addEventListener("open", resolve));
    return new Chromium(child, profile, socket, output);
  }

  /** Opens a page in a new tab and waits until it is loaded. */
  async open(url: string, screen: Screen = DESKTOP): Promise<Page> {
    const { targetId } = await this.call("Target.createTarget", {
      url: "about:blank",
    });
    const { sessionId } = await this.call("Target.attachToTarget", {
      targetId,
      flatten: true,
    });
    const page = new Page(
      (method, params) => this.call(method, params, sessionId),
    );
    this.#pages.set(sessionId, page);
    await page.load(url, screen);
    return page;
  }

  /** Calls a method of the protocol. */
  async call(
    method: string,
    params: Parameters = {},
    sessionId?: string,
  ): Promise<Message["result"]> {
    const id = ++this.#lastId;
    const call = Promise.withResolvers<Message["result"]>();
    this.#calls.set(id, call);
    this.#socket.send(JSON.stringify({ id, method, params, sessionId }));
    return await call.promise;
  }

  #receive({ id, sessionId, method, params, result, error }: Message): void {
    if (id === undefined) {
      this.#pages.get(sessionId ?? "")?.heard(method!, params!);
      return;
    }
    const call = this.#calls.get(id)!;
    this.#calls.delete(id);
    if (error) call.reject(new Error(error.message));
    else call.resolve(result);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.call("Browser.close");
    await this.#closed.promise;
    await this.#child.status;
    await this.#output;
    await Deno.remove(this.#profile, { recursive: true });
  }
}

const KEYS: Record<string, Parameters> = {
  Tab: { code: "Tab", windowsVirtualKeyCode: 9 },
  Enter: { code: "Enter", windowsVirtualKeyCode: 13, text: "\r" },
  " ": { code: "Space", windowsVirtualKeyCode: 32, text: " " },
  ArrowRight: { code: "ArrowRight", windowsVirtualKeyCode: 39 },
};

const SHIFT = 8;

/** One tab. */
export class Page {
  /** What went wrong in it: exceptions, and what the browser complains about. */
  readonly complaints: string[] = [];
  /** What it has asked for, by its URL. */
  readonly requests: string[] = [];
  readonly #call: (
    method: string,
    params?: Parameters,
  ) => Promise<Message["result"]>;
  #loaded = Promise.withResolvers<void>();

  /** @param call Calls a method of the tab. */
  constructor(
    call: (
      method: string,
      params?: Parameters,
    ) => Promise<Message["result"]>,
  ) {
    this.#call = call;
  }

  /** Goes to a page. */
  async load(url: string, screen: Screen): Promise<void> {
    for (const domain of ["Page", "Runtime", "Log", "Network"]) {
      await this.#call(`${domain}.enable`);
    }
    await this.show(screen);
    this.#loaded = Promise.withResolvers();
    await this.#call("Page.navigate", { url });
    await this.#loaded.promise;
  }

  /** Resolves when the page has been loaded once more. */
  async nextLoad(): Promise<void> {
    this.#loaded = Promise.withResolvers();
    await this.#loaded.promise;
  }

  /** From its next load on, the page may run no scripts. */
  async disableScripts(): Promise<void> {
    await this.#call("Emulation.setScriptExecutionDisabled", { value: true });
  }

  /** Changes what it is shown on. */
  async show(screen: Screen): Promise<void> {
    const { width, height, scale = 1 } = screen;
    const { dark = false, motion = false, forced = false } = screen;
    await this.#call("Emulation.setDeviceMetricsOverride", {
      width,
      height,
      deviceScaleFactor: scale,
      mobile: width < 600,
    });
    await this.#call("Emulation.setEmulatedMedia", {
      features: [
        { name: "prefers-color-scheme", value: dark ? "dark" : "light" },
        { name: "forced-colors", value: forced ? "active" : "none" },
        {
          name: "prefers-reduced-motion",
          value: motion ? "no-preference" : "reduce",
        },
      ],
    });
  }

  /** The value of an expression, promises awaited. */
  // deno-lint-ignore no-explicit-any -- Whatever the expression gives.
  async evaluate(expression: string): Promise<any> {
    const { result, exceptionDetails } = await this.#call("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
      userGesture: true,
    });
    if (exceptionDetails) throw new Error(describe(exceptionDetails));
    return result.value;
  }

  /**
   * Waits until an expression is true: it is tried whenever the page changes.
   *
   * @throws {Error} If it is not after ten seconds; with what the page says.
   */
  async until(expression: string): Promise<void> {
    await this.evaluate(`new Promise((resolve, reject) => {
      const isSo = () => ${expression};
      if (isSo()) return resolve();
      const observer = new MutationObserver(() => {
        if (!isSo()) return;
        observer.disconnect();
        clearTimeout(timer);
        resolve();
      });
      observer.observe(document, {
        attributes: true, characterData: true, childList: true, subtree: true,
      });
      const timer = setTimeout(() => {
        observer.disconnect();
        const text = document.body.innerText;
        reject(new Error("Not so: " + isSo + " in:\\n" + text));
      }, ${PATIENCE});
    })`);
  }

  /** Presses a key; the focus is where it is. */
  async press(key: string, { shift = false } = {}): Promise<void> {
    const params = { key, modifiers: shift ? SHIFT : 0, ...KEYS[key] };
    await this.#call("Input.dispatchKeyEvent", { type: "keyDown", ...params });
    await this.#call("Input.dispatchKeyEvent", { type: "keyUp", ...params });
  }

  /** Types a text where the focus is. */
  async type(text: string): Promise<void> {
    await this.#call("Input.insertText", { text });
  }

  /** A picture of what is seen, as a PNG file. */
  async screenshot(): Promise<Uint8Array<ArrayBuffer>> {
    const { data } = await this.#call("Page.captureScreenshot", {
      format: "png",
      optimizeForSpeed: false,
    });
    return Uint8Array.fromBase64(data);
  }

  async close(): Promise<void> {
    await this.#call("Page.close");
  }

  /** An event of the protocol. @ignore */
  // deno-lint-ignore no-explicit-any -- As many shapes as events.
  heard(method: string, params: any): void {
    switch (method) {
      case "Page.loadEventFired":
        return this.#loaded.resolve();
      case "Runtime.exceptionThrown":
        this.complaints.push(describe(params.exceptionDetails));
        return;
      case "Log.entryAdded":
        this.complaints.push(`${params.entry.text} ${params.entry.url ?? ""}`);
        return;
      case "Network.requestWillBeSent":
        this.requests.push(params.request.url);
        return;
      case "Network.webSocketCreated":
        this.requests.push(params.url);
    }
  }
}

interface Details {
  text: string;
  exception?: { description?: string };
}

function describe({ text, exception }: Details): string {
  return exception?.description ?? text;
}
