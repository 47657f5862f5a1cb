import { describe, expect, it } from 'vitest';
import { holeFlags } from '../../src/protocols/bkv/hole-status.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import { messageSpecs } from '../../src/protocols/bkv/messages.ts';
import { toHex } from '../../src/protocols/bytes.ts';
import type { Message } from '../../src/protocols/protocol.ts';
import { decodeOne, fixture, fixtures } from './bkv-frames.ts';

const names: Record<string, string> = {
  'heartbeat.up': 'heartbeat',
  'heartbeat.reply': 'heartbeat.reply',
  'status_report_1017.up': 'status.report',
  'status_report_1017.ack': 'status.report.ack',
  'query_status_1D.down': 'port.query',
  'query_status_1D.reply': 'port.query.reply',
  'network_refresh_08.down': 'network.refresh',
  'network_refresh_08.reply': 'network.refresh.reply',
  'network_add_09.down': 'network.add',
  'network_add_09.reply': 'network.add.reply',
  'control_07.reply': 'control.reply',
  'control_07_start.down': 'control',
  'control_07_stop.down': 'control',
  'charge_end_02.up': 'charge.end',
  'power_tier_start_17.down': 'tiers.start',
  'power_tier_end_18.up': 'tiers.end',
  'service_fee_start_1007.down': 'fee.start',
  'charge_end_1004.up': 'fee.end',
  'charge_end_1004.ack': 'fee.end.ack',
  'card_swipe_0B.up': 'card.swipe',
  'card_order_0B.down': 'card.order',
  'card_order_0F.reply': 'card.order.reply',
  'card_end_0C.up': 'card.end',
  'card_end_0C.ack': 'charge.end.ack',
  'card_balance_1A.up': 'card.balance.query',
  'card_balance_1A.reply': 'card.balance',
  'voice_1B.down': 'voice.window',
  'voice_1B.reply': 'voice.window.reply',
  'param_set_1011.down': 'params.set',
  'param_set_1011.reply': 'params.set.reply',
  'param_query_1012.down': 'params.read',
  'param_query_1012.reply': 'params.read.reply',
  'exception_1010.up': 'exception.report',
  'exception_1010.ack': 'exception.report.ack',
  'ota_0007.down': 'ota',
};

/**
 * A frame around the data, with length and checksum computed here and not by the code under test.
 */
function frameOf(direction: 'up' | 'down', cmd: string, data: string, msgId = '00000000'): string {
  const length = (17 + data.length / 2).toString(16).padStart(4, '0');
  const summed = `${length}${cmd}${msgId}${direction === 'up' ? '01' : '00'}86004459453005${data}`;
  const sum = Buffer.from(summed, 'hex').reduce((total, byte) => total + byte, 0) & 0xff;
  const magic = direction === 'up' ? 'fcfe' : 'fcff';
  return `${magic}${summed}${sum.toString(16).padStart(2, '0')}fcee`;
}

describe('the vendor frames', () => {
  it.each(fixtures)('decodes $name to its fields', (frame) => {
    const message = decodeOne(frame.hex, frame.direction);
    expect(message.fields).toEqual(frame.fields);
    expect(message).toMatchObject({
      protocol: 'bkv',
      direction: frame.direction,
      name: names[frame.name.split(' ')[0]!],
      deviceId: frame.gatewayId,
      cmd: Number(frame.cmd),
      subCmd: frame.subCmd === null ? null : Number(frame.subCmd),
      msgId: Number(frame.msgId),
      checksum: Number.parseInt(frame.hex.slice(-6, -4), 16),
    });
    expect(message.fault).toBeUndefined();
    expect(toHex(message.frame)).toBe(frame.hex);
  });

  it.each(fixtures)('encodes $name back to the same bytes', (frame) => {
    expect(toHex(bkv.encode(decodeOne(frame.hex, frame.direction)))).toBe(frame.hex);
  });

  it.each([
    [
      'a control with a wrong checksum',
      'down',
      'fcff001c0015001c9a5100860044594530050008070200010100f00000c8fcee',
    ],
    [
      'a fee start with a wrong length',
      'down',
      'fcff00631000215445a5008221022500052004010110070a010200000000215445a50901038221022500052003014a01030108000301130103011204030147010301f40204018800640301800103018901080183173b003200325ffcee',
    ],
    [
      'an altered control reply',
      'up',
      'fcfe00190015001c9c2b0186004459453005000507010200016826fcee',
    ],
  ] as const)('refuses %s', (_what, direction, hex) => {
    const decoder = bkv.decoder(direction);
    let decoded = decoder.push(Buffer.from(hex, 'hex'));
    while (decoder.pending > 0) decoded = decoded.concat(decoder.giveUp());
    expect(decoded.length).toBeGreaterThan(0);
    expect(decoded.every(({ kind }) => kind === 'garbage')).toBe(true);
  });
});

