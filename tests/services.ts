/** Programs that listen on a port of this machine. */

import type { Address } from "../tunnel/address.ts";
import { launch, printed as run } from "./limit.ts";
import { freePort } from "./programs.ts";

export { run };

/** Where one listens. */
export interface Place {
  host: string;
  port: number;
}

export function freePlace(): Place {
  return { host: "127.0.0.1", port: freePort() };
}

/** A program in the foreground, told to end at the end. */
export class Service implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #said: Promise<string>;
  readonly #signal: Deno.Signal;
  #hasEnded = false;

  private constructor([name, ...args]: string[], signal: Deno.Signal) {
    this.#child = launch(name!, {
      args,
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    });
    this.#said = new Response(this.#child.stderr).text();
    this.#signal = signal;
    this.#child.status.then(() => this.#hasEnded = true);
  }

  /**
   * Waits until it listens: most give no other sign.
   *
   * @param signal Tells it to end.
   */
  static async start(
    command: string[],
    address: Address,
    signal: Deno.Signal = "SIGTERM",
  ): Promise<Service> {
    const service = new Service(command, signal);
    const deadline = performance.now() + 20_000;
    while (true) {
      try {
        await reach(address);
        return service;
      } catch {
        if (service.#hasEnded || performance.now() > deadline) {
          await service.stop();
          const said = await service.#said;
          throw new Error(`${command.join(" ")} does not start: ${said}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  async stop(): Promise<void> {
    if (!this.#hasEnded) this.#child.kill(this.#signal);
    await this.#child.status;
    await this.#said;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** Connects to an address, and goes. */
async function reach(address: Address): Promise<void> {
  const conn = "path" in address
    ? await Deno.connect({ transport: "unix", path: address.path })
    : await Deno.connect({ hostname: address.host, port: address.port });
  conn.close();
}

/** Where its programs are. */
export const POSTGRES = "/usr/lib/postgresql/15/bin";

/** What tells whether PostgreSQL is installed. */
export const HAS_POSTGRES = ["which", `${POSTGRES}/postgres`];

/** What `psql` and its like are told to connect as. */
export const postgresArgs = ({ host, port }: Place) => [
  ...["-h", host, "-p", `${port}`, "-U", "postgres", "-d", "postgres"],
];

/**
 * A new and empty PostgreSQL, with its data in a folder.
 *
 * @param network What runs it in another network than ours.
 */
export async function startPostgres(
  dir: string,
  { host, port }: Place,
  network: string[] = [],
): Promise<Service> {
  const data = `${dir}/data`;
  // It does not run as root.
  const user = ["--reuid=postgres", "--regid=postgres", "--init-groups"];
  const asPostgres = Deno.uid() === 0 ? ["setpriv", ...user, "--"] : [];
  await run(["chmod", "755", dir]);
  await run(["mkdir", data]);
  if (asPostgres.length > 0) await run(["chown", "postgres", data]);
  const init = ["-A", "trust", "-U", "postgres", "--no-sync"];
  await run([...asPostgres, `${POSTGRES}/initdb`, "-D", data, ...init]);
  const command = [
    ...[...network, ...asPostgres, `${POSTGRES}/postgres`, "-D", data],
    ...["-k", data, "-h", host, "-p", String(port), "-F"],
  ];
  // A path leads to it from any network. SIGTERM would wait for its clients.
  const path = `${data}/.s.PGSQL.${port}`;
  return await Service.start(command, { path }, "SIGINT");
}

/** What tells whether OpenSSH's server is installed. */
export const HAS_SSHD = ["which", "/usr/sbin/sshd"];

/**
 * An OpenSSH server that lets this user in with the key in the same folder, which
 * it makes.
 */
export async function startSshd(
  dir: string,
  { host, port }: Place,
): Promise<Service> {
  for (const name of ["host", "user"]) {
    const key = ["-t", "ed25519", "-N", "", "-f", `${dir}/${name}`];
    await run(["ssh-keygen", "-q", ...key]);
  }
  await run(["mkdir", "-p", "/run/sshd"]);
  await Deno.writeTextFile(
    `${dir}/sshd_config`,
    `HostKey ${dir}/host\nAuthorizedKeysFile ${dir}/user.pub\n` +
      `ListenAddress ${host}:${port}\nPidFile none\n` +
      `StrictModes no\nUsePAM no\nPermitRootLogin yes\n` +
      `Subsystem sftp internal-sftp\n`,
  );
  const command = ["/usr/sbin/sshd", "-D", "-f", `${dir}/sshd_config`];
  return await Service.start(command, { host, port });
}

/** What `ssh` and `scp` need to be let in there, and to ask nothing. */
export const sshArgs = (dir: string) => [
  ...["-i", `${dir}/user`, "-o", "StrictHostKeyChecking=no"],
  ...["-o", "BatchMode=yes", "-o", "UserKnownHostsFile=/dev/null"],
  ...["-o", "LogLevel=ERROR"],
];
