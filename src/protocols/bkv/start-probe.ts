/**
 * Whether a start that went unanswered took effect, from what the port says afterwards and what was
 * reported of it before and since.
 *
 * A device numbers each charge. A start by control gets a number that was not there before; a card
 * order runs under the number of its swipe. A charge may be over before anybody asks, so reports of
 * its end count too. What a card, or a charge from before the write, may just as well have caused
 * proves nothing, and only a port that is plainly idle proves that nothing happened.
 */
import type { Params } from '../../command.ts';
import type { Evidence, Observation, Probe, ProbeVerdict } from '../protocol.ts';
import { type HoleState, holeState, reportedHoles } from './hole-state.ts';
import { idleStatus } from './hole-status.ts';
import { elementsIn, kvFields } from './kv.ts';

/** Reports of the end of a charge, which has thus taken place. */
const ends: ReadonlySet<string> = new Set(['charge.end', 'tiers.end', 'fee.end', 'card.end']);
const swipe = 'card.swipe';
/** Answers to starts and stops, with the number of the charge at that moment. */
const replies: ReadonlySet<string> = new Set([
  'control.reply',
  'tiers.start.reply',
  'fee.start.reply',
]);
/** A charge that such a report names was not started by control. */
const ofCards: ReadonlySet<string> = new Set([swipe, 'card.end']);
/** A device counts whole minutes. */
const minuteMs = 60_000;

type Hole = { socket: number; port: number };

/** The state of the hole in a report. */
type Sighting = HoleState & { name: string; at: number };

/** What is known once the answer has told the state of the hole. */
type Scene = {
  hole: Hole;
  state: HoleState;
  writtenAt: number;
  before: readonly Sighting[];
  since: readonly Sighting[];
  rivals: readonly number[];
};

/** For starts whose charge the device numbers itself. */
export const startProbe: Probe = probe(judgeStart);

/** For the order after a swipe, which gave the number. */
export const cardOrderProbe: Probe = probe(judgeCardOrder);

function probe(judge: (scene: Scene, params: Params) => ProbeVerdict): Probe {
  return {
    kind: 'ask',
    command: 'port.query',
    params: ({ socket }) => ({ socket }),
    reports: ['status.report', ...ends, ...replies, swipe],
    judge(params, evidence) {
      const hole = params as Hole;
      const { answer, writtenAt, before, since, rivals } = evidence;
      if (!answer.accepted) return unclear(`the device did not tell its state: ${answer.reason}`);
      const state = answeredState(hole, answer.result);
      if (state === undefined) {
        const where = `port ${hole.port} of socket ${hole.socket}`;
        return unclear(`the device's answer does not tell the state of ${where}`);
      }
      const sighted = (observations: Evidence['since']) =>
        observations.flatMap((observation) => sightingsOf(hole, observation));
      const sightings = { before: sighted(before), since: sighted(since) };
      const scene = { hole, state, writtenAt, rivals, ...sightings };
      return judge(scene, params);
    },
  };
}

function judgeStart(scene: Scene): ProbeVerdict {
  const { state, before, since } = scene;
  const last = lastNumber(before);
  const fresh = chargesSeen(scene).filter((number) => number !== last?.number);
  const [number] = fresh;
  if (number === undefined) return withoutCharge(scene, last?.number ?? 0);
  if (last === null) {
    return unclear(
      `a charge has the number ${number}, but no report tells the number before the write`,
    );
  }
  if (fresh.length > 1) {
    return unclear(`the port had the charges ${fresh.join(', ')} since the write, not one`);
  }
  if (state.charging && state.businessNo !== number) {
    return unclear(`the port is charging, but not under number ${number}, which came since`);
  }
  if (since.some(({ name, businessNo }) => ofCards.has(name) && businessNo === number)) {
    return unclear(`the charge with number ${number} came from a card`);
  }
  // A number that a start before this one was given, and of which nothing was heard, would look as new.
  if (scene.rivals.some((at) => at >= last.at)) {
    return unclear(`the charge with number ${number} may be that of an earlier unanswered start`);
  }
  if (since.some((one) => one.businessNo === number && beganBefore(one, scene.writtenAt))) {
    return unclear(`the charge with number ${number} began before the write`);
  }
  return tookEffect(scene, number);
}