describe('the message table', () => {
  it('names each message once per direction and each number once', () => {
    const named = messageSpecs.map(({ direction, name }) => `${direction} ${name}`);
    const numbered = messageSpecs.flatMap(({ direction, cmd, subCmd, also = [] }) =>
      [{ cmd, subCmd }, ...also].map((numbers) => `${direction} ${numbers.cmd} ${numbers.subCmd}`),
    );
    expect(new Set(named).size).toBe(named.length);
    expect(new Set(numbered).size).toBe(numbered.length);
  });

  it('accepts 1D where the device answers a query under the number of the vendor text', () => {
    const data = '00131d01513629150080000008ef0000000100000000';
    const short = decodeOne(frameOf('up', '0015', data, '00000007'), 'up');
    expect(short).toMatchObject({ name: 'port.query.reply', subCmd: 0x1d });
    expect(short.fields['holes']).toHaveLength(1);
    expect(toHex(bkv.encode(short))).toBe(toHex(short.frame));
  });

  it('keeps surplus bytes beside the fields and names the fault', () => {
    const message = decodeOne(frameOf('up', '0015', '0007070102000068abcd'), 'up');
    expect(message.name).toBe('control.reply');
    expect(message.fields).toMatchObject({ result: 1, businessNo: '0068', surplusHex: 'abcd' });
    expect(message.fault).toMatch(/2 bytes of the payload are surplus/);
    expect(toHex(bkv.encode(message))).toBe(toHex(message.frame));
  });

  it('keeps what could be read of a short payload and names the fault', () => {
    const message = decodeOne(frameOf('up', '0015', '0003070102000068'.slice(0, 12)), 'up');
    expect(message.fields).toEqual({ result: 1, socketNo: 2, holeNo: 0 });
    expect(message.fault).toMatch(/too short/);
  });

  it('names the fault of a length inside the payload that does not fit', () => {
    const message = decodeOne(frameOf('up', '0015', '0006070102000068'), 'up');
    expect(message.fields).toMatchObject({ result: 1, businessNo: '0068' });
    expect(message.fault).toBe('6 parameter bytes are announced and 5 follow');
  });

  it('names the fault of tiers that are fewer than their count', () => {
    const message = decodeOne(frameOf('down', '0015', '000c170100010064020fa00032003c'), 'down');
    expect(message.fields['tiers']).toHaveLength(1);
    expect(message.fault).toMatch(/too short/);
  });

  it.each([
    ['an outer command', '0099', 'a1b2', null],
    ['a sub-command', '0015', '00017eff', 0x7e],
    ['a key-value command', '1000', '040101ffff', 0xffff],
    ['nothing at all', '0123', '', null],
  ])('calls %s that no table has unknown and keeps its payload', (_what, cmd, data, subCmd) => {
    const message = decodeOne(frameOf('up', cmd, data), 'up');
    expect(message).toMatchObject({ name: 'unknown', subCmd, fields: { payloadHex: data } });
    expect(message.fault).toBeUndefined();
    expect(toHex(bkv.encode(message))).toBe(toHex(message.frame));
  });

  it.each([
    ['a sub-command', '0015', '0001'],
    ['a key-value command', '1000', '03014a01'],
    ['whole elements', '1000', 'ff01'],
  ])('names the fault of a payload without %s', (_what, cmd, data) => {
    const message = decodeOne(frameOf('up', cmd, data), 'up');
    expect(message.name).toBe('unknown');
    expect(message.fault).toMatch(/missing/);
  });

  it('names the fault of a key-value report that lacks what it is about', () => {
    const message = decodeOne(
      frameOf('up', '1000', '04010110170a0102000000000000000009010386004459453005'),
      'up',
    );
    expect(message).toMatchObject({
      name: 'status.report',
      fault: 'socketStatusCluster is missing',
    });
  });

  it('shows text that is not printable as hex, so that it can be stored, and writes it back', () => {
    const iccid = '38393800463034363331313230373033313934ff';
    const data = `${iccid}${'00'.repeat(8)}1f`;
    const message = decodeOne(frameOf('up', '0000', data), 'up');
    expect(message.fields).toEqual({ iccid: `hex:${iccid}`, version: '', csq: 31 });
    expect(toHex(bkv.encode(message))).toBe(toHex(message.frame));
  });

  it('adds the key-value header where the fields leave it out', () => {
    const expected = fixture('param_set_1011.reply');
    const frame = bkv.encode({
      direction: 'up',
      name: 'params.set.reply',
      deviceId: expected.gatewayId,
      msgId: Number(expected.msgId),
      fields: {
        kv: [
          { key: '0x4A', value: 2 },
          { key: '0x0f', value: 1 },
        ],
      },
    });
    expect(toHex(frame)).toBe(expected.hex);
  });

  it.each([
    ['a field is missing', 'control.reply', { result: 1, socketNo: 2, holeNo: 0 }, /businessNo/],
    ['a number is too large', 'network.add.reply', { result: 256 }, /result must be .* 0 to 255/],
    ['an element has no hex', 'params.set.reply', { kv: [{ key: '0x4A', value: 'z' }] }, /hex/],
    ['the name is not in the table', 'nonsense', {}, /no message nonsense/],
  ])('refuses to encode when %s', (_what, name, fields, complaint) => {
    const message = {
      direction: 'up',
      name,
      deviceId: '86004459453005',
      msgId: 1,
      fields,
    } as const;
    expect(() => bkv.encode(message)).toThrowError(complaint);
    expect(() => bkv.encode(message)).toThrowError(
      expect.objectContaining({ code: 'INVALID_PAYLOAD' }),
    );
  });

  it('refuses to encode for an id that is none', () => {
    expect(() =>
      bkv.encode({
        direction: 'up',
        name: 'network.add.reply',
        deviceId: '12',
        msgId: 1,
        fields: { result: 1 },
      }),
    ).toThrowError(expect.objectContaining({ code: 'INVALID_DEVICE_ID' }));
  });
});

