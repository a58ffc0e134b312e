/**
 * Machines, as network namespaces: a server, and others with a cable to it. These
 * reach the server, and not each other.
 */

import { launch } from "./limit.ts";
import { Terminal } from "./programs.ts";
import { run } from "./services.ts";

/** Whoever is not root needs a namespace in which to make the others. */
const isRoot = () => Deno.build.os !== "windows" && Deno.uid() === 0;

/** Starts a machine. All that runs there ends with the first process. */
const unshare = () => [
  "unshare",
  ...(isRoot() ? [] : ["--user", "--map-current-user", "--keep-caps"]),
  ...["--net", "--mount", "--pid", "--fork"],
];

/** What tells whether there can be a router. */
export const HAS_NFT = ["nft", "--version"];

/** What tells whether there can be such machines. */
export const linksNetworks = () => [
  ...[...unshare(), "unshare", "--net", "ip", "link", "add", "server"],
  ...["type", "veth", "peer", "name", "client", "netns", "1"],
];

export type Name = "server" | "client" | "nas";

/**
 * A machine runs this: $1 is its name, $2 the number of its network, $3 the
 * process that has the other end of its cable. With $4, it is a router instead,
 * and the machine stands behind that: it can dial out, and nobody can dial in.
 */
const MACHINE = `
ip link set lo up
ip link add server type veth peer name "$1" netns "$3"
ip address add "10.0.$2.2/24" dev server
ip link set server up
ip route add default via "10.0.$2.1"
if [ "$4" ]; then
  nft "
    table ip nat {
      chain out {
        type nat hook postrouting priority srcnat
        oifname server masquerade
      }
      chain through {
        type filter hook forward priority filter; policy drop
        ct state established accept
        iifname $1 accept
      }
    }"
  echo 1 >/proc/sys/net/ipv4/ip_forward
  connect "$1" "1$2" ""
else
  # /proc is of the machine around: there the processes have other numbers.
  read -r pid _ </proc/self/stat
  echo "$pid"
fi
exec sleep infinity >/dev/null
`;

/** Connects machine $1, with network $2 and perhaps a router, and says its process. */
const CONNECT = `
connect() {
  # This waits until the machine lets go of its stdout.
  said=$(unshare --net sh -ec "$MACHINE" sh "$1" "$2" $$ "$3" &)
  ip address add "10.0.$2.1/24" dev "$1"
  ip link set "$1" up
  echo "$said"
}
`;

/**
 * The server runs this, and the others are children; $1 is their /etc/hosts, $2
 * has the names of the others, and $3 of those behind a router.
 */
const MACHINES = `
ip link set lo up
mount --bind "$1" /etc/hosts
number=0
pids=
for name in $2; do
  router=
  case " $3 " in *" $name "*) router=yes ;; esac
  pids="$pids $(connect "$name" "$number" "$router")"
  number=$((number + 1))
done
read -r pid _ </proc/self/stat
echo "$pid$pids"
exec cat
`;

const HOSTS = `127.0.0.1 localhost
::1 localhost
10.0.0.1 server.example
`;

/**
 * The machines. They share the files of a folder, where each has a home, and have
 * no other network than the cables. So npm's and Deno's caches hold already
 * what those would download; nothing is installed from there yet.
 */