function judgeCardOrder(scene: Scene, params: Params): ProbeVerdict {
  const number = params['businessNo'] as number;
  const isOurs = (one: HoleState) => one.businessNo === number;
  if (!chargesSeen(scene).includes(number)) return withoutCharge(scene, number);
  if (scene.before.some((one) => isOurs(one) && (one.charging || ends.has(one.name)))) {
    return unclear(`a charge with the number ${number} of the swipe was seen before the write`);
  }
  return tookEffect(scene, number);
}

/**
 * Nothing was seen of the charge that was ordered.
 * Idle is plain only as the vendor shows it, and under no new number.
 */
function withoutCharge({ state, since }: Scene, familiar: number): ProbeVerdict {
  const { status = 0, charging, businessNo: number = 0 } = state;
  if (charging) {
    const under = number === 0 ? 'without a number' : `under number ${number}`;
    return unclear(`the port is charging ${under}, which does not show that it was this start`);
  }
  if (status !== idleStatus) {
    const shown = `0x${status.toString(16).padStart(2, '0')}`;
    return unclear(`the port is neither charging nor plainly idle: its status is ${shown}`);
  }
  const numbered = since
    .filter(({ name }) => replies.has(name))
    .map(({ businessNo }) => businessNo);
  const fresh = [number, ...numbered].find((one) => Boolean(one) && one !== familiar);
  if (fresh === undefined) return { kind: 'no-effect' };
  return unclear(`the port is idle, but the number ${fresh} was not seen before the write`);
}

/** The numbers of the charges that the hole shows now, or showed since the write. */
function chargesSeen({ state, since }: Scene): number[] {
  const seen = since.filter(({ name, charging }) => ends.has(name) || (charging && name !== swipe));
  const numbers = [...(state.charging ? [state] : []), ...seen].map(({ businessNo }) => businessNo);
  return [...new Set(numbers)].filter((number): number is number => Boolean(number));
}

/** The newest number and when it was told; 0 where the hole was idle and never numbered; null where nothing tells. */
function lastNumber(before: readonly Sighting[]): { number: number; at: number } | null {
  const numbered = before.find(({ businessNo }) => Boolean(businessNo));
  if (numbered?.businessNo) return { number: numbered.businessNo, at: numbered.at };
  const idle = before.find(({ status, businessNo }) => status === idleStatus && businessNo === 0);
  return idle ? { number: 0, at: idle.at } : null;
}

function beganBefore({ at, durationS = 0 }: Sighting, writtenAt: number): boolean {
  return at - durationS * 1000 < writtenAt - minuteMs;
}

function answeredState(
  { socket, port }: Hole,
  result: Record<string, unknown>,
): HoleState | undefined {
  const holes = result['holes'];
  if (result['socket'] !== socket || !Array.isArray(holes)) return undefined;
  const state = (holes as HoleState[]).find((one) => one?.port === port);
  return state?.status === undefined ? undefined : state;
}

function sightingsOf({ socket, port }: Hole, { name, at, fields }: Observation): Sighting[] {
  if (name === 'status.report') {
    const state = reportedHoles(socket, fields)?.find((one) => one.port === port);
    return state === undefined ? [] : [{ ...state, name, at }];
  }
  const told = 'kv' in fields ? kvFields(elementsIn(fields)) : fields;
  return told['socketNo'] === socket && told['holeNo'] === port
    ? [{ ...holeState(told), name, at }]
    : [];
}

function tookEffect({ hole: { socket, port } }: Scene, businessNo: number): ProbeVerdict {
  return { kind: 'took-effect', result: { businessNo, socket, port } };
}

function unclear(reason: string): ProbeVerdict {
  return { kind: 'unclear', reason };
}
