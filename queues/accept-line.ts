/** The step of accept in which a command takes its place in its line, or is refused for what stands there. */
import type { Joined, Routes } from '../src/bridge/routes-contract.ts';
import type { Command } from '../src/command.ts';
import { DownlinkError } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { CommandSpec } from '../src/protocols/protocol.ts';
import { bounded } from './bounded.ts';
import type { Outbound } from './contract.ts';
import type { Join } from './join.ts';
import { type Caps, joinOf, lineOf } from './line.ts';

export type Place = {
  /** Null: it keeps no order, or joins later. */
  line: string | null;
  /** The older command that it waits for. */
  blockedBy: string | null;
  /** Older ones that it has just replaced. */
  superseded: readonly string[];
};

export type Lining = {
  /**
   * Joins the line. Rejects with CONFLICT or TOO_MANY_WAITING. While the queue store is away it has no place: the
   * worker lets it join later. Calls of one turn keep their order.
   */
  join(command: Command, spec: CommandSpec): Promise<Place>;
  /** Leaves it again, for a command that no store took. Never rejects. */
  leave(command: Command, place: Place): Promise<void>;
  /** The one ahead may have ended before this one stood in the queue to be woken. Never rejects. */
  lookAgain(command: Command): Promise<void>;
};

export type LiningDeps = {
  join: Join;
  routes: Pick<Routes, 'undoJoin' | 'cameMeanwhile'>;
  outbound: Pick<Outbound, 'wake'>;
  caps: Caps;
  log: Log;
  timeoutMs: number;
};

const noPlace: Place = { line: null, blockedBy: null, superseded: [] };
/** What waits goes on within seconds, or not for long. */
const retryAfterS = 5;

export function createLining({ join, routes, outbound, caps, log, timeoutMs }: LiningDeps): Lining {
  const late = () => new Error(`no answer within ${timeoutMs} ms`);

  return {
    async join(command, spec) {
      // Before it is due it blocks, replaces and refuses nothing.
      if (command.notBefore > command.acceptedAt) return noPlace;
      let joined: Joined;
      try {
        const request = joinOf(command, spec, 'accept', caps);
        joined = await bounded(join(request), timeoutMs, late);
      } catch (error) {
        log.warn({ error, commandId: command.id }, 'command joins its line later');
        return noPlace;
      }
      if (joined.kind !== 'joined') throw refusal(command, joined, caps);
      const { blockedBy, superseded } = joined;
      return { line: lineOf(command, spec), blockedBy, superseded };
    },
    async leave({ deviceId, id }, { line }) {
      if (line === null) return;
      try {
        const woken = await bounded(routes.undoJoin(deviceId, id, line), timeoutMs, late);
        for (const next of woken) outbound.wake(deviceId, next).catch(() => undefined);
      } catch (error) {
        log.debug({ error, commandId: id }, 'line not left');
      }
    },
    async lookAgain({ deviceId, id }) {
      try {
        const query = { deviceId, id, epoch: '', because: 'key-blocked' };
        if (await routes.cameMeanwhile(query)) await outbound.wake(deviceId, id);
      } catch (error) {
        log.debug({ error, commandId: id }, 'command left to its backstop');
      }
    },
  };
}

/** What a parked command says of itself. */
export function reasonOfBlock(blockedBy: string): string {
  return `waits for the end of command ${blockedBy}, which is older and of the same order key`;
}

function refusal(
  { id, command, deviceId, orderKey }: Command,
  joined: Exclude<Joined, { kind: 'joined' }>,
  caps: Caps,
): DownlinkError {
  switch (joined.kind) {
    case 'conflict':
      return new DownlinkError(
        'CONFLICT',
        `${command} is refused while command ${joined.with} stands unfinished in line ${orderKey} of device ${deviceId}: wait for its end, or cancel or stop it`,
        { details: { id: joined.with } },
      );
    case 'superseded':
      return new DownlinkError(
        'CONFLICT',
        `command ${id} was replaced by the stop ${joined.by} while it was being accepted: send it again if it is still wanted`,
        { details: { id: joined.by } },
      );
    case 'full': {
      const ofKey = joined.of === 'key';
      const where = ofKey ? `order key ${orderKey} of device ${deviceId}` : `device ${deviceId}`;
      const most = ofKey ? caps.maxPerKey : caps.maxPerDevice;
      return new DownlinkError(
        'TOO_MANY_WAITING',
        `${joined.waiting} commands wait for ${where}, and at most ${most} may: try again when some have ended, or cancel some`,
        { details: { retryAfterS } },
      );
    }
  }
}
