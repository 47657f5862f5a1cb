/** Where a command may go now. One that keeps an order takes its place in its line first, if it has none yet. */

import type { Join } from '../queues/join.ts';
import { type Caps, joinOf } from '../queues/line.ts';
import type { Supersede } from '../queues/supersede.ts';
import type { Route, Routes } from '../src/bridge/routes-contract.ts';
import type { Outcome } from '../src/outcome.ts';
import type { Recorder } from './recorder.ts';
import { activeBefore, type Run } from './run.ts';

export type FindRouteDeps = {
  routes: Pick<Routes, 'route'>;
  join: Join;
  supersede: Supersede;
  recorder: Pick<Recorder, 'untilDone'>;
  caps: Caps;
  now: () => number;
};

/** A route to go, what came of it without this run, or how the attempt ends without a frame. */
export type Found =
  | { go: Extract<Route, { kind: 'go' }> }
  | { kept: Extract<Route, { kind: 'kept' }> }
  | { outcome: Outcome };

/** `probing`: nothing is marked, since only a question about the command is to be sent. */
export type FindRoute = (run: Run, options: { probing: boolean }) => Promise<Found>;

/** A line may be lost between a join and the route that follows, but hardly twice. */
const maxJoins = 3;

export function createFindRoute(deps: FindRouteDeps): FindRoute {
  const { routes, join: takePlace, supersede, recorder, caps, now } = deps;

  return async function findRoute(run, { probing }) {
    for (let joins = 0; ; joins += 1) {
      const route = await ask(run, probing);
      if (route.kind !== 'unjoined') return found(run, route, now());
      const refusal = joins < maxJoins ? await join(run) : unwritten('key-blocked');
      if (refusal) return { outcome: refusal };
    }
  };

  function ask(run: Run, probing: boolean): Promise<Route> {
    const { command } = run;
    return recorder.untilDone(() =>
      routes.route({
        id: command.id,
        deviceId: command.deviceId,
        line: run.line,
        priority: command.priority,
        attempt: run.attempt,
        maxAttempt: command.attempts,
        maxWireId: run.protocol!.limits.maxWireId,
        again: activeBefore(run),
        probing,
      }),
    );
  }

  /** It was scheduled, or accepted while the queue store was away: its time to join is now. */
  async function join(run: Run): Promise<Outcome | null> {
    const { command } = run;
    const mode = command.notBefore > command.acceptedAt ? 'activation' : 'refill';
    const joined = await recorder.untilDone(() =>
      takePlace(joinOf(command, run.spec!, mode, caps)),
    );
    switch (joined.kind) {
      case 'conflict': {
        const detail = `command ${joined.with}, which it excludes, was unfinished when its time came`;
        return { kind: 'refused', reason: 'conflict', detail };
      }
      case 'superseded':
        run.revocation = { kind: 'superseded', by: joined.by };
        return unwritten('key-blocked');
      case 'full':
        return unwritten('key-blocked');
      case 'joined':
        // What it replaces must not be written after it: what a gateway holds is taken back first.
        await supersede.withdraw(command.deviceId, joined.superseded);
        supersede.hasten(command.deviceId, joined.superseded);
        return null;
    }
  }
}

/** What the route means for the run. */
function found(run: Run, route: Exclude<Route, { kind: 'unjoined' }>, now: number): Found {
  if (route.kind === 'kept') return { kept: route };
  run.attempt = route.attempt;
  if (route.kind === 'spent') {
    run.writtenBefore = true;
    const reason = 'gateway-silent';
    return { outcome: { kind: 'ambiguous', reason, writtenAt: null, endedAt: now } };
  }
  run.writtenBefore ||= route.writtenBefore;
  switch (route.kind) {
    case 'go':
      return { go: route };
    case 'blocked':
      run.blockedBy = route.by;
      return { outcome: unwritten('key-blocked') };
    case 'revoked':
      run.revocation = route.revocation;
      return { outcome: unwritten('key-blocked') };
    default:
      return { outcome: unwritten(route.kind) };
  }
}

function unwritten(reason: Extract<Outcome, { kind: 'unwritten' }>['reason']): Outcome {
  return { kind: 'unwritten', reason };
}
