/** Tunnels: ours and others, each an entrance and an exit, of real programs. */

import { makePair } from "../tests/pair.ts";
import { command, environment, freePort } from "../tests/programs.ts";

/** Where to connect, to be carried to the backend. */
export interface Tunnel {
  port: number;
  /** Ends its programs. */
  stop(): Promise<void>;
}

/** What a tunnel's two programs are told. */
interface Plan {
  /** A folder of cert.pem, key.pem, psk.txt and key.bin. */
  dir: string;
  /** The port where callers come in. */
  entrance: number;
  /** The port of the locked connection. */
  exit: number;
  backend: number;
}

/** The command lines of the exit and the entrance. */
type Recipe = (plan: Plan) => [exit: string[], entrance: string[]];

const RECIPES = {
  innerlock: (plan) => innerlock(plan, []),
  openssl: (plan) => innerlock(plan, ["--openssl"]),
  relay: ({ dir, entrance, exit, backend }) => [
    relay("exit", exit, backend, dir),
    relay("entrance", entrance, exit, dir),
  ],
  turns: ({ dir, entrance, exit, backend }) => [
    relay("exit", exit, backend, dir, "turns"),
    relay("entrance", entrance, exit, dir, "turns"),
  ],
  ssh: ({ dir, entrance, exit, backend }) => [
    [
      "/usr/sbin/sshd",
      ...["-D", "-e", "-f", sshdFile(dir, exit)],
    ],
    [
      "ssh",
      ...["-N", "-F", "none", "-i", `${dir}/ssh`, "-p", `${exit}`],
      ...["-c", "aes256-gcm@openssh.com", "-o", "StrictHostKeyChecking=no"],
      ...["-o", `UserKnownHostsFile=${dir}/known_hosts`, "-o", "BatchMode=yes"],
      ...["-o", "ConnectionAttempts=10"],
      ...["-L", `127.0.0.1:${entrance}:127.0.0.1:${backend}`, "127.0.0.1"],
    ],
  ],
  spiped: ({ dir, entrance, exit, backend }) => [
    ["spiped", "-F", "-d", "-k", `${dir}/key.bin`, ...pipe(exit, backend)],
    ["spiped", "-F", "-e", "-k", `${dir}/key.bin`, ...pipe(entrance, exit)],
  ],
  socat: ({ dir, entrance, exit, backend }) => [
    [
      "socat",
      `OPENSSL-LISTEN:${exit},bind=127.0.0.1,fork,reuseaddr,nodelay,` +
      `cert=${dir}/cert.pem,key=${dir}/key.pem,verify=0`,
      `TCP:127.0.0.1:${backend},nodelay`,
    ],
    [
      "socat",
      `TCP-LISTEN:${entrance},bind=127.0.0.1,fork,reuseaddr,nodelay`,
      `OPENSSL:127.0.0.1:${exit},nodelay,cafile=${dir}/cert.pem`,
    ],
  ],
  stunnel4: ({ dir, entrance, exit, backend }) => [
    [
      "stunnel4",
      stunnelFile(dir, "exit", exit, backend, [
        `cert = ${dir}/cert.pem`,
        `key = ${dir}/key.pem`,
      ]),
    ],
    [
      "stunnel4",
      stunnelFile(dir, "entrance", entrance, exit, [
        "client = yes",
        "verifyChain = yes",
        `CAfile = ${dir}/cert.pem`,
      ]),
    ],
  ],
} satisfies Record<string, Recipe>;

function innerlock(
  { dir, entrance, exit, backend }: Plan,
  flags: string[],
): ReturnType<Recipe> {
  return [
    asTask("server", [
      ...["--port", `${exit}`, "--forward", `127.0.0.1:${backend}`],
      ...["--cert", `${dir}/cert.pem`, "--key", `${dir}/key.pem`],
      ...["--psk", `${dir}/psk.txt`, ...flags],
    ]),
    asTask("client", [
      ...["--port", `${exit}`, "--listen", `${entrance}`],
      ...["--ca", `${dir}/cert.pem`, "--psk", `${dir}/psk.txt`, ...flags],
    ]),
  ];
}