describe('identity', () => {
  it('takes 14 hex digits of any case for an id and shows them in lower case', () => {
    expect(bkv.deviceId('82AB0520004869')).toBe('82ab0520004869');
    for (const text of [
      '',
      '8220052000486',
      '822005200048690',
      '8220052000486g',
      '82200520004869\n',
    ]) {
      expect(bkv.deviceId(text)).toBeNull();
    }
  });

  it('knows ids that an erased memory gives', () => {
    expect(bkv.isFactoryDefault('00000000000000')).toBe(true);
    expect(bkv.isFactoryDefault('ffffffffffffff')).toBe(true);
    expect(bkv.isFactoryDefault('82200520004869')).toBe(false);
  });

  it.each([
    ['', 'more'],
    ['fc', 'more'],
    ['fcfe', 'match'],
    ['fcfe002e', 'match'],
    ['fcff', 'no'],
    ['444e59', 'no'],
    ['00', 'no'],
  ])('judges first bytes "%s" as %s', (head, verdict) => {
    expect(bkv.sniff(Buffer.from(head, 'hex'))).toBe(verdict);
  });
});

describe('what the server owes a device', () => {
  const nowMs = Date.UTC(2020, 6, 30, 8, 45, 45);

  function answerTo(name: string) {
    return bkv.answer(decodeOne(fixture(name).hex, 'up'), nowMs);
  }

  it('is the time of UTC+8 at once after a heartbeat', () => {
    const answer = answerTo('heartbeat.up');
    expect(answer?.after).toBe('receipt');
    expect(toHex(answer!.frame)).toBe(fixture('heartbeat.reply').hex);
  });

  it('is the vendor ack after a report is stored', () => {
    for (const kind of ['status_report_1017', 'charge_end_1004', 'exception_1010', 'card_end_0C']) {
      const answer = answerTo(`${kind}.up`);
      expect(answer?.after).toBe('storage');
      expect(toHex(answer!.frame)).toBe(fixture(`${kind}.ack`).hex);
    }
  });

  it('is the ack of a card end for an end by time or tiers as well', () => {
    for (const [name, socketNo] of [
      ['charge_end_02.up', 2],
      ['power_tier_end_18.up', 1],
    ] as const) {
      const answer = answerTo(name);
      expect(answer?.after).toBe('storage');
      const ack = decodeOne(answer!.frame, 'down');
      expect(ack).toMatchObject({
        cmd: 0x15,
        subCmd: 0x0c,
        msgId: 0,
        fields: { socketNo, result: 1 },
      });
    }
  });

  it('is nothing for replies, downlinks and what a command answers', () => {
    for (const name of [
      'control_07.reply',
      'card_swipe_0B.up',
      'card_balance_1A.up',
      'voice_1B.reply',
    ]) {
      expect(answerTo(name)).toBeNull();
    }
    const down = decodeOne(fixture('status_report_1017.ack').hex, 'down');
    expect(bkv.answer(down, nowMs)).toBeNull();
    const unknown = decodeOne(frameOf('up', '0099', ''), 'up');
    expect(bkv.answer(unknown, nowMs)).toBeNull();
    expect(bkv.answer({ ...unknown, name: 'toString' }, nowMs)).toBeNull();
  });

  it('is nothing for an end whose socket could not be read', () => {
    const message = decodeOne(frameOf('up', '0015', '000002'), 'up');
    expect(message.name).toBe('charge.end');
    expect(bkv.answer(message, nowMs)).toBeNull();
  });

  it('is nothing for the undocumented node event, which still counts as state', () => {
    const data = '04010110130a010200000000000000000901038600445945300503014a010301087f';
    const message = decodeOne(frameOf('up', '1000', data), 'up');
    expect(message.name).toBe('node.event');
    expect(bkv.answer(message, nowMs)).toBeNull();
    expect(bkv.weight(message)).toBe('state');
  });
});

it.each([
  ['heartbeat.up', 'heartbeat'],
  ['status_report_1017.up', 'state'],
  ['exception_1010.up', 'state'],
  ['control_07.reply', 'money'],
  ['charge_end_02.up', 'money'],
  ['power_tier_end_18.up', 'money'],
  ['charge_end_1004.up', 'money'],
  ['card_end_0C.up', 'money'],
  ['card_swipe_0B.up', 'money'],
  ['card_balance_1A.up', 'money'],
])('weighs %s as %s', (name, weight) => {
  const message: Message = decodeOne(fixture(name).hex, 'up');
  expect(bkv.weight(message)).toBe(weight);
});

it.each([
  [0x80, ['online']],
  [0x90, ['online', 'charging']],
  [0x98, ['online', 'charging', 'noLoad']],
  [0xb0, ['online', 'quotaReached', 'charging']],
  [0x07, ['temperatureAbnormal', 'currentAbnormal', 'powerAbnormal']],
])('reads hole status %i as %s', (status, flags) => {
  expect(holeFlags(status)).toEqual(flags);
});
