import { describe, expect, it } from 'vitest';
import type { Params } from '../../src/command.ts';
import { protocolNamed, protocols } from '../../src/protocols/index.ts';
import type { CommandSpec } from '../../src/protocols/protocol.ts';

const hole = { socket: 3, port: 1 };
const order = { port: 1, orderNo: 'A' };

/** Params that put every command of a port, a socket or a list into one and the same place. */
const places: Record<string, Params> = {
  bkv: hole,
  ap3000: { ...order, group: 'basic' },
};

const everySpec = protocols.flatMap(({ name: protocol, commands }) =>
  Object.entries(commands).map(([name, spec]) => ({ protocol, name, spec })),
);

function spec(protocol: string, name: string): CommandSpec {
  const found = protocolNamed(protocol)?.commands[name];
  if (found === undefined) throw new Error(`no command ${name}`);
  return found;
}

const named = everySpec.flatMap(({ protocol, name, spec: own }) =>
  [...own.supersedes, ...(own.excludes ?? [])].map((other) => ({ protocol, name, other })),
);
const stops = everySpec.filter(({ spec: own }) => own.preempts);
/** Every command that stands in the line of a port and is no stop. */
const toBeStopped = everySpec.filter(
  ({ protocol, spec: own }) =>
    !own.preempts && own.orderKey(places[protocol]!)?.startsWith('port:'),
);

describe('the tables', () => {
  it.each(named)(
    'let $protocol $name name $other, which shares its line',
    ({ protocol, name, other }) => {
      const line = spec(protocol, name).orderKey(places[protocol]!);
      expect(line).not.toBeNull();
      expect(spec(protocol, other).orderKey(places[protocol]!)).toBe(line);
    },
  );

  it.each(everySpec)(
    'offer a probe of $protocol $name exactly where it is the rule',
    ({ spec: { onAmbiguous, probe } }) => {
      expect(probe !== undefined).toBe(onAmbiguous === 'probe');
    },
  );

  it.each(everySpec.filter(({ spec: own }) => own.probe?.kind === 'ask'))(
    'probe $protocol $name by a command that may be repeated, is answered and waits in no line',
    ({ protocol, spec: { probe } }) => {
      const asked = probe?.kind === 'ask' ? probe : null;
      const other = spec(protocol, asked!.command);
      expect(other).toMatchObject({ repeatable: true, ack: 'reply' });
      expect(other.orderKey(asked!.params(places[protocol]!))).toBeNull();
    },
  );

  it('know these stops', () => {
    expect(stops.map(({ protocol, name }) => `${protocol} ${name}`)).toEqual([
      'bkv charge.stop',
      'ap3000 charge.stop',
      'ap3000 cabinet.stop',
    ]);
  });

  it.each(stops)(
    'let the stop $protocol $name be repeated and sent beside anything',
    ({ spec: own }) => {
      expect(own).toMatchObject({ repeatable: true, onAmbiguous: 'resend', priority: 9 });
      expect(own.excludes).toBeUndefined();
    },
  );

  it.each(toBeStopped)(
    'let every stop of its port replace $protocol $name',
    ({ protocol, name }) => {
      const ofProtocol = stops.filter((stop) => stop.protocol === protocol);
      for (const { spec: stop } of ofProtocol) expect(stop.supersedes).toContain(name);
    },
  );
});

describe('a start', () => {
  it.each([
    ['bkv', 'charge.start', ['charge.start', 'card.order']],
    ['bkv', 'card.order', ['charge.start', 'card.order']],
    ['ap3000', 'charge.start', ['charge.start']],
  ])('of %s by %s is refused beside %o', (protocol, name, others) => {
    expect(spec(protocol, name).excludes).toEqual(others);
    expect(spec(protocol, name).supersedes).toEqual([]);
  });

  it('of a port that the device chooses stands in a line of its own', () => {
    const start = spec('ap3000', 'charge.start');
    expect(start.orderKey({ port: 'auto' })).not.toBe(start.orderKey({ port: 0 }));
  });
});

describe('added time', () => {
  it('is never sent again unasked, since nothing tells whether it arrived', () => {
    expect(spec('ap3000', 'charge.modify')).toMatchObject({
      repeatable: false,
      onAmbiguous: 'stop',
    });
  });
});

/** Whether the newer one replaces an older, waiting one of the same line. */
function replaces(protocol: string, name: string, newer: Params, older: Params): boolean {
  const { orderKey, supersedes, covers } = spec(protocol, name);
  expect(supersedes).toContain(name);
  if (orderKey(newer) !== orderKey(older)) return false;
  const covered = new Set(covers?.(newer));
  return (covers?.(older) ?? []).every((one) => covered.has(one));
}

describe('a setting replaces a waiting one', () => {
  it.each([
    ['bkv', 'params.set', { socket: 1, maxMinutes: 9 }, { socket: 1, maxMinutes: 8 }, true],
    [
      'bkv',
      'params.set',
      { socket: 1, maxMinutes: 9, noLoadDelayS: 1 },
      { socket: 1, maxMinutes: 8 },
      true,
    ],
    [
      'bkv',
      'params.set',
      { socket: 1, maxMinutes: 9 },
      { socket: 1, maxMinutes: 8, noLoadDelayS: 1 },
      false,
    ],
    ['bkv', 'params.set', { socket: 1, maxMinutes: 9 }, { socket: 1, noLoadDelayS: 1 }, false],
    ['bkv', 'params.set', { socket: 1, maxMinutes: 9 }, { socket: 2, maxMinutes: 8 }, false],
    [
      'ap3000',
      'params.set',
      { group: 'basic', floatPercent: 9, unplugTimeS: 4 },
      { group: 'basic', unplugTimeS: 3 },
      true,
    ],
    [
      'ap3000',
      'params.set',
      { group: 'basic', floatPercent: 9 },
      { group: 'basic', unplugTimeS: 3 },
      false,
    ],
    [
      'ap3000',
      'params.set',
      { group: 'limits', overloadDeciW: 9 },
      { group: 'advanced', qrLight: 1 },
      false,
    ],
    ['bkv', 'voice.window', { socket: 1, port: 0 }, { socket: 1, port: 0 }, true],
    ['bkv', 'voice.window', { socket: 1, port: 0 }, { socket: 1, port: 1 }, false],
    ['bkv', 'voice.window', { socket: 254, port: 0 }, { socket: 1, port: 0 }, false],
  ])(
    'only where it sets all that the other does: %s %s %o after %o',
    (protocol, name, newer, older, does) => {
      expect(replaces(protocol, name, newer, older)).toBe(does);
    },
  );

  it('of the list of sockets only as a whole', () => {
    const changes = ['network.refresh', 'network.add', 'network.delete'];
    expect(spec('bkv', 'network.refresh')).toMatchObject({ supersedes: changes });
    expect(spec('bkv', 'network.refresh').covers).toBeUndefined();
    expect(spec('bkv', 'network.add').supersedes).toEqual([]);
    expect(spec('bkv', 'network.delete').supersedes).toEqual([]);
  });
});
