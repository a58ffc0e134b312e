/**
 * The boxes of docs/BOXES.md: each started with the lines that stand there, of
 * which only ports, addresses and paths are replaced.
 */

import { freePort } from "./programs.ts";
import { lacksProgram } from "./requirements.ts";
import { run, Service } from "./services.ts";

const PAGE = new URL("../docs/BOXES.md", import.meta.url);

/** What stands on the page under a heading. */
interface Section {
  /** The box's configuration, or its command line. */
  box: string;
  /** The server's and the client's arguments. */
  server: string[];
  client: string[];
}

/** @param heading Without its `###`. */
export async function readSection(heading: string): Promise<Section> {
  const page = await Deno.readTextFile(PAGE);
  const [, text] = page.split(`\n### ${heading}\n`);
  if (text === undefined) throw new Error(`BOXES.md has no ${heading}`);
  const [own] = text.split(/\n##+ /);
  const [box, programs] = Array.from(
    own!.matchAll(/^```\w+\n([^]*?)^```$/gm),
    ([_, block]) => block!,
  );
  const argsOf = (command: string) =>
    new RegExp(`^innerlock ${command} (.*)$`, "m").exec(programs!)![1]!
      .split(" ");
  return { box: box!, server: argsOf("server"), client: argsOf("client") };
}

/** The headings of all boxes on the page. */
export async function headings(): Promise<string[]> {
  const page = await Deno.readTextFile(PAGE);
  return Array.from(page.matchAll(/^### (.*)$/gm), ([_, name]) => name!);
}

/** Where a box listens, what it sends clients on to, and its folder. */
export interface Place {
  dir: string;
  port: number;
  to: number;
}

/** What it takes to start a box. */
interface Recipe {
  /** Another box that stands before it and ends TLS. */
  front?: "nginx";
  /** Whether the program is there. */
  program: string[];
  /** On the page: the port where the box listens. */
  port: string;
  /**
   * The command line, which may need files first.
   *
   * @param lines The page's, filled in.
   */
  command(lines: string, place: Place): Promise<string[]>;
  /** Where the box writes what it has decrypted, if it does. */
  seen?: string;
  /** What the box speaks to the server; `through` if it ends no TLS. */
  behind: "plain" | "tls" | "through";
}

/** What nginx would write to where only root may. */
export const nginxPaths = (dir: string) =>
  "access_log off; " +
  ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `${name}_temp_path ${dir}/${name};`).join(" ");

/** What Debian's nginx.conf has around a site, or a stream. */
const nginx = (part: "http" | "stream"): Recipe => ({
  program: ["nginx", "-v"],
  port: "443",
  behind: "plain",
  async command(lines, { dir }) {
    const file = await write(
      `${dir}/nginx-${part}.conf`,
      `include /etc/nginx/modules-enabled/*.conf;
      daemon off; master_process off; pid ${dir}/nginx-${part}.pid;
      error_log stderr; events {}
      ${part} { ${part === "http" ? nginxPaths(dir) : ""}
      ${lines} }`,
    );
    return ["nginx", "-e", "stderr", "-c", file];
  },
});

const haproxy: Recipe = {
  program: ["haproxy", "-v"],
  port: "443",
  behind: "plain",
  async command(lines, { dir }) {
    const defaults = "defaults\n timeout connect 5s\n timeout client 50s\n " +
      "timeout server 50s\n";
    const file = await write(`${dir}/haproxy.cfg`, defaults + lines);
    return ["haproxy", "-f", file];
  },
};

const squid: Recipe = {
  program: ["squid", "-v"],
  port: "3128",
  behind: "through",
  async command(lines, { dir }) {
    const own = `${dir}/squid`;
    const certgen = "/usr/lib/squid/security_file_certgen";
    await run([certgen, "-c", "-s", `${dir}/ssl_db`, "-M", "4MB"]);
    const file = await write(
      `${own}.conf`,
      `${lines}
      http_access deny all
      pid_filename none
      cache_log ${own}.log
      access_log none
      coredump_dir ${dir}
      netdb_filename none
      pinger_enable off
      shutdown_lifetime 0 seconds`,
    );
    // By its name it shares memory with others.
    const name = `box${crypto.randomUUID().slice(0, 8)}`;
    const squid = ["squid", "-N", "-n", name, "-f", file];
    if (Deno.uid() !== 0) return squid;
    // It would give root up too late to be able to tidy up.
    await run(["chmod", "755", dir]);
    await run(["chown", "-R", "proxy", dir]);
    const user = ["--reuid=proxy", "--regid=proxy", "--init-groups"];
    return ["setpriv", ...user, ...squid];
  },
};

const mitmproxy: Recipe = {
  program: ["mitmdump", "--version"],
  port: "8080",
  behind: "tls",
  seen: "seen",
  command: (lines, { dir }) =>
    Promise.resolve([
      ...lines.trim().split(" "),
      ...["--listen-host", "127.0.0.1", "--set", `confdir=${dir}`, "-q"],
    ]),
};

const RECIPES = {
  "nginx": nginx("http"),
  "caddy": {
    program: ["caddy", "version"],
    port: "443",
    behind: "plain",
    async command(lines, { dir }) {
      const options = "{\n admin off\n auto_https off\n " +
        "default_bind 127.0.0.1\n}\n";
      const file = await write(`${dir}/Caddyfile`, options + lines);
      const env = ["env", `XDG_DATA_HOME=${dir}`, `XDG_CONFIG_HOME=${dir}`];
      return [
        ...env,
        "caddy",
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        file,
      ];
    },
  },
  "HAProxy, mode http": haproxy,
  "Varnish": {
    front: "nginx",
    program: ["varnishd", "-V"],
    port: "443",
    behind: "plain",
    async command(lines, { dir, port }) {
      const file = await write(`${dir}/default.vcl`, lines);
      // It reads it as a user of its own.
      await Deno.chmod(dir, 0o755);
      const where = ["-a", `127.0.0.1:${port}`, "-n", `${dir}/varnish`];
      return ["varnishd", "-F", "-s", "malloc,16m", "-f", file, ...where];
    },
  },
  "nginx, stream": nginx("stream"),
  "HAProxy, mode tcp": haproxy,
  "sslsplit": {
    program: ["sslsplit", "-V"],
    port: "443",
    behind: "tls",
    seen: "seen",
    // It drops root otherwise, and reads its key before.
    command: (lines, { dir }) =>
      Promise.resolve(
        lines.trim().split(" ").flatMap((word, i) =>
          i === 1 && Deno.uid() === 0 ? ["-u", "root", "-j", dir, word] : [word]
        ),
      ),
  },
  "mitmproxy, in reverse": { ...mitmproxy, port: "443" },
  "squid": squid,
  "squid, with a password": squid,
  "squid that looks into TLS": { ...squid, behind: "tls" },
  "mitmproxy": mitmproxy,
  "tinyproxy": {
    program: ["tinyproxy", "-v"],
    port: "8888",
    behind: "through",
    async command(lines, { dir }) {
      const rest = "Listen 127.0.0.1\nLogLevel Error\n";
      const file = await write(`${dir}/tinyproxy.conf`, lines + rest);
      return ["tinyproxy", "-d", "-c", file];
    },
  },
  "privoxy": {
    program: ["privoxy", "--version"],
    port: "8118",
    behind: "through",
    async command(lines, { dir }) {
      const file = await write(`${dir}/privoxy.conf`, lines);
      return ["privoxy", "--no-daemon", file];
    },
  },
} satisfies Record<string, Recipe>;

/** A box's heading on the page. */
export type BoxName = keyof typeof RECIPES;

const recipeOf = (name: BoxName): Recipe => RECIPES[name];

/** Why a box cannot be started here. */
export function lacksBox(name: BoxName): string | undefined {
  const { program, front } = recipeOf(name);
  return lacksProgram(program, program[0]!) ?? (front && lacksBox(front));
}

/** Who may pass a proxy that asks. */
export const CREDENTIALS = { username: "alice", password: "secret" };

/** A box that runs. */
export class Box implements AsyncDisposable {
  /** What the client is told besides its key file. */
  clientArgs: string[];
  readonly behind: Recipe["behind"];
  readonly #place: Place;
  readonly #seen: string | undefined;
  readonly #service: Service;
  readonly #front: Box | undefined;
  readonly #parts: AsyncDisposableStack;

  private constructor(
    { behind, seen }: Recipe,
    place: Place,
    clientArgs: string[],
    service: Service,
    front: Box | undefined,
    parts: AsyncDisposableStack,
  ) {
    const { dir } = place;
    const ca = clientArgs.includes("--ca") ? [] : ["--ca", `${dir}/cert.pem`];
    this.clientArgs = [...clientArgs, ...ca];
    this.behind = behind;
    this.#place = place;
    this.#seen = seen && `${dir}/${seen}`;
    this.#service = service;
    this.#front = front;
    this.#parts = parts;
  }

  /**
   * Starts one, and waits until it listens.
   *
   * @param certs A folder of `gen_certs.ts`.
   * @param to Where it sends clients.
   * @param edit Changes the page's lines.
   */
  static async start(
    name: BoxName,
    certs: string,
    to: number,
    edit: (lines: string) => string = (lines) => lines,
  ): Promise<Box> {
    const recipe = recipeOf(name);
    await using parts = new AsyncDisposableStack();
    const dir = parts.adopt(
      await makeFolder(certs),
      (dir) => Deno.remove(dir, { recursive: true }),
    );
    const place = { dir, port: freePort(), to };
    const { box, client } = await readSection(name);
    const command = await recipe.command(
      edit(fill(box, recipe, place)),
      place,
    );
    const { port } = place;
    const host = "127.0.0.1";
    const service = parts.use(await Service.start(command, { host, port }));
    const front = recipe.front && await Box.start(recipe.front, certs, port);
    if (front) parts.use(front);
    const args = client.map((word) =>
      fill(word, recipe, { ...place, port: front?.port ?? port })
    );
    return new Box(recipe, place, args, service, front, parts.move());
  }

  /** What it speaks to the server; `through` if it ends no TLS. */
  static behind(name: BoxName): Recipe["behind"] {
    return recipeOf(name).behind;
  }

  /** Where a client comes in. */
  get port(): number {
    return this.#front?.port ?? this.#place.port;
  }

  /** Ends it. */
  async stop(): Promise<void> {
    await this.#front?.stop();
    await this.#service.stop();
  }

  /** What it says of what it has decrypted, once it has ended. */
  async seen(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    return this.#seen === undefined
      ? undefined
      : await Deno.readFile(this.#seen);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.disposeAsync();
  }
}

/** The server's arguments that the page has, for one that carries to a port. */
export async function serverArgs(
  name: BoxName,
  certs: string,
  backend: number,
): Promise<string[]> {
  const { server } = await readSection(name);
  const files = server.includes("--no-tls")
    ? []
    : ["--cert", `${certs}/cert.pem`, "--key", `${certs}/key.pem`];
  const own = server.map((word) =>
    ({
      "0.0.0.0": "127.0.0.1",
      "443": "0",
      "localhost:5432": `127.0.0.1:${backend}`,
    })[word] ?? word
  );
  const port = server.includes("--port") ? [] : ["--port", "0"];
  return [...own, ...port, ...files, "--psk", `${certs}/psk.txt`];
}

/** The page's text with the places of this run. */
function fill(text: string, recipe: Recipe, { dir, port, to }: Place): string {
  const ports: Record<string, number> = {
    443: to,
    5001: to,
    5432: 0,
    [recipe.port]: port,
  };
  return text
    .replaceAll(/\/etc\/innerlock\/|~\/\.mitmproxy\//g, `${dir}/`)
    .replaceAll("https://server.example", `https://localhost:${port}`)
    .replaceAll("server.example", "localhost")
    .replaceAll("proxy.example", "127.0.0.1")
    .replaceAll(/(?<=listen |http_port )(?=\d+)|(?<=bind )(?=:)/g, LOCAL)
    .replaceAll(/\b\d{3,4}\b/g, (digits) => `${ports[digits] ?? digits}`)
    .replaceAll("127.0.0.1::", "127.0.0.1:");
}

const LOCAL = "127.0.0.1:";

/** A folder with all that the page finds in /etc/innerlock. */
async function makeFolder(certs: string): Promise<string> {
  const dir = await Deno.makeTempDir({ prefix: "innerlock-box-" });
  const read = (name: string) => Deno.readTextFile(`${certs}/${name}`);
  const cert = await read("cert.pem");
  await write(`${dir}/cert.pem`, cert);
  await write(`${dir}/box.pem`, cert + await read("key.pem"));
  await write(`${dir}/password`, CREDENTIALS.password);
  await Deno.chmod(`${dir}/password`, 0o600);
  const hash = await run(["openssl", "passwd", "-apr1", CREDENTIALS.password]);
  await write(`${dir}/passwd`, `${CREDENTIALS.username}:${hash}`);
  await run([
    ...["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"],
    ...["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=A box's CA"],
    ...["-keyout", `${dir}/ca.key`, "-out", `${dir}/ca.pem`],
  ]);
  return dir;
}

async function write(path: string, text: string): Promise<string> {
  await Deno.writeTextFile(path, text);
  return path;
}
