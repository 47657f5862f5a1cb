/** The first step of accept: is this a command that its device could be sent at all? */
import { Compile } from 'typebox/compile';
import type { Command, Params } from '../src/command.ts';
import { DownlinkError, type ErrorCode, messageOf } from '../src/errors.ts';
import { fromHex } from '../src/protocols/bytes.ts';
import type { CommandSpec, Protocol } from '../src/protocols/protocol.ts';
import { AcceptBody, instantOf, MAX_DELAY_MS } from './accept-body.ts';
import { bounded } from './bounded.ts';
import { type Fault, faultsOf } from './faults.ts';
import { standsInItsLine } from './line.ts';

export type DeviceLookup = {
  /** The device as the ledger knows it, cached or read; rejects when the ledger is away. */
  find(deviceId: string): Promise<{ protocol: string } | null>;
};

export type PresenceLookup = { find(deviceId: string): Promise<{ protocol: string } | null> };

export type CheckDeps = {
  devices: DeviceLookup;
  presence: PresenceLookup;
  protocols: readonly Protocol[];
  now(): number;
  lookupTimeoutMs: number;
};

/** A sound command but for its id and who asked. `backoffMs` and the rest are filled in. */
export type Draft = Omit<Command, 'id' | 'apiKey' | 'waiter' | 'replayOf'> & { spec: CommandSpec };

export type Check = (body: unknown) => Promise<Draft>;

const DEFAULT_BACKOFF_MS = 3_000;
const DRY_RUN_WIRE_ID = 1;
/** Answers of the dry run that the caller can mend; anything else is our fault in his eyes too. */
const mendable: ReadonlySet<ErrorCode> = new Set(['INVALID_PARAMS', 'INVALID_PAYLOAD']);

const bodyCheck = Compile(AcceptBody);

/** Every schema is compiled here, once, so that the first call is as quick as the next. */
export function createCheck(deps: CheckDeps): Check {
  const { protocols, now } = deps;
  const paramChecks = new Map(
    protocols
      .flatMap((protocol) => Object.values(protocol.commands))
      .map((spec) => [spec, Compile(spec.params)] as const),
  );

  return async function check(value) {
    const body = readBody(value);
    const { deviceId, protocol } = await readDevice(deps, body.deviceId);
    const { name, params, spec, at } = readCommand(protocol, body);
    if (!paramChecks.get(spec)?.Check(params)) throw wrongParams(name, spec, params, at);
    const objection = spec.check?.(params);
    if (objection) {
      throw new DownlinkError('INVALID_PARAMS', `${name}: ${objection}`, {
        details: { errors: [{ path: 'params', message: objection }] },
      });
    }
    dryRun(spec, name, params, deviceId);
    const orderKey = readOrderKey(protocol, name, params, body.orderKey);
    if (body.onAmbiguous === 'probe' && !spec.probe) throw unprobed(name);
    const acceptedAt = now();
    const notBefore = readNotBefore(body, acceptedAt);
    return {
      deviceId,
      protocol: protocol.name,
      command: name,
      params,
      priority: body.priority ?? spec.priority,
      acceptedAt,
      notBefore,
      deadline: notBefore + (body.ttlMs ?? spec.ttlMs),
      ackTimeoutMs: body.ackTimeoutMs ?? spec.ackTimeoutMs ?? protocol.limits.ackTimeoutMs,
      attempts: body.attempts ?? spec.attempts ?? protocol.limits.attempts,
      backoffMs: body.backoffMs ?? DEFAULT_BACKOFF_MS,
      orderKey,
      onAmbiguous: body.onAmbiguous ?? spec.onAmbiguous,
      labels: body.labels ?? {},
      spec,
    };
  };
}

function readBody(value: unknown): AcceptBody {
  const faults = bodyCheck.Check(value) ? [] : faultsOf(AcceptBody, value);
  if (faults.length > 0) throw badRequest(faults);
  const body = value as AcceptBody;
  const raw = body.cmd !== undefined || body.payload !== undefined;
  if (body.command === undefined && !raw) {
    faults.push({
      path: 'command',
      message: 'is missing: name a command of the table, or give the raw form `cmd` and `payload`',
    });
  }
  if (raw && (body.command !== undefined || body.params !== undefined)) {
    faults.push({
      path: body.cmd === undefined ? 'payload' : 'cmd',
      message: 'belongs to the raw form: leave out `command` and `params`, or leave this out',
    });
  }
  if (raw && body.cmd === undefined) {
    faults.push({ path: 'cmd', message: 'is missing: the raw form is `cmd` and `payload`' });
  }
  if (body.delayMs !== undefined && body.notBefore !== undefined) {
    faults.push({ path: 'notBefore', message: 'excludes delayMs: give one of the two' });
  }
  if (body.notBefore !== undefined && instantOf(body.notBefore) === null) {
    faults.push({
      path: 'notBefore',
      message: 'must be an ISO 8601 moment with its zone, such as 2030-01-31T08:00:00Z',
    });
  }
  if (faults.length > 0) throw badRequest(faults);
  return body;
}

/** The line it will stand in. One of the caller's own must not lead past the table's rules. */
function readOrderKey(
  { commands }: Protocol,
  name: string,
  params: Params,
  own: string | undefined,
): string | null {
  const spec = commands[name]!;
  const ofTable = spec.orderKey(params);
  if (own === undefined || own === ofTable) return ofTable;
  const isNamed = Object.values(commands).some(
    ({ supersedes, excludes = [] }) => supersedes.includes(name) || excludes.includes(name),
  );
  if (!standsInItsLine(spec) && !isNamed) return own;
  throw invalid(
    name,
    'orderKey',
    `must be left out: ${name} belongs to its line ${ofTable}, where commands stop, replace and exclude each other`,
  );
}

