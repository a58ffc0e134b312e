// npm:deno-std is JavaScript only: the types of what this project uses of it.

declare module "@std/assert" {
  export function assert(expr: unknown, msg?: string): asserts expr;
  export function assertEquals<T>(actual: T, expected: T, msg?: string): void;
  export function assertNotEquals<T>(
    actual: T,
    expected: T,
    msg?: string,
  ): void;
  export function assertMatch(
    actual: string,
    expected: RegExp,
    msg?: string,
  ): void;
  export function assertStringIncludes(
    actual: string,
    expected: string,
    msg?: string,
  ): void;
  export function assertThrows<E extends Error>(
    fn: () => unknown,
    ErrorClass: new (...args: never[]) => E,
    msgIncludes?: string,
  ): E;
  export function assertRejects<E extends Error>(
    fn: () => PromiseLike<unknown>,
    ErrorClass: new (...args: never[]) => E,
    msgIncludes?: string,
  ): Promise<E>;
}

declare module "@std/async/abortable" {
  export function abortable<T>(p: Promise<T>, signal: AbortSignal): Promise<T>;
}

declare module "@std/async/delay" {
  export function delay(
    ms: number,
    options?: { signal?: AbortSignal; persistent?: boolean },
  ): Promise<void>;
}

declare module "@std/cli/parse-args" {
  export function parseArgs(args: string[], options: {
    string?: readonly string[];
    boolean?: readonly string[];
    collect?: readonly string[];
    default?: Record<string, unknown>;
    alias?: Record<string, string>;
    unknown?: (arg: string, key?: string, value?: unknown) => unknown;
  }): Record<string, unknown> & { _: (string | number)[] };
}

declare module "@std/streams" {
  export class TextLineStream extends TransformStream<string, string> {}
  export function toText(stream: ReadableStream): Promise<string>;
}

declare module "@std/fmt/bytes" {
  export function format(bytes: number): string;
}

declare module "@std/fmt/duration" {
  export function format(
    ms: number,
    options?: { ignoreZero?: boolean },
  ): string;
}

declare module "ws" {
  import type { Buffer } from "node:buffer";
  import type { EventEmitter } from "node:events";
  import type { AddressInfo } from "node:net";

  export class WebSocket extends EventEmitter {
    constructor(address: string);
    send(data: Uint8Array | string, done?: (error?: Error) => void): void;
    ping(
      data: Uint8Array,
      mask: undefined,
      done: (error?: Error) => void,
    ): void;
    pause(): void;
    resume(): void;
    close(code?: number, reason?: string): void;
    on(event: "open", listener: () => void): this;
    on(event: "message", listener: (data: Buffer) => void): this;
    on(event: "ping" | "pong", listener: (data: Buffer) => void): this;
    on(event: "close", listener: (code: number) => void): this;
    on(event: "error", listener: (error: Error) => void): this;
  }

  export class WebSocketServer extends EventEmitter {
    constructor(options: {
      host: string;
      port: number;
    });
    address(): AddressInfo;
    close(done: () => void): void;
    on(event: "listening", listener: () => void): this;
    on(event: "connection", listener: (socket: WebSocket) => void): this;
  }
}
