import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  accountStates,
  cardTypes,
  chargeResults,
  meaningOf,
  portStatuses,
  startSources,
  stopReasons,
} from '../../src/protocols/ap3000/codes.ts';
import {
  checkPacket,
  encodeFirmwarePacket,
  legacyPacketBytes,
  packetBytes,
} from '../../src/protocols/ap3000/firmware.ts';
import { ap3000 } from '../../src/protocols/ap3000/index.ts';
import { rows } from '../../src/protocols/ap3000/message-table.ts';
import type { Direction, Message } from '../../src/protocols/protocol.ts';
import {
  bytes,
  deviceId,
  fixture,
  fixtures,
  handmade,
  hexOf,
  iccidText,
  messagesOf,
} from './ap3000-samples.ts';

const wireId = '3b37ab04';
const nowMs = 1_604_914_697_999;

function decode(direction: Direction, frame: Uint8Array): Message {
  const messages = messagesOf(ap3000.decoder(direction).push(frame));
  expect(messages).toHaveLength(1);
  return messages[0]!;
}

const encodeAgain = (message: Message): string => hexOf(ap3000.encode(message));

describe('the vendor frames', () => {
  it.each(fixtures)('decodes $name to its fields and encodes it back', (item) => {
    const message = decode(item.direction, bytes(item.hex));
    expect(message.fields).toEqual(item.fields);
    expect(message.fault).toBeUndefined();
    expect(message.cmd).toBe(Number(item.cmd));
    expect(message.msgId).toBe(Number(item.msgId));
    expect(message.deviceId).toBe(item.deviceId.toLowerCase());
    expect(message.name).not.toBe('unknown');
    expect(hexOf(message.frame)).toBe(item.hex);
    expect(encodeAgain(message)).toBe(item.hex);
  });

  it('reads message id 0002 and command 12, not command 02, from the shortest time request', () => {
    const message = decode('up', handmade('f36ca204', 2, 0x12, ''));
    expect(message).toMatchObject({ cmd: 0x12, msgId: 2, name: 'host.time' });
  });

  it('keeps the two surplus bytes of the vendor’s 20 sample', () => {
    expect(decode('up', bytes(fixture('register_20.up').hex)).fields).toMatchObject({
      powerBoardVersion: 0,
      undocumentedTail: 'e400',
    });
  });

  it('sends the FSK parameters as 3A, not as the 98 that the vendor’s table prints', () => {
    const frame = ap3000.encode({
      direction: 'down',
      name: 'host.fsk',
      deviceId,
      msgId: 1,
      fields: { freq: 472, reserved: '000000', deviceIds: ['04ab373b'] },
    });
    expect(hexOf(frame.subarray(11, -2))).toBe('3ad801000000013b37ab04');
  });

  it('accepts the legacy firmware packet of 274 bytes, above the 256 that the vendor names', () => {
    const data = 'ab'.repeat(256);
    const frame = handmade(wireId, 1, 0xf8, `02000100${data}`);
    expect(frame).toHaveLength(274);
    expect(decode('down', frame)).toMatchObject({
      name: 'firmware.device-legacy',
      fields: { total: 2, index: 1, data },
    });
  });
});

