/** GET /v1/commands/:id/explain: gathers what is known of a command, and says it in one sentence. */
import type { FastifyInstance } from 'fastify';
import type { Static } from 'typebox';
import { bounded } from '../../queues/bounded.ts';
import type { Outbound } from '../../queues/contract.ts';
import { lineOf } from '../../queues/line.ts';
import type { Routes, Standing } from '../bridge/routes-contract.ts';
import { type CommandRecord, isFinal } from '../command.ts';
import { specOf } from '../protocols/index.ts';
import type { CommandSpec, Protocol } from '../protocols/protocol.ts';
import type { Devices, Ledger, Pauses } from '../store/contract.ts';
import {
  answerDue,
  type Explanation,
  explain,
  type Other,
  type Whereabouts,
} from './explanation.ts';
import type { Lookup } from './lookup.ts';
import { CommandExplained, commonProblems, IdParams, problems } from './schemas.ts';

export type Explained = { record: CommandRecord; source: 'ledger' | 'queue' } & Explanation;
export type Explain = (id: string) => Promise<Explained>;

export type ExplainDeps = {
  lookup: Lookup;
  ledger: Pick<Ledger, 'findMany'>;
  devices: Pick<Devices, 'find'>;
  pauses: Pick<Pauses, 'find'>;
  routes: Pick<Routes, 'inspect'>;
  outbound: Pick<Outbound, 'inspect' | 'isPaused' | 'counts'>;
  liveGateways(): Promise<ReadonlyMap<string, { draining: boolean }>>;
  liveWorkers(): Promise<number>;
  protocols: readonly Protocol[];
  now(): number;
  /** How long each store may take to tell its part. */
  timeoutMs?: number;
};

/** Of those before it, so many are looked up: the first says why, the others only count. */
const MAX_OTHERS = 20;

export function createExplain(deps: ExplainDeps): Explain {
  const { lookup, ledger, devices, pauses, routes, outbound, protocols, now } = deps;
  const { timeoutMs = 1_000 } = deps;

  return async function gather(id) {
    const { record, source } = await lookup.find(id);
    if (isFinal(record.status)) {
      const ended = { whereabouts: null, pause: null, lastSeenAt: null };
      return { record, source, ...explain({ now: now(), record, source, ...ended }) };
    }
    const [found, pausedByLedger, device] = await Promise.all([
      known(findWhereabouts(record)),
      known(pauses.find(record.deviceId)),
      known(devices.find(record.deviceId)),
    ]);
    const facts = {
      now: now(),
      record,
      source,
      whereabouts: found?.whereabouts ?? null,
      pause: pauseOf(pausedByLedger, found?.pausedAt ?? null),
      lastSeenAt: device?.lastSeenAt ?? null,
    };
    return { record, source, ...explain(facts) };
  };

  /** Null for what a store that is away could have told. */
  function known<T>(asked: Promise<T>): Promise<T | null> {
    const late = () => new Error(`no answer within ${timeoutMs} ms`);
    return bounded(asked, timeoutMs, late).catch(() => null);
  }

  async function findWhereabouts(record: CommandRecord) {
    const { id, deviceId } = record;
    const spec = specOf(record, protocols);
    const [standing, job, queuePaused, { waiting }, gateways, liveWorkers] = await Promise.all([
      routes.inspect(deviceId, id, lineOf(record, spec)),
      outbound.inspect(deviceId, id),
      outbound.isPaused(),
      outbound.counts(),
      deps.liveGateways(),
      deps.liveWorkers(),
    ]);
    const { presence, mark, revocation, parked, pausedAt } = standing;
    const held = presence && gateways.get(presence.gatewayId);
    const { ahead, underWay } = await findOthers(id, standing, spec);
    const whereabouts: Whereabouts = {
      revocation,
      withGateway: mark?.gatewayId ? { gatewayId: mark.gatewayId, attempt: mark.attempt } : null,
      written: mark?.written ?? false,
      gateway: held ? { gatewayId: presence.gatewayId, draining: held.draining } : null,
      liveGateways: gateways.size,
      liveWorkers,
      queuePaused,
      ahead,
      underWay,
      parked,
      job,
      waiting,
    };
    return { whereabouts, pausedAt };
  }

  /** The commands it waits for, with what the ledger knows of their answers. */
  async function findOthers(id: string, standing: Standing, spec: CommandSpec | undefined) {
    const sent = standing.underWay.filter((other) => other.id !== id);
    const ids = [...standing.ahead, ...sent.map((other) => other.id)].slice(0, MAX_OTHERS);
    const rows = ids.length === 0 ? null : await known(ledger.findMany(ids));
    const marks = new Map(sent.map((other) => [other.id, other.mark]));
    const other = (otherId: string): Other => {
      const row = rows?.get(otherId);
      const mark = marks.get(otherId);
      return {
        id: otherId,
        command: row?.command ?? null,
        answerDueAt: row && mark ? answerDue(row, mark.attempt) : null,
      };
    };
    const ahead = standing.ahead.filter((otherId) => {
      const row = rows?.get(otherId);
      if (row && isFinal(row.status)) return false;
      // A stop waits for no command of its line but other stops.
      return spec?.preempts !== true || (row && specOf(row, protocols)?.preempts === true);
    });
    return { ahead: ahead.map(other), underWay: sent.map(({ id: sentId }) => other(sentId)) };
  }
}

/** The ledger knows who and why; its copy in Redis is what holds, also while the ledger is away. */
function pauseOf(
  row: { pausedAt: number; by: string; reason: string | null } | null,
  pausedAt: number | null,
) {
  if (row) return { since: row.pausedAt, by: row.by, reason: row.reason };
  return pausedAt === null ? null : { since: pausedAt, by: null, reason: null };
}

export function explainRoutes(
  app: FastifyInstance,
  { explain: explainOne }: { explain: Explain },
): void {
  app.get<{ Params: Static<typeof IdParams> }>(
    '/commands/:id/explain',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'explainCommand',
        summary: 'Say why a command was not sent yet, or how it ended',
        description:
          '`because` is stable, `sentence` is for people. `also` names other obstacles that hold.',
        tags: ['commands'],
        params: IdParams,
        response: { 200: CommandExplained, ...commonProblems, ...problems.notFound },
      },
    },
    async (request) => {
      const { record, source, because, sentence, also, fields } = await explainOne(
        request.params.id,
      );
      const { id, status, deviceId } = record;
      return { id, status, deviceId, because, sentence, also, source, ...fields };
    },
  );
}
