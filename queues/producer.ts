/**
 * The way in for Node services that enqueue by themselves: a command is checked as accept checks it, then added as
 * a job of the outbound queue. The ledger hears of it when a worker takes it; until then Redis alone has it.
 */
import type { Redis } from 'ioredis';
import { v7 as uuidV7 } from 'uuid';
import { createKeys } from '../src/bridge/keys.ts';
import type { Command } from '../src/command.ts';
import { name as nameReader } from '../src/config/readers.ts';
import { settings } from '../src/config/settings.ts';
import { closeRedis, connectRedis } from '../src/connections/redis.ts';
import { DownlinkError, messageOf } from '../src/errors.ts';
import { protocols } from '../src/protocols/index.ts';
import type { AcceptBody } from './accept-body.ts';
import { type Check, createCheck } from './accept-check.ts';
import { createOutbound } from './outbound.ts';

/** What a producer asks for: the body of POST /v1/commands, and what the API would have looked up. */
export type Production = AcceptBody & {
  /** The device's protocol, such as `bkv`: a producer looks nothing up. */
  protocol: string;
  /** A UUID of your own; adding an id again changes nothing. A new UUIDv7 without it. */
  id?: string;
};

export type Producer = {
  /** Resolves with the command once Redis has it; rejects with the code that the API would answer with. */
  add(production: Production): Promise<Command>;
  /** The same for up to 1,000. All are checked before any is added; `details.index` names the one at fault. */
  addBulk(productions: readonly Production[]): Promise<Command[]>;
  close(): Promise<void>;
};

export type ProducerConnection = {
  host?: string;
  port?: number;
  username?: string;
  password?: string;
  db?: number;
  tls?: boolean;
};

export type ProducerOptions = {
  /** A URL, plain options, or an ioredis client of your own, which stays yours to close. */
  connection: string | ProducerConnection | Redis;
  /** As `redis.prefix` of the processes. */
  prefix?: string;
  /** As `outbound.shards` of the processes: with another number workers refuse the jobs. */
  shards?: number;
  /** Shown as the API key of its commands. */
  name?: string;
  onError?: (error: Error) => void;
};

const MAX_BULK = 1_000;
const { 'redis.prefix': prefixSetting, 'outbound.shards': shardsSetting } = settings;
const uuidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Opens a producer; it connects, and connects again, by itself. */
export function createProducer(options: ProducerOptions): Producer {
  const { connection, onError = () => undefined } = options;
  const prefix = read('prefix', prefixSetting.read, options.prefix ?? prefixSetting.initial);
  const shards = read('shards', shardsSetting.read, options.shards ?? shardsSetting.initial);
  const apiKey = read('name', nameReader, options.name ?? 'producer');
  const keys = createKeys(prefix, shards);
  const redis = isClient(connection)
    ? connection
    : connectRedis({ url: urlOf(connection), purpose: 'commands', name: apiKey, onError });
  const outbound = createOutbound({ redis, keys, onError });
  const checks = createChecks();

  async function make(production: Production): Promise<Command> {
    const { protocol, id = uuidV7(), ...body } = readProduction(production);
    const { spec: _spec, ...draft } = await checkOf(protocol)(body);
    return { id: readId(id), ...draft, apiKey, waiter: null, replayOf: null };
  }

  function checkOf(protocol: string): Check {
    const check = checks.get(protocol);
    if (check) return check;
    const message = `must be one of ${[...checks.keys()].join(', ')}`;
    throw refusal('protocol', message);
  }

  return {
    async add(production) {
      const command = await make(production);
      await stored(outbound.enqueue({ command }), [command]);
      return command;
    },
    async addBulk(productions) {
      if (productions.length > MAX_BULK) {
        throw refusal('', `must hold at most ${MAX_BULK} commands: add them in several calls`);
      }
      const commands: Command[] = [];
      for (const [index, production] of productions.entries()) {
        commands.push(await make(production).catch((error: unknown) => at(index, error)));
      }
      const entries = commands.map((command) => ({ command }));
      if (entries.length > 0) await stored(outbound.enqueueMany(entries), commands);
      return commands;
    },
    async close() {
      await outbound.close();
      if (!isClient(connection)) await closeRedis(redis);
    },
  };
}

/** One check a protocol: the producer's word takes the place of the lookup. */
function createChecks(): Map<string, Check> {
  return new Map(
    protocols.map((protocol) => {
      const known = { find: async () => ({ protocol: protocol.name }) };
      const lookups = { devices: known, presence: known, lookupTimeoutMs: 1_000 };
      return [
        protocol.name,
        createCheck({ ...lookups, protocols: [protocol], now: () => Date.now() }),
      ];
    }),
  );
}

function readProduction(production: Production): Production {
  if (typeof production === 'object' && production !== null) return production;
  throw refusal('', 'must be an object');
}

function readId(id: unknown): string {
  if (typeof id === 'string' && uuidPattern.test(id)) return id;
  throw refusal('id', 'must be a UUID in lower case; leave it out for a new one');
}

/** An option, read as the setting of the processes is. */
function read<T>(option: string, reader: (text: string) => T, value: unknown): T {
  try {
    return reader(String(value));
  } catch (cause) {
    throw refusal(option, messageOf(cause));
  }
}

function isClient(connection: ProducerOptions['connection']): connection is Redis {
  return typeof connection === 'object' && 'status' in connection && 'duplicate' in connection;
}

function urlOf(connection: string | ProducerConnection): string {
  if (typeof connection === 'string')
    return read('connection', settings['redis.url'].read, connection);
  const known = ['host', 'port', 'username', 'password', 'db', 'tls'];
  const unknown = Object.keys(connection).find((option) => !known.includes(option));
  if (unknown !== undefined) {
    throw refusal(
      `connection.${unknown}`,
      `is none of ${known.join(', ')}: give an ioredis client of your own for anything else`,
    );
  }
  const { host = '127.0.0.1', port = 6379, username = '', password = '', db = 0, tls } = connection;
  const url = new URL(`${tls ? 'rediss' : 'redis'}://${host.includes(':') ? `[${host}]` : host}`);
  url.port = String(port);
  url.username = encodeURIComponent(username);
  url.password = encodeURIComponent(password);
  url.pathname = `/${db}`;
  return url.href;
}

/** Redis may have them although it did not say so: with their ids they can be added again without harm. */
async function stored(adding: Promise<void>, commands: readonly Command[]): Promise<void> {
  await adding.catch((error: unknown) => {
    if (!(error instanceof DownlinkError)) throw error;
    const ids = commands.map(({ id }) => id);
    throw new DownlinkError(error.code, `${error.message}: add again with the ids in details`, {
      cause: error,
      details: { ids },
    });
  });
}

function at(index: number, error: unknown): never {
  if (!(error instanceof DownlinkError)) throw error;
  throw new DownlinkError(error.code, `command ${index}: ${error.message}`, {
    cause: error,
    details: { ...error.details, index },
  });
}

function refusal(path: string, message: string): DownlinkError {
  return new DownlinkError('BAD_REQUEST', `${path || 'it'} ${message}`, {
    details: { errors: [{ path, message }] },
  });
}