describe('layouts', () => {
  it.each([
    [
      'up',
      0x02,
      '7a8d05dd04009cff00fc58680401020304',
      {
        cardId: '7a8d05dd',
        cardType: 4,
        port: 0,
        cardBalanceCent: 65_436,
        timestamp: 1_750_662_144,
        cardNumber2: '01020304',
      },
    ],
    [
      'up',
      0x04,
      '0001112233443c0012345678123456781234567812345678',
      {
        port: 0,
        startSource: 1,
        cardId: '11223344',
        durationS: 60,
        orderNo: '12345678123456781234567812345678',
      },
    ],
    ['down', 0x04, '0100', { port: 1, result: 0 }],
    ['up', 0x05, '217e0001020304', { deviceType: 33, fwVersion: 126, packageType: '01020304' }],
    ['up', 0x15, '', {}],
    [
      'up',
      0x17,
      '015a9808640001000000c80002000000010003555601ff',
      {
        breaker: 1,
        tempRaw: 90,
        voltageDeciV: 2200,
        currentCentiA: 100,
        energyCentiKwh: 1,
        meterCurrentCentiA: 200,
        meterEnergyCentiKwh: 2,
        smoke: 1,
        alarmRelay: 0,
        leakMilliA: 3,
        liveTempRaw: 85,
        neutralTempRaw: 86,
        lock: 1,
        breakerKind: 255,
      },
    ],
    [
      'up',
      0x35,
      '0221007e00cd28a20421007f00f36ca204',
      {
        subDevices: [
          { deviceType: 33, reserved: 0, lowestVersion: 126, deviceId: '04a228cd' },
          { deviceType: 33, reserved: 0, lowestVersion: 127, deviceId: '04a26cf3' },
        ],
      },
    ],
    ['up', 0x3b, 'd801', { freq: 472 }],
    ['up', 0x41, '0c51', { ports: 12, doorsAndFans: 0x51 }],
    ['up', 0x42, '010203', { alarmType: 1, port: 2, trigger: 3 }],
    [
      'up',
      0x43,
      `100ee80330000101000000000141${'00'.repeat(15)}`,
      {
        durationS: 3600,
        maxPowerDeciW: 1000,
        energyCentiKwh: 48,
        port: 1,
        startSource: 1,
        cardOrCode: '00000000',
        stopReason: 1,
        orderNo: `41${'00'.repeat(15)}`,
      },
    ],
    ['up', 0x44, `0102${'ab'.repeat(16)}`, { pushType: 1, port: 2, orderNo: 'ab'.repeat(16) }],
    ['up', 0x72, `00${'ab'.repeat(16)}`, { result: 0, orderNo: 'ab'.repeat(16) }],
    ['up', 0x8b, '00aabb', { result: 0, data: 'aabb' }],
    ['down', 0x8c, '341202aabb', { address: 0x1234, data: 'aabb' }],
    [
      'up',
      0x90,
      '03000a00140807100eb400',
      {
        unplugPowerDeciW: 3,
        unplugTimeS: 10,
        floatPercent: 20,
        floatDetectS: 1800,
        floatTimeS: 3600,
        heartbeatIntervalS: 180,
      },
    ],
    ['up', 0x92, 'a08c204e', { maxChargeS: 36_000, overloadDeciW: 20_000 }],
    [
      'up',
      0x93,
      '00159185191880ffffffffffff',
      {
        sector: 0,
        userKey: '159185191880',
        newKey: 'ffffffffffff',
      },
    ],
    ['down', 0xfa, '', {}],
    ['up', 0xfa, '000000', { result: 0, index: 0 }],
  ] as const)('reads %s %i %s and writes it back', (direction, cmd, payload, fields) => {
    const frame = handmade(wireId, 7, cmd, payload);
    const message = decode(direction, frame);
    expect(message.fields).toEqual(fields);
    expect(message.fault).toBeUndefined();
    expect(encodeAgain(message)).toBe(hexOf(frame));
  });

  it('takes optional fields by length and keeps half of one in the tail', () => {
    const settlement = fixture('settlement_03.up').hex.slice(24, -4);
    for (const [more, wanted] of [
      ['', {}],
      ['00fc5868', { timestamp: 0x6858fc00 }],
      ['00fc58680500', { timestamp: 0x6858fc00, occupancyMin: 5 }],
      ['00fc586805', { timestamp: 0x6858fc00, undocumentedTail: '05' }],
      ['00fc58680500aa', { timestamp: 0x6858fc00, occupancyMin: 5, undocumentedTail: 'aa' }],
    ] as const) {
      const frame = handmade(wireId, 1, 0x03, settlement + more);
      const message = decode('up', frame);
      expect(message.fields).toEqual({ ...fixture('settlement_03.up').fields, ...wanted });
      expect(encodeAgain(message)).toBe(hexOf(frame));
    }
  });

  it('marks a payload that is too short and gives what could be read', () => {
    const message = decode('up', handmade(wireId, 1, 0x21, '98080200'));
    expect(message.fault).toBe(
      'the payload ends after byte 4, before its field portStatus is whole',
    );
    expect(message.fields).toEqual({ voltageDeciV: 2200, ports: 2, undocumentedTail: '00' });
  });

  it('keeps the payload of a command byte that it does not know', () => {
    const frame = handmade(wireId, 9, 0x0a, '0102');
    const message = decode('up', frame);
    expect(message).toMatchObject({ name: 'unknown', cmd: 0x0a, fields: { payloadHex: '0102' } });
    expect(encodeAgain(message)).toBe(hexOf(frame));
  });

  it('brings any payload of any message back byte for byte', () => {
    const cases = rows.flatMap(({ cmd }) => [['up', cmd] as const, ['down', cmd] as const]);
    fc.assert(
      fc.property(
        fc.constantFrom(...cases),
        fc.uint8Array({ maxLength: 300 }),
        ([direction, cmd], payload) => {
          const frame = handmade(wireId, 1, cmd, hexOf(payload));
          const message = decode(direction, frame);
          if (message.fault === undefined) expect(encodeAgain(message)).toBe(hexOf(frame));
          // the store keeps fields as JSON, whose text may not hold NUL in PostgreSQL
          expect(JSON.stringify(message.fields)).not.toContain('\\u0000');
        },
      ),
      { seed: 3000, numRuns: 1500 },
    );
  });

  it('has one name and one meaning for each command byte', () => {
    expect(new Set(rows.map(({ cmd }) => cmd)).size).toBe(rows.length);
    expect(new Set(rows.map(({ name }) => name)).size).toBe(rows.length);
  });

  it('refuses fields that do not fit and says what would', () => {
    const encode = (name: string, fields: Record<string, unknown>) =>
      ap3000.encode({ direction: 'up', name, deviceId, msgId: 1, fields });
    expect(() => encode('heartbeat', { voltageDeciV: 2200, ports: 2, portStatus: [0] })).toThrow(
      /portStatus must be a list of 2 integers from 0 to 255/,
    );
    expect(() => encode('heartbeat', { voltageDeciV: 70_000 })).toThrow(
      /voltageDeciV must be an integer from 0 to 65535/,
    );
    expect(() => encode('time', { extra: 1 })).toThrow(/extra is no field of it/);
    expect(() => encode('nonsense', {})).toThrow(/nonsense is not one of/);
    expect(() =>
      encode('register', {
        fwVersion: 1,
        ports: 1,
        virtualId: 1,
        deviceType: 1,
        workMode: 1,
        undocumentedTail: '0',
      }),
    ).toThrow(/undocumentedTail must be whole bytes of hex/);
    const bare = { direction: 'up', name: 'time', fields: {} } as const;
    expect(() => ap3000.encode({ ...bare, deviceId: 'xyz', msgId: 1 })).toThrow(/8 hex digits/);
    expect(() => ap3000.encode({ ...bare, deviceId, msgId: 65_536 })).toThrow(/0 to 65535/);
  });

  it('speaks the modem’s plain text too', () => {
    const text = { direction: 'up', deviceId: '', msgId: 0 } as const;
    const iccid = ap3000.encode({ ...text, name: 'iccid', fields: { iccid: iccidText } });
    expect(Buffer.from(iccid).toString()).toBe(iccidText);
    const link = ap3000.encode({ ...text, name: 'link', fields: {} });
    expect(Buffer.from(link).toString()).toBe('link');
    expect(() => ap3000.encode({ ...text, name: 'iccid', fields: { iccid: '12' } })).toThrow(
      /20 hex digits/,
    );
  });
});

