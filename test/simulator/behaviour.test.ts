import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { protocols } from '../../src/protocols/index.ts';
import { createFleet, type Fleet, type FleetOptions } from '../../src/simulator/fleet.ts';
import { createFleetLog, type FrameEntry } from '../../src/simulator/fleet-log.ts';
import { createRandom } from '../../src/simulator/random.ts';
import { createWheel } from '../../src/simulator/wheel.ts';
import { type CodecServer, startCodecServer } from './server.ts';

const bkvId = '82200520004869';
const apId = '04ab373b';
const bound = { timeout: 5000, interval: 5 };

let server: CodecServer;
let fleet: Fleet | undefined;

beforeEach(async () => {
  server = await startCodecServer();
});

afterEach(async () => {
  await fleet?.stop();
  fleet = undefined;
  await server.close();
});

async function started(options: Partial<FleetOptions> = {}): Promise<Fleet> {
  fleet = createFleet({
    host: '127.0.0.1',
    port: server.port,
    devices: [
      { deviceId: bkvId, protocol: 'bkv' },
      { deviceId: apId, protocol: 'ap3000' },
    ],
    startTimeoutMs: 5000,
    ...options,
  });
  await fleet.start();
  return fleet;
}

const query = { socket: 1 };
const orderNo = `41${'00'.repeat(15)}`;
const start = { socket: 1, port: 0, mode: 'time', minutes: 5 };
const last = () => fleet!.log.frames().at(-1)!;

/** Good params of every command, in an order in which all of them can be obeyed. */
const samples: Record<string, Record<string, Record<string, unknown>>> = {
  bkv: {
    'charge.start': start,
    'charge.stop': { socket: 1, port: 0 },
    'card.order': { socket: 1, port: 1, businessNo: 26, mode: 'time', time: 60 },
    'card.balance': { socket: 1, port: 0, card: '000000298352', balanceCents: 5001 },
    'network.refresh': { channel: 4, nodes: [{ socket: 1, mac: '450030700247' }] },
    'network.add': { socket: 2, mac: '450030700247' },
    'network.delete': { socket: 2 },
    'params.set': { socket: 1, maxMinutes: 60 },
    'params.read': query,
    'port.query': query,
    'voice.window': {
      socket: 1,
      port: 0,
      buzzer: true,
      voice: true,
      windows: [{ from: '08:00', to: '20:00' }],
    },
    'ota.start': { host: '101.145.2.161', port: 21, fileName: 'GV_r12.OTA' },
    raw: { cmd: '0015', payload: '0001' + '1d' + '01' },
  },
  ap3000: {
    'charge.start': { port: 0, mode: 'time', seconds: 60, orderNo: 'A' },
    'charge.modify': { port: 0, mode: 'time', seconds: 90 },
    'charge.stop': { port: 0, orderNo: 'A' },
    'cabinet.stop': { port: 0, orderNo: 'A' },
    'params.set': { group: 'basic', floatPercent: 30 },
    'params.read': { group: 'card' },
    'port.query': {},
    'device.locate': { seconds: 5 },
    'memory.read': { address: 16, length: 4 },
    'memory.write': { address: 16, data: '0102' },
    'card.keys': { userKey: 'ffffffffffff', newKey: 'eeeeeeeeeeee' },
    'card.mode': { mode: 1 },
    'card.answer': {
      msgId: 5,
      cardId: '7a8d05dd',
      accountState: 0,
      rateMode: 0,
      balanceOrExpiry: 100,
      port: 0,
    },
    'workmode.set': { mode: 1 },
    'qr.set': { screen: 0, text: 'https://example.org/' },
    'qr.show': { text: 'https://example.org/' },
    'voice.play': { ids: [1, 2] },
    'device.mute': { mute: true },
    'device.function': { function: 1, port: 0 },
    'device.restart': {},
    'device.clear': {},
    'host.restart': {},
    'modem.restart': {},
    'host.clearUpgrade': {},
    'host.fsk': { frequencyMhz: 433, deviceIds: [apId] },
    'server.set': { host: 'example.org', port: 9999, modem: '4g' },
    'ota.start': { target: 'host' },
    'ota.auto': {},
    raw: { cmd: '96', payload: '05' },
  },
};