function unprobed(name: string): DownlinkError {
  const message = `must be resend or stop: nothing tells whether ${name} took effect`;
  return invalid(name, 'onAmbiguous', message);
}

function invalid(name: string, path: string, message: string): DownlinkError {
  return new DownlinkError('INVALID_PARAMS', `${name}: ${path} ${message}`, {
    details: { errors: [{ path, message }] },
  });
}

function readNotBefore(body: AcceptBody, nowMs: number): number {
  if (body.delayMs !== undefined) return nowMs + body.delayMs;
  if (body.notBefore === undefined) return nowMs;
  const asked = instantOf(body.notBefore) ?? nowMs;
  if (asked <= nowMs + MAX_DELAY_MS) return Math.max(asked, nowMs);
  const message = `must be within ${MAX_DELAY_MS / 86_400_000} days from now`;
  throw badRequest([{ path: 'notBefore', message }]);
}

/** The canonical id and its protocol; rejects unless the device is known or connected. */
async function readDevice(deps: CheckDeps, text: string) {
  const { deviceId, protocols } = readDeviceId(deps.protocols, text);
  const known = await lookUp(deps, deviceId);
  const protocol = protocols.find(({ name }) => name === known.protocol);
  if (protocol) return { deviceId, protocol };
  throw new DownlinkError(
    'INVALID_DEVICE_ID',
    `device ${deviceId} is known as ${known.protocol}, whose ids look different`,
  );
}

/** The canonical form of a device id and the protocols whose id it is; INVALID_DEVICE_ID if none. */
export function readDeviceId(protocols: readonly Protocol[], text: string) {
  const candidates = protocols.filter((protocol) => protocol.deviceId(text) !== null);
  const [first] = candidates;
  const deviceId = first?.deviceId(text) ?? null;
  if (!first || deviceId === null) {
    throw new DownlinkError(
      'INVALID_DEVICE_ID',
      'deviceId is no device id: give 14 hex digits for a BKV device, 8 for an AP3000 device',
    );
  }
  if (first.isFactoryDefault(deviceId)) {
    throw new DownlinkError(
      'INVALID_DEVICE_ID',
      `device ${deviceId} is a factory default that names no single device: give it an id of its own`,
    );
  }
  return { deviceId, protocols: candidates };
}

/**
 * Cache or ledger first, since a known device then costs no round trip; presence speaks for a device the
 * ledger has not seen yet, and for all of them while the ledger is away. Only two clear noes are a no.
 */
async function lookUp(deps: CheckDeps, deviceId: string): Promise<{ protocol: string }> {
  const late = () => new Error(`no answer within ${deps.lookupTimeoutMs} ms`);
  let away: { cause: unknown } | null = null;
  for (const source of [deps.devices, deps.presence]) {
    try {
      const known = await bounded(source.find(deviceId), deps.lookupTimeoutMs, late);
      if (known) return known;
    } catch (cause) {
      away ??= { cause };
    }
  }
  if (away) {
    throw new DownlinkError(
      'STORE_UNAVAILABLE',
      `device ${deviceId} could not be looked up, since a store is away: try again later`,
      away,
    );
  }
  throw new DownlinkError(
    'DEVICE_UNKNOWN',
    `device ${deviceId} is unknown: register it with PUT /v1/devices/${deviceId}, or let it connect once`,
  );
}

function readCommand(protocol: Protocol, body: AcceptBody) {
  const name = body.command ?? 'raw';
  if (!Object.hasOwn(protocol.commands, name)) {
    const names = Object.keys(protocol.commands).join(', ');
    throw new DownlinkError(
      'COMMAND_UNKNOWN',
      `command ${JSON.stringify(name)} is none of ${protocol.name}'s: use one of ${names}`,
    );
  }
  const spec = protocol.commands[name]!;
  if (body.command !== undefined) {
    return { name, spec, params: (body.params ?? {}) as Params, at: 'params' };
  }
  const params: Params = { cmd: body.cmd, payload: body.payload ?? '' };
  return { name, spec, params, at: '' };
}

function wrongParams(name: string, spec: CommandSpec, params: Params, at: string): DownlinkError {
  const errors = faultsOf(spec.params, params, at);
  const payload = params['payload'];
  if (name === 'raw' && typeof payload === 'string' && fromHex(payload) === null) {
    return notHex(at === '' ? 'payload' : `${at}.payload`);
  }
  return new DownlinkError(
    'INVALID_PARAMS',
    `${name}: ${errors.map(({ path, message }) => `${path} ${message}`).join('; ')}`,
    { details: { errors } },
  );
}

function notHex(path: string): DownlinkError {
  const message = 'must be whole bytes of hex, two digits each';
  return new DownlinkError('INVALID_PAYLOAD', `${path} ${message}`, {
    details: { errors: [{ path, message }] },
  });
}

/** Encodes once for nothing, so that what cannot be encoded is refused here and not in a worker. */
function dryRun(spec: CommandSpec, name: string, params: Params, deviceId: string): void {
  try {
    spec.encode(params, deviceId, DRY_RUN_WIRE_ID);
  } catch (cause) {
    const code =
      cause instanceof DownlinkError && mendable.has(cause.code)
        ? cause.code
        : name === 'raw'
          ? 'INVALID_PAYLOAD'
          : 'INVALID_PARAMS';
    const message = messageOf(cause);
    throw new DownlinkError(code, `${name} cannot be encoded: ${message}`, {
      cause,
      details: { errors: [{ path: 'params', message }] },
    });
  }
}

function badRequest(errors: Fault[]): DownlinkError {
  return new DownlinkError(
    'BAD_REQUEST',
    errors.map(({ path, message }) => `${path || 'the body'} ${message}`).join('; '),
    { details: { errors } },
  );
}