describe('device ids', () => {
  it.each([
    ['04AB373B', '04ab373b'],
    ['04ab373b', '04ab373b'],
    ['82200520004869', null],
    ['4ab373b', null],
    ['04ab373g', null],
    ['', null],
  ])('reads %s as %s', (text, wanted) => {
    expect(ap3000.deviceId(text)).toBe(wanted);
  });

  it.each([10_011_001, 12_000_000, 13_000_001])('knows %i as a fallback of any kind', (number) => {
    const digits = number.toString(16).padStart(6, '0');
    for (const kind of ['03', '04', '09', 'ff']) {
      expect(ap3000.isFactoryDefault(kind + digits)).toBe(true);
    }
    const next = (number + 1).toString(16).padStart(6, '0');
    expect(ap3000.isFactoryDefault(`04${next}`)).toBe(false);
  });
});

describe('what the server owes', () => {
  it.each([
    ['heartbeat_01.up', 'heartbeat_01.ack', 'receipt'],
    ['register_20.up', 'register_20.ack', 'receipt'],
    ['heartbeat_21.up', 'heartbeat_21.ack', 'receipt'],
    ['settlement_03.up', 'settlement_03.ack', 'storage'],
    ['time_22.up', 'time_22.reply', 'receipt'],
  ])('answers %s with %s', (up, down, after) => {
    const answer = ap3000.answer(decode('up', bytes(fixture(up).hex)), nowMs);
    expect(answer?.after).toBe(after);
    expect(hexOf(answer!.frame)).toBe(fixture(down).hex);
  });

  it('answers the time of a host and an order confirmation', () => {
    const time = ap3000.answer(
      decode('up', bytes(fixture('host_time_12.up').hex)),
      1_604_934_878_000,
    );
    expect(hexOf(time!.frame)).toBe(fixture('host_time_12.reply').hex);
    const order = handmade(wireId, 5, 0x04, `0101${'00'.repeat(6)}${'41'.repeat(16)}`);
    const confirm = ap3000.answer(decode('up', order), nowMs);
    expect(confirm?.after).toBe('storage');
    expect(hexOf(confirm!.frame)).toBe(hexOf(handmade(wireId, 5, 0x04, '0100')));
  });

  it('acknowledges a damaged settlement too, since its frame is stored whole', () => {
    const message = decode('up', handmade(wireId, 5, 0x03, '0102'));
    expect(message.fault).toBeDefined();
    expect(ap3000.answer(message, nowMs)?.after).toBe('storage');
  });

  it('owes nothing for anything else', () => {
    const owed = new Set(['heartbeat', 'heartbeat.legacy', 'register', 'time', 'host.time']);
    owed.add('settlement').add('order.confirm');
    for (const { hex, direction } of fixtures) {
      const message = decode(direction, bytes(hex));
      const answer = ap3000.answer(message, nowMs);
      expect(answer !== null).toBe(direction === 'up' && owed.has(message.name));
    }
    for (const cmd of [0x15, 0x43]) {
      const payload = cmd === 0x15 ? '' : '00'.repeat(29);
      expect(ap3000.answer(decode('up', handmade(wireId, 1, cmd, payload)), nowMs)).toBeNull();
    }
  });

  it.each([
    [0x01, 'heartbeat'],
    [0x20, 'heartbeat'],
    [0x21, 'heartbeat'],
    [0x22, 'heartbeat'],
    [0x11, 'heartbeat'],
    [0x12, 'heartbeat'],
    [0x05, 'state'],
    [0x06, 'state'],
    [0x17, 'state'],
    [0x35, 'state'],
    [0x41, 'state'],
    [0x42, 'state'],
    [0x44, 'state'],
    [0x82, 'state'],
    [0x7f, 'state'],
    [0x02, 'money'],
    [0x03, 'money'],
    [0x04, 'money'],
    [0x43, 'money'],
  ] as const)('weighs command %i as %s', (cmd, weight) => {
    expect(ap3000.weight(decode('up', handmade(wireId, 1, cmd, '')))).toBe(weight);
  });

  it('weighs plain text as a heartbeat', () => {
    const texts = messagesOf(ap3000.decoder('up').push(Buffer.from(`${iccidText}link`)));
    expect(texts.map((message) => ap3000.weight(message))).toEqual(['heartbeat', 'heartbeat']);
    expect(texts.map((message) => ap3000.answer(message, nowMs))).toEqual([null, null]);
  });
});