const everyCommand = protocols.flatMap(({ name, commands }) =>
  Object.keys(samples[name]!).map((command) => ({
    protocol: name,
    command,
    ack: commands[command]?.ack,
  })),
);

describe('every command of the tables', () => {
  it('is tried here', () => {
    for (const { name, commands } of protocols) {
      expect(Object.keys(samples[name]!).sort()).toEqual(Object.keys(commands).sort());
    }
  });

  it('is answered as its table says', { timeout: 30_000 }, async () => {
    await started({ knobs: { reconnectMs: 5, settlementMs: 60_000 } });
    let wireId = 0;
    for (const { protocol, command, ack } of everyCommand) {
      wireId += 1;
      const deviceId = protocol === 'bkv' ? bkvId : apId;
      await vi.waitFor(() => expect(fleet!.device(deviceId).loggedIn).toBe(true), bound);
      const params = samples[protocol]![command];
      const before = fleet!.log.frames().length;
      const got = await server.send(deviceId, command, params!, wireId, ack === 'none' ? 1 : 5000);
      await vi.waitFor(() => expect(fleet!.log.frames()).toHaveLength(before + 1), bound);
      if (ack === 'none') expect(last()).toMatchObject({ intended: 'none', says: 'nothing' });
      else expect(got, `${protocol} ${command}`).toMatchObject({ accepted: true });
    }
    expect(fleet!.log.frames().filter(({ name }) => name === 'unknown')).toEqual([]);
  });

  it('is refused when it is told to, where its protocol can say no', {
    timeout: 30_000,
  }, async () => {
    await started({ knobs: { refusal: 1 } });
    let wireId = 0;
    // these have no way to say no
    const agreeable = new Set(['port.query', 'bkv raw', 'ap3000 params.read']);
    for (const { protocol, command, ack } of everyCommand) {
      if (ack === 'none') continue;
      wireId += 1;
      const deviceId = protocol === 'bkv' ? bkvId : apId;
      const got = await server.send(deviceId, command, samples[protocol]![command]!, wireId);
      const accepted = agreeable.has(command) || agreeable.has(`${protocol} ${command}`);
      expect(got, `${protocol} ${command}`).toMatchObject({ accepted });
      expect(last().intended).toBe(accepted ? 'ack' : 'nack');
    }
    expect(fleet!.device(bkvId).ports.some(({ charging }) => charging)).toBe(false);
  });
});

describe('a repeated frame', () => {
  it('is answered again with the same answer, and obeyed once', async () => {
    await started();
    const first = await server.send(bkvId, 'charge.start', start, 9);
    const again = await server.send(bkvId, 'charge.start', start, 9);
    expect(again).toEqual(first);
    expect(fleet!.log.frames()).toMatchObject([
      { wireId: 9, duplicate: false, intended: 'ack', executed: true },
      { wireId: 9, duplicate: true, intended: 'ack', executed: true },
    ]);
    expect(fleet!.stats().duplicates).toBe(1);
  });

  it('is obeyed when the first one never got through', async () => {
    await started();
    fleet!.device(bkvId).silence();
    expect(await server.send(bkvId, 'charge.start', start, 9, 50)).toBeNull();
    expect(last()).toMatchObject({ intended: 'none', executed: false, answeredAt: null });
    fleet!.device(bkvId).silence(false);
    expect(await server.send(bkvId, 'charge.start', start, 9)).toMatchObject({ accepted: true });
    expect(last()).toMatchObject({ intended: 'ack', executed: true, duplicate: true });
  });

  it('keeps its refusal', async () => {
    await started();
    fleet!.device(apId).refuseNext();
    const order = { port: 0, mode: 'time', seconds: 60, orderNo: 'A' };
    expect(await server.send(apId, 'charge.start', order, 3)).toMatchObject({ code: '1' });
    expect(await server.send(apId, 'charge.start', order, 3)).toMatchObject({ code: '1' });
    expect(await server.send(apId, 'charge.start', order, 4)).toMatchObject({ accepted: true });
  });
});