/** A program with the rights and the variables of its task. */
function asTask(task: "server" | "client", args: string[]): string[] {
  const variables = Object.entries(environment(task))
    .map(([name, value]) => `${name}=${value}`);
  return ["env", ...variables, ...command(task, args)];
}

export type Name = keyof typeof RECIPES;

export const NAMES = Object.keys(RECIPES) as Name[];

/** Starts a tunnel to a port of this machine; undefined if it is not installed. */
export async function startTunnel(
  name: Name,
  backend: number,
): Promise<Tunnel | undefined> {
  const plan = {
    dir: await makeSecrets(),
    entrance: freePort(),
    exit: freePort(),
    backend,
  };
  const children: Deno.ChildProcess[] = [];
  const stop = async () => {
    for (const child of children) child.kill();
    await Promise.all(children.map((child) => child.status));
    await Deno.remove(plan.dir, { recursive: true });
  };
  try {
    for (const line of RECIPES[name](plan)) children.push(spawn(line));
  } catch (error) {
    await stop();
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  await untilItCarries(plan.entrance, name);
  return { port: plan.entrance, stop };
}

function spawn([program, ...args]: string[]): Deno.ChildProcess {
  return new Deno.Command(program!, {
    args,
    stdout: "null",
    stderr: "null",
    // The relay is as Deno is by default; this process may be otherwise.
    env: { DENO_TOKIO_EVENT_INTERVAL: "61" },
  }).spawn();
}

/** Waits until a byte sent in comes back. */
async function untilItCarries(port: number, name: Name): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (performance.now() < deadline) {
    try {
      using conn = await Deno.connect({ hostname: "127.0.0.1", port });
      await conn.write(new Uint8Array(1));
      if (await conn.read(new Uint8Array(1)) === 1) return;
    } catch {
      // Not yet.
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`The tunnel of ${name} does not start`);
}

async function makeSecrets(): Promise<string> {
  const dir = await Deno.makeTempDir({ prefix: "innerlock-bench-" });
  const secret = crypto.getRandomValues(new Uint8Array(32));
  const { cert, key } = await makePair(["localhost", "127.0.0.1"]);
  const mode = { mode: 0o600 };
  await Deno.writeTextFile(`${dir}/cert.pem`, cert);
  await Deno.writeTextFile(`${dir}/key.pem`, key, mode);
  await Deno.writeTextFile(
    `${dir}/psk.txt`,
    `default:${secret.toHex()}\n`,
    mode,
  );
  await Deno.writeFile(`${dir}/key.bin`, secret, mode);
  return dir;
}

function relay(
  role: string,
  from: number,
  to: number,
  ...rest: string[]
): string[] {
  const program = `${import.meta.dirname}/relay.ts`;
  const args = [role, `${from}`, `${to}`, ...rest];
  return [Deno.execPath(), "run", "-A", program, ...args];
}

/** A sshd of its own, with keys of its own, for this user on this machine. */
function sshdFile(dir: string, port: number): string {
  for (const name of ["ssh", "host"]) {
    new Deno.Command("ssh-keygen", {
      args: ["-q", "-t", "ed25519", "-N", "", "-f", `${dir}/${name}`],
    }).outputSync();
  }
  const path = `${dir}/sshd_config`;
  Deno.writeTextFileSync(
    path,
    [
      `Port ${port}`,
      "ListenAddress 127.0.0.1",
      `HostKey ${dir}/host`,
      `AuthorizedKeysFile ${dir}/ssh.pub`,
      "StrictModes no",
      "PidFile none",
      "UsePAM no",
      "Ciphers aes256-gcm@openssh.com",
      "",
    ].join("\n"),
  );
  return path;
}

function stunnelFile(
  dir: string,
  name: string,
  from: number,
  to: number,
  lines: string[],
): string {
  const path = `${dir}/${name}.conf`;
  Deno.writeTextFileSync(
    path,
    [
      "foreground = yes",
      "pid =",
      `[${name}]`,
      `accept = 127.0.0.1:${from}`,
      `connect = 127.0.0.1:${to}`,
      ...lines,
      "",
    ].join("\n"),
  );
  return path;
}

function pipe(from: number, to: number): string[] {
  return ["-s", `[127.0.0.1]:${from}`, "-t", `[127.0.0.1]:${to}`];
}