describe('code tables', () => {
  it('names what the samples carry and says when a code has no name', () => {
    expect(meaningOf(portStatuses, 3)).toBe('plugged in, full');
    expect(meaningOf(stopReasons, 0x17)).toBe('forced by the server');
    expect(meaningOf(chargeResults, 14)).toBe('the port does not respond');
    expect(meaningOf(accountStates, 6)).toBe('balance too low');
    expect(meaningOf(cardTypes, 4)).toBe('social card');
    expect(meaningOf(startSources, 1)).toBe('server');
    expect(meaningOf(portStatuses, 0x0c)).toBe('code 12, which the vendor does not name');
  });
});

describe('firmware packets', () => {
  it('pads the last packet and keeps to the size of its kind', () => {
    const packet = { deviceId, msgId: 1, total: 2, index: 2, data: bytes('aabb') };
    const frame = encodeFirmwarePacket({ ...packet, kind: 'firmware.host-packet' });
    expect(frame).toHaveLength(14 + 4 + packetBytes);
    expect(hexOf(frame.subarray(11, 18))).toBe('fa02000200aabb');
    const legacy = encodeFirmwarePacket({ ...packet, kind: 'firmware.device-legacy' });
    expect(legacy).toHaveLength(14 + 4 + legacyPacketBytes);
    const tooLong = { ...packet, kind: 'firmware.host', data: Buffer.alloc(201) } as const;
    expect(() => encodeFirmwarePacket(tooLong)).toThrow(/data must be 400 hex digits/);
  });

  it('proves sum, type and version in the check packet', () => {
    const data = checkPacket(Buffer.alloc(1000, 0xff), { deviceType: 0x21, version: 0x027e });
    expect(data).toHaveLength(packetBytes);
    // 1000 × 255 = 255000 = 0x3e418
    expect(hexOf(data.subarray(0, 16))).toBe('a1a2a3a4a5a6a7a818e40300217e0200');
  });
});