export class Machines implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #watchdog: ReturnType<typeof setTimeout>;
  readonly #terminals: Terminal[] = [];

  private constructor(
    readonly dir: string,
    child: Deno.ChildProcess,
    limit: number,
    private readonly pids: Map<Name, string>,
  ) {
    this.#child = child;
    this.#watchdog = setTimeout(() => this.#end(), limit);
  }

  /**
   * Starts them.
   *
   * @param dir What they share, a new folder.
   * @param programs The only commands that they have, and where those are.
   * @param limit After so many milliseconds they end.
   * @param others Those that have a cable to the server.
   * @param behindNat Those of them that have a router in between.
   */
  static async start(
    dir: string,
    programs: Record<string, string>,
    limit: number,
    others: Name[],
    behindNat: Name[],
  ): Promise<Machines> {
    await Deno.mkdir(`${dir}/bin`);
    for (const [name, path] of Object.entries(programs)) {
      await Deno.symlink(path, `${dir}/bin/${name}`);
    }
    const names: Name[] = ["server", ...others];
    await makeHomes(dir, names);
    await Deno.writeTextFile(`${dir}/hosts`, HOSTS);
    const server = CONNECT + MACHINES;
    const [name, ...args] = [...unshare(), "sh", "-ec", server, "sh"];
    const child = launch(name!, {
      args: [...args, `${dir}/hosts`, others.join(" "), behindNat.join(" ")],
      env: { MACHINE: CONNECT + MACHINE },
      stdin: "piped",
      stdout: "piped",
    });
    const reader = child.stdout.getReader();
    const { value } = await reader.read();
    await reader.cancel();
    const pids = new TextDecoder().decode(value).trim().split(" ");
    if (pids.length < names.length) {
      throw new Error("The machines do not start");
    }
    const known = new Map(names.map((name, i) => [name, pids[i]!]));
    return new Machines(dir, child, limit, known);
  }

  /** What runs a command in a machine's network, with all else as it is here. */
  network(name: Name): string[] {
    return this.#enter(name);
  }

  #enter(name: Name, ...namespaces: string[]): string[] {
    const target = ["--target", this.pids.get(name)!, "--preserve-credentials"];
    const user = isRoot() ? [] : ["--user"];
    return ["nsenter", ...target, ...user, "--net", ...namespaces];
  }

  /** Sits down at a terminal of its own, in the home or in a folder there. */
  async sitDown(name: Name, folder = "."): Promise<Shell> {
    const home = `${this.dir}/${name}`;
    const prompt = `${name}$ `;
    const variables = {
      HOME: home,
      PATH: `${home}/.local/bin:${this.dir}/bin`,
      PS1: prompt,
      NO_COLOR: "1",
      PAGER: "",
      npm_config_prefix: `${home}/.local`,
      npm_config_offline: "true",
    };
    const terminal = new Terminal([
      ...this.#enter(name, "--mount", "--pid"),
      ...["env", "-i", "-C", `${home}/${folder}`],
      ...Object.entries(variables).map(([name, value]) => `${name}=${value}`),
      ...["sh", "-i"],
    ]);
    this.#terminals.push(terminal);
    await terminal.expect(prompt);
    return new Shell(terminal, prompt);
  }

  #end(): void {
    this.#child.stdin.close().catch(() => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#watchdog);
    this.#end();
    await this.#child.status;
    for (const terminal of this.#terminals) {
      await terminal[Symbol.asyncDispose]();
    }
  }
}

/** A shell at a terminal. */
export class Shell {
  constructor(readonly terminal: Terminal, readonly prompt: string) {}

  /** Types a command and waits until it is done; what it has shown. */
  async run(command: string): Promise<string> {
    return await this.start(command, this.prompt);
  }

  /** Types a command and waits until it shows a text; what it has shown. */
  async start(command: string, text: string): Promise<string> {
    await this.terminal.type(`${command}\n`);
    return await this.terminal.expect(text);
  }
}

/** Homes with nothing but npm's and Deno's copies of what they download. */
async function makeHomes(dir: string, names: Name[]): Promise<void> {
  const version = Deno.version.deno;
  const arch = Deno.build.arch === "aarch64" ? "arm64" : "x64";
  const packages = [`deno@${version}`, `@deno/linux-${arch}-glibc@${version}`];
  await run(["npm", "cache", "add", "--prefer-offline", ...packages]);
  const npm = (await run(["npm", "config", "get", "cache"])).trim();
  const info = await run([Deno.execPath(), "info", "--json"]);
  const { denoDir } = JSON.parse(info);
  for (const name of names) {
    await Deno.mkdir(`${dir}/${name}/.npm`, { recursive: true });
    await Deno.symlink(`${npm}/_cacache`, `${dir}/${name}/.npm/_cacache`);
    await Deno.mkdir(`${dir}/${name}/.cache/deno`, { recursive: true });
    await Deno.symlink(`${denoDir}/npm`, `${dir}/${name}/.cache/deno/npm`);
  }
}