describe('a lost answer', () => {
  it('hides a command that took effect, as often as it is told', async () => {
    await started();
    const device = fleet!.device(bkvId);
    device.loseAnswers();
    expect(await server.send(bkvId, 'charge.start', start, 9, 50)).toBeNull();
    expect(last()).toMatchObject({ intended: 'none', says: 'ack', executed: true, answer: null });
    expect(device.ports).toMatchObject([{ socket: 1, port: 0, charging: true }]);
    const seen = await server.send(bkvId, 'port.query', query, 10);
    const { businessNo } = device.ports[0]!;
    expect(seen?.result).toMatchObject({
      holes: [
        { port: 0, charging: true, businessNo },
        { port: 1, charging: false, status: 0x80, businessNo: 0 },
      ],
    });
    await server.send(bkvId, 'charge.stop', { socket: 1, port: 0 }, 11);
    const later = await server.send(bkvId, 'port.query', query, 12);
    expect(later?.result).toMatchObject({ holes: [{ charging: false, businessNo: 0 }, {}] });
  });
});

describe('knobs', () => {
  const order = { port: 1, mode: 'time', seconds: 60, orderNo: 'A' };

  it('make an AP3000 answer the repetition of a start with "same state"', async () => {
    await started({ knobs: { repeatedStart: 'same-state' } });
    fleet!.device(apId).loseAnswers();
    expect(await server.send(apId, 'charge.start', order, 3, 50)).toBeNull();
    expect(await server.send(apId, 'charge.start', order, 3)).toMatchObject({ code: '2' });
    expect(last()).toMatchObject({ intended: 'nack', executed: true, duplicate: true });
    expect(fleet!.device(apId).ports).toMatchObject([{ port: 1, charging: true, orderNo }]);
  });

  it('leave an answer as it is where the repeated frame is no start, or started nothing', async () => {
    await started({ knobs: { repeatedStart: 'same-state' } });
    fleet!.device(apId).refuseNext();
    expect(await server.send(apId, 'charge.start', order, 3)).toMatchObject({ code: '1' });
    expect(await server.send(apId, 'charge.start', order, 3)).toMatchObject({ code: '1' });
    await server.send(apId, 'charge.start', order, 4);
    const stop = { port: 1, orderNo: 'A' };
    expect(await server.send(apId, 'charge.stop', stop, 5)).toMatchObject({ accepted: true });
    expect(await server.send(apId, 'charge.stop', stop, 5)).toMatchObject({ accepted: true });
  });

  it('set how often a port reports its order while it charges', async () => {
    await started({ knobs: { reportMs: 40 } });
    await server.send(apId, 'charge.start', order, 3);
    const reports = () => server.heard.filter(({ name }) => name === 'power');
    await vi.waitFor(() => expect(reports().length).toBeGreaterThan(2), bound);
    expect(reports().at(-1)!.fields).toMatchObject({ port: 1, portStatus: 1, orderNo });
  });

  it('make devices report their state after a login', async () => {
    await started({ knobs: { stateAtLogin: true, reconnectMs: 5 } });
    const reports = (name: string) => server.heard.filter((message) => message.name === name);
    await vi.waitFor(() => expect(reports('status.report')).toHaveLength(1), bound);
    const cluster = JSON.stringify(reports('status.report')[0]!.fields);
    expect(cluster).toContain('"name":"socketNo","value":1}');
    expect(cluster).toContain('"name":"businessNo","value":"0000"}');
    expect(reports('power')).toEqual([]);
    await server.send(apId, 'charge.start', order, 3);
    fleet!.device(apId).dropConnection();
    await vi.waitFor(() => {
      expect(reports('power').at(0)?.fields).toMatchObject({ port: 1, orderNo });
    }, bound);
  });

  it('delay answers within their range', async () => {
    await started({ knobs: { ackDelayMs: [40, 60] } });
    await server.send(bkvId, 'port.query', query, 1);
    const { at, answeredAt } = last();
    expect(answeredAt! - at).toBeGreaterThanOrEqual(39);
  });

  it('lose answers: some commands take effect all the same, some do not', async () => {
    await started({ knobs: { loss: 1 } });
    for (let wireId = 1; wireId <= 20; wireId += 1) {
      server.write(bkvId, frameOf(bkvId, 'network.delete', { socket: 1 }, wireId));
    }
    await vi.waitFor(() => expect(fleet!.log.frames()).toHaveLength(20), bound);
    expect(fleet!.log.frames().every(({ intended }) => intended === 'none')).toBe(true);
    const executed = fleet!.log.frames().filter((entry) => entry.executed).length;
    expect(executed).toBeGreaterThan(0);
    expect(executed).toBeLessThan(20);
    expect(server.heard.filter(({ name }) => name === 'network.delete.reply')).toEqual([]);
  });

  it('make answers late', async () => {
    await started({ knobs: { late: 1, lateMs: 120 } });
    expect(await server.send(bkvId, 'port.query', query, 1, 60)).toBeNull();
    await vi.waitFor(() => expect(last().answeredAt).not.toBeNull(), bound);
    expect(last()).toMatchObject({ intended: 'late', says: 'ack' });
    expect(last().answeredAt! - last().at).toBeGreaterThanOrEqual(119);
  });

  it('drop the connection before or after the answer, and every answer in the log arrived', async () => {
    await started({ knobs: { disconnect: 1, reconnectMs: 5 }, seed: 3 });
    const fates: string[] = [];
    for (let wireId = 1; wireId <= 12; wireId += 1) {
      await vi.waitFor(() => {
        expect(fleet!.device(bkvId).loggedIn).toBe(true);
        expect(server.sessions()).toContain(bkvId);
      }, bound);
      const ack = await server.send(bkvId, 'port.query', query, wireId, 150);
      expect(ack !== null).toBe(last().answeredAt !== null);
      fates.push(ack ? 'after' : 'before');
      await vi.waitFor(() => expect(fleet!.stats().disconnects).toBe(wireId), bound);
    }
    expect(new Set(fates)).toEqual(new Set(['before', 'after']));
  });

  it('put noise around frames, from which a decoder recovers', async () => {
    await started({ knobs: { garbage: 1 } });
    for (let wireId = 1; wireId <= 10; wireId += 1) {
      expect(await server.send(bkvId, 'port.query', query, wireId)).toMatchObject({
        accepted: true,
      });
      expect(await server.send(apId, 'port.query', {}, wireId)).toMatchObject({ accepted: true });
    }
    await vi.waitFor(() => expect(server.garbageBytes).toBeGreaterThan(10), bound);
  });

  it('can differ from device to device and change while it runs', async () => {
    await started({
      devices: [
        { deviceId: bkvId, protocol: 'bkv', knobs: { refusal: 1 } },
        { deviceId: apId, protocol: 'ap3000' },
      ],
    });
    const added = { socket: 2, mac: '450030700247' };
    expect(await server.send(bkvId, 'network.add', added, 1)).toMatchObject({ accepted: false });
    expect(await server.send(apId, 'device.mute', { mute: true }, 1)).toMatchObject({
      accepted: true,
    });
    fleet!.device(bkvId).setKnobs({ refusal: 0 });
    expect(await server.send(bkvId, 'network.add', added, 2)).toMatchObject({ accepted: true });
  });

  it('decide the same for the same seed', () => {
    const draws = (seed: number, name: string) => {
      const random = createRandom(seed, name);
      return Array.from({ length: 8 }, () => random.whole(0, 1000));
    };
    expect(draws(5, bkvId)).toEqual(draws(5, bkvId));
    expect(draws(5, bkvId)).not.toEqual(draws(6, bkvId));
    expect(draws(5, bkvId)).not.toEqual(draws(5, apId));
  });
});

