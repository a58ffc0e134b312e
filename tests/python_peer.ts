/** `peer.py`, the independent implementation, as tests speak to it. */

import { TextLineStream } from "@std/streams";
import { launch } from "./limit.ts";
import { lacksProgram } from "./requirements.ts";

const PYTHON = "/usr/bin/python3";
const PEER = `${import.meta.dirname}/peer.py`;

/** Why it cannot run here. */
export const lacksPeer = (): string | undefined =>
  lacksProgram([PYTHON, "-c", "import dissononce"], "python3-dissononce");

/** What became of a session, as the peer has it. */
export interface Outcome {
  identity: string | null;
  result: string;
  /** How many transport messages it sent. */
  sent: number;
  received: number;
}

function spawn(args: string[]): Deno.ChildProcess {
  return launch(PYTHON, {
    args: [PEER, ...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  });
}

/** What `peer.py transcript` prints. */
export async function transcriptOfPeer(): Promise<string> {
  const child = spawn(["transcript"]);
  await child.stdin.close();
  return new TextDecoder().decode((await child.output()).stdout);
}

/** A peer in one role, which runs session after session. */
export class PythonPeer implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #output: ReadableStreamDefaultReader<string>;
  /** Of a server. */
  port = 0;

  private constructor(args: string[]) {
    this.#child = spawn(args);
    this.#input = this.#child.stdin.getWriter();
    this.#output = this.#child.stdout.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream()).getReader();
  }

  /** @param dir A folder of keys and certificates. */
  static client(dir: string, port: number): PythonPeer {
    const files = [`${dir}/cert.pem`, `${dir}/psk.txt`];
    return new PythonPeer(["client", String(port), ...files]);
  }

  /** @param dir A folder of keys and certificates. */
  static async server(dir: string): Promise<PythonPeer> {
    const files = ["cert.pem", "key.pem", "psk.txt"].map((f) => `${dir}/${f}`);
    const peer = new PythonPeer(["server", ...files]);
    peer.port = Number((await peer.#output.read()).value);
    return peer;
  }

  /**
   * Runs a session: the client's identity (a server's is `-`), and steps in the
   * peer's own language, which peer.py explains.
   */
  async run(session: string): Promise<Outcome> {
    await this.#input.write(new TextEncoder().encode(session + "\n"));
    const { value } = await this.#output.read();
    if (value === undefined) throw new Error("peer.py has ended");
    return JSON.parse(value);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#input.close().catch(() => {});
    for (; !(await this.#output.read()).done;);
    await this.#child.status;
  }
}
