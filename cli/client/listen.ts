/**
 * `client --listen` and `--expose`: the ends of tunnels, from flags to the last
 * caller.
 *
 * @module
 */

import { UnansweredError } from "../../lib/deno.ts";
import type { Channel, Engine } from "../../lib/mod.ts";
import { authority } from "../../lib/carrier/ip_address.ts";
import { type Address, format, parseAddress } from "../../tunnel/address.ts";
import { Dials } from "../../tunnel/dials.ts";
import { Reserve } from "../../tunnel/reserve.ts";
import { readNoPipes } from "../files.ts";
import { FollowedFiles } from "../followed_files.ts";
import { complaintOf, Complaints } from "../complaints.ts";
import {
  dial,
  dialFiles,
  type DialOptions,
  forService,
  readDialOptions,
} from "./dial.ts";
import { Exit, messageOf, UsageError } from "../advice/errors.ts";
import { readBackends } from "../backends.ts";
import { carryCallers, openEntrance } from "../entrance.ts";
import { expose } from "./expose.ts";
import { onHangUp } from "../hangup.ts";
import { Live } from "../live.ts";
import type { Args } from "../main.ts";
import { stderr, stdout } from "../terminal/output.ts";
import {
  giveUp,
  keepOnly,
  socketFolders,
  socketPaths,
} from "../permissions.ts";
import { stopSignal } from "../signals.ts";
import { count, mayFinish, stopped } from "../terminal/words.ts";

/** Where local callers come in, and the service that they are carried to. */
interface Door {
  address: Address;
  service: string | undefined;
}

/** Reported at most once a minute, while callers wait for descriptors. */
const SHORTAGE =
  "out of file descriptors: callers wait in the system's queue; " +
  "raise 'ulimit -n'";

/** Carries local callers, and the server's, until a signal says to stop. */
export async function carryAll(
  args: Args,
  sealing: { engine?: Engine },
): Promise<number> {
  const doors = args.texts("listen").map(parseDoor);
  const exposures = readBackends(args, "expose");
  const services = [
    ...doors.map(({ service }) => service),
    ...exposures.keys(),
  ];
  args.takesNoWords(doors.length > 0 ? "--listen" : "--expose");
  const grace = 1000 * args.integer("grace", 0, 86_400);
  const maxConnections = args.integer("max-connections", 1, 1_000_000);
  const max = args.integer("reserve", 0, 1000);
  const named = await dialFiles(args);
  const files = [named.ca, named.psk, named.settings, ...named.others];
  const followed = new FollowedFiles(files, async () => {
    const options = { ...await readDialOptions(args, named), ...sealing };
    for (const service of services) forService(options, service);
    return options;
  });
  let options = await followed.read();
  readNoPipes();
  const folders = socketFolders(doors.map(({ address }) => address));
  const both = [...folders, ...socketPaths([...exposures.values()])];
  keepOnly({ read: [...both, ...files], write: both });
  // The system's CAs are read again at each reload.
  if (!args.is("system-ca")) giveUp("sys");
  if (sealing.engine) report(`sealing with ${sealing.engine.name}`);
  const stopping = stopSignal();
  const live = new Live(maxConnections);
  const reserves: Reserve[] = [];
  const dials = new Dials();
  const coming = () => {
    const missing = reserves.reduce((sum, { missing }) => sum + missing, 0);
    return Math.min(missing, dials.limit);
  };
  const complaints = new Complaints(report);
  const complain = (error: Error) => complaints.add(...complaintOf(error));
  const tunnels = await Promise.all(doors.map(async ({ address, service }) => {
    const entrance = await openEntrance(address, {
      sessions: coming,
      onShortage: () => report(SHORTAGE),
    });
    const from = format(entrance.address);
    const reserve = new Reserve({
      dial: dialer(() => forService(options, service), { standby: true }),
      report,
      ready: () => report(`ready: ${from} → ${there(options, service)}`),
      max,
      dials,
    });
    reserves.push(reserve);
    return { entrance, reserve };
  }));
  const offers = Array.from(exposures, ([service, backend]) => {
    const reserve = expose({
      dial: dialer(() => forService(options, service), { offer: true }),
      report,
      ready: () =>
        report(`ready: ${there(options, service)} → ${format(backend)}`),
      ...{ max, dials, backend, live, complain },
    });
    reserves.push(reserve);
    return reserve;
  });
  followed.follow({
    take: (later) => {
      options = later;
      for (const reserve of reserves) reserve.renew();
    },
    taken: () => report("certificates and keys read again"),
    failed: (error) => report(`nothing reloaded: ${messageOf(error)}`),
  });
  onHangUp(() => followed.reload());
  const accepting = tunnels.map(({ entrance, reserve }) => {
    stdout.line(`listening on ${format(entrance.address)}`);
    return carryCallers(entrance, {
      sessions: reserve,
      report: complain,
      live,
    });
  });
  for (const backend of exposures.values()) {
    stdout.line(`exposing ${format(backend)}`);
  }
  await stopping;
  await Promise.all(tunnels.map(({ entrance }) => entrance.close()));
  for (const offer of offers) offer.close();
  if (live.size > 0) report(mayFinish(count(live.size, "caller"), grace));
  const cut = await live.drain(grace);
  for (const reserve of reserves) reserve.close();
  await Promise.all(accepting);
  complaints.tellRest();
  report(stopped(cut, "caller"));
  return cut === 0 ? Exit.done : Exit.failed;
}

/**
 * Dials for a reserve. A server that goes away in the middle of a handshake looks
 * like one that refuses the key: where it has taken that key before, that is said.
 */
function dialer(
  current: () => DialOptions,
  as: { standby: true } | { offer: true },
): (signal: AbortSignal) => Promise<Channel> {
  let taken: DialOptions["psk"] | undefined;
  return async (signal) => {
    const options = current();
    try {
      const channel = await dial({ ...options, ...as, signal });
      channel.confirmed.then(() => taken = options.psk, () => {});
      return channel;
    } catch (error) {
      const isKnown = error instanceof UnansweredError &&
        error.code === "refused" && taken === options.psk;
      if (!isKnown) throw error;
      const { hostname, port, identity } = options;
      const message = `The server ${authority(hostname, port)} closed the ` +
        `connection during the handshake: it has stopped, or the key of ` +
        `${identity} was revoked or replaced`;
      throw new UnansweredError("refused", message, { cause: error });
    }
  };
}

function report(message: string): void {
  stderr.line(`client: ${message}`);
}

/** `[HOST:]PORT` or `unix:/path`, and perhaps `=SERVICE`. */
function parseDoor(text: string): Door {
  const [, where = "", service] = /^([^=]*)(?:=([\w.-]+))?$/.exec(text) ?? [];
  const address = parseAddress(where, "127.0.0.1");
  if (address) return { address, service };
  throw new UsageError(
    `--listen takes [HOST:]PORT[=SERVICE] or unix:/path[=SERVICE], not ${text}`,
  );
}

/** The server, and as whom one is there. */
function there(options: DialOptions, service: string | undefined): string {
  const { hostname, port, identity } = forService(options, service);
  return `${authority(hostname, port)} as ${identity}`;
}