describe('the log', () => {
  it('holds every frame with its bytes, in order, in memory and in the file', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'fleet-log-'));
    const file = join(folder, 'log.jsonl');
    try {
      await started({ log: createFleetLog({ file }) });
      const sent: string[] = [];
      for (let wireId = 1; wireId <= 5; wireId += 1) {
        sent.push(frameOf(bkvId, 'port.query', query, wireId).toString('hex'));
        await server.send(bkvId, 'port.query', query, wireId);
      }
      fleet!.device(bkvId).setKnobs({ ackDelayMs: 60_000 });
      server.write(bkvId, frameOf(bkvId, 'port.query', query, 6));
      await vi.waitFor(() => expect(fleet!.log.frames()).toHaveLength(6), bound);
      expect(
        fleet!.log
          .frames()
          .slice(0, 5)
          .map(({ frame }) => frame),
      ).toEqual(sent);
      expect(fleet!.log.frames().map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6]);
      await fleet!.stop();
      const lines = (await readFile(file, 'utf8')).trim().split('\n');
      const entries = lines.map((line) => JSON.parse(line)) as FrameEntry[];
      entries.sort((a, b) => a.seq - b.seq);
      expect(entries).toEqual(fleet!.log.entries());
      expect(entries[5]).toMatchObject({ wireId: 6, answeredAt: null, answer: null });
      const answers = server.heard.filter(({ name }) => name === 'port.query.reply');
      expect(entries.slice(0, 5).map(({ answer }) => answer)).toEqual(
        answers.map(({ frame }) => Buffer.from(frame).toString('hex')),
      );
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('drops the oldest entries beyond its capacity, and counts them', () => {
    const log = createFleetLog({ capacity: 3 });
    for (let at = 1; at <= 5; at += 1) {
      log.add({ kind: 'close', seq: 0, at, connection: 1, deviceIds: [], by: 'server' });
    }
    expect(log.entries().map(({ seq }) => seq)).toEqual([3, 4, 5]);
    expect(log.entries(5).map(({ seq }) => seq)).toEqual([5]);
    expect(log).toMatchObject({ dropped: 2, size: 5 });
  });
});

describe('the wheel', () => {
  it('runs what is due, beyond one turn too, and nothing early', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] });
    try {
      const wheel = createWheel({ tickMs: 10, slots: 8 });
      const ran: string[] = [];
      wheel.start();
      wheel.after(5, () => ran.push('next tick'));
      wheel.after(80, () => ran.push('a full turn'));
      wheel.after(250, () => ran.push('three turns'));
      vi.advanceTimersByTime(10);
      expect(ran).toEqual(['next tick']);
      vi.advanceTimersByTime(60);
      expect(ran).toHaveLength(1);
      vi.advanceTimersByTime(10);
      expect(ran).toEqual(['next tick', 'a full turn']);
      vi.advanceTimersByTime(160);
      expect(ran).toHaveLength(2);
      vi.advanceTimersByTime(20);
      expect(ran).toEqual(['next tick', 'a full turn', 'three turns']);
      wheel.stop();
    } finally {
      vi.useRealTimers();
    }
  });
});

function frameOf(
  deviceId: string,
  command: string,
  params: Record<string, unknown>,
  wireId: number,
): Buffer {
  const protocol = protocols.find((one) => one.deviceId(deviceId) !== null)!;
  return Buffer.from(protocol.commands[command]!.encode(params, deviceId, wireId));
}
