import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { decodeFrames, encodeFrame } from '../../src/cli/frame.ts';
import { DownlinkError } from '../../src/errors.ts';

type Fixture = {
  protocol: string;
  name: string;
  direction: string;
  hex: string;
  cmd: string;
  msgId: string;
  gatewayId?: string;
  deviceId?: string;
  fields: Record<string, unknown>;
};

const fixtures = JSON.parse(
  readFileSync(new URL('../frames/vendor_frames.json', import.meta.url), 'utf8'),
) as Fixture[];

const idOf = ({ gatewayId, deviceId }: Fixture) => (gatewayId ?? deviceId)!.toLowerCase();
const ap = '444e5910003b37ab0401002198080200000905ee02';
const bkv = 'fcff0018000000000000008220052000486920200730164545a7fcee';

/** The code and the sentence of what is thrown. */
function failure(run: () => unknown): { code: string; message: string } {
  try {
    run();
  } catch (error) {
    if (error instanceof DownlinkError) return { code: error.code, message: error.message };
    throw error;
  }
  throw new Error('nothing was thrown');
}

describe('frame decode', () => {
  it.each(fixtures)('reads the vendor’s $protocol $name by its content alone', (item) => {
    const [frame, ...more] = decodeFrames([item.hex]);
    expect(more).toEqual([]);
    expect(frame).toMatchObject({
      protocol: item.protocol.toLowerCase(),
      cmd: item.cmd.toLowerCase(),
      msgId: Number(item.msgId),
      deviceId: idOf(item),
    });
    expect(frame).not.toHaveProperty('fault');
    expect(JSON.parse(JSON.stringify(frame))).toEqual(frame);
    const readings = [frame, ...((frame as { alsoReads?: object[] }).alsoReads ?? [])];
    expect(readings).toContainEqual(expect.objectContaining({ direction: item.direction }));
    if (item.protocol === 'AP3000') {
      expect(readings).toContainEqual(
        expect.objectContaining({ direction: item.direction, fields: item.fields }),
      );
    }
  });

  it('reads frames of both protocols from one text, in order', () => {
    const frames = decodeFrames(fixtures.map(({ hex }) => hex));
    expect(frames.map((frame) => ('deviceId' in frame ? frame.deviceId : frame))).toEqual(
      fixtures.map(idOf),
    );
  });

  it('gives one object for each frame and for each run of other bytes', () => {
    const text = Buffer.from('89860448161870048156link').toString('hex');
    expect(decodeFrames([`aabb${bkv}`, `00${text}`, `${ap}cc`])).toEqual([
      { garbage: 'aabb', reason: 'noise' },
      expect.objectContaining({
        protocol: 'bkv',
        direction: 'down',
        cmd: '0x0000',
        subCmd: null,
        msgId: 0,
        deviceId: '82200520004869',
        checksum: '0xa7',
      }),
      { garbage: '00', reason: 'noise' },
      expect.objectContaining({
        protocol: 'ap3000',
        name: 'iccid',
        cmd: null,
        checksum: null,
        fields: { iccid: '89860448161870048156' },
      }),
      expect.objectContaining({ protocol: 'ap3000', name: 'link', deviceId: '' }),
      {
        protocol: 'ap3000',
        direction: 'up',
        cmd: '0x21',
        subCmd: null,
        msgId: 1,
        deviceId: '04ab373b',
        name: 'heartbeat',
        fields: {
          voltageDeciV: 2200,
          ports: 2,
          portStatus: [0, 0],
          signal: 9,
          ambientTempRaw: 5,
        },
        checksum: '0x02ee',
      },
      { garbage: 'cc', reason: 'noise' },
    ]);
  });

  it('takes upper case, spaces and lines, and pieces that cut a byte in two', () => {
    const wanted = decodeFrames([ap]);
    const spaced = ap.toUpperCase().replace(/../g, '$& ');
    expect(decodeFrames([spaced])).toEqual(wanted);
    expect(decodeFrames([` ${ap.slice(0, 8)}\n${ap.slice(8)}\t`])).toEqual(wanted);
    expect(decodeFrames([ap.slice(0, 7), ap.slice(7)])).toEqual(wanted);
  });

  it.each([
    ['a wrong AP3000 checksum', `${ap.slice(0, -4)}0000`, 'checksum'],
    ['an AP3000 frame cut short', ap.slice(0, -2), 'partial-timeout'],
    ['an AP3000 length out of bounds', `444e59ffff${ap.slice(10)}`, 'length'],
    ['a wrong BKV checksum', bkv.replace('a7fcee', 'a8fcee'), 'checksum'],
    ['a wrong BKV tail', bkv.replace('a7fcee', 'a7fcef'), 'tail'],
    ['a BKV frame cut short', bkv.slice(0, -2), 'partial-timeout'],
  ])('says why it skipped %s', (_what, hex, reason) => {
    expect(decodeFrames([hex])).toEqual([{ garbage: hex, reason }]);
  });

  it('says where the bytes do not tell who speaks', () => {
    const [frame] = decodeFrames(['444e590a003b37ab0401008d00a402']);
    expect(frame).toMatchObject({
      direction: 'up',
      name: 'workmode.set.reply',
      alsoReads: [{ direction: 'down', name: 'workmode.set', fields: { workMode: 0 } }],
    });
  });

  it('names the fault of a sound frame with a short payload', () => {
    // 0x21 with a single byte: too short for a heartbeat, enough for the server's answer to one
    const [answer] = decodeFrames(['444e590a003b37ab04010021003802']);
    expect(answer).toMatchObject({ direction: 'down', name: 'heartbeat.reply' });
    const [short] = decodeFrames(['444e590a003b37ab04010006001d02']);
    expect(short).toMatchObject({ name: 'power', fault: expect.stringContaining('after byte 1,') });
  });

  it.each([
    [['zz'], /character "z" at position 1/],
    [['444e5'], /5 hex digits/],
    [[''], /is empty/],
    [[' '], /is empty/],
    [[], /is empty/],
  ])('refuses %o', (args, sentence) => {
    const { code, message } = failure(() => decodeFrames(args));
    expect(code).toBe('INVALID_PAYLOAD');
    expect(message).toMatch(sentence);
  });
});

describe('frame encode', () => {
  const request = {
    protocol: 'ap3000',
    deviceId: '04AB373B',
    command: 'charge.stop',
    params: '{"port":1,"orderNo":"12345678123456781234567812345678"}',
    msgId: 3,
  };

  it('gives the frame that the command would send', () => {
    expect(encodeFrame(request)).toBe(
      '444e5926003b37ab0403008200000000000100000012345678123456781234567812345678000000000807',
    );
  });

  it('encodes for BKV as well', () => {
    const hex = encodeFrame({
      protocol: 'bkv',
      deviceId: '82200520004869',
      command: 'raw',
      params: '{"cmd":"0015","payload":"00011d01"}',
      msgId: 7,
    });
    expect(decodeFrames([hex])[0]).toMatchObject({
      protocol: 'bkv',
      direction: 'down',
      cmd: '0x0015',
      subCmd: '0x1d',
      msgId: 7,
      deviceId: '82200520004869',
    });
  });

  it.each([
    [{ protocol: 'modbus' }, 'BAD_REQUEST', /"modbus" is not one of bkv, ap3000/],
    [{ deviceId: '82200520004869' }, 'INVALID_DEVICE_ID', /no device id of protocol ap3000/],
    [{ command: 'charge.go' }, 'COMMAND_UNKNOWN', /charge\.go.*charge\.start, charge\.stop/],
    [{ command: 'toString' }, 'COMMAND_UNKNOWN', /toString/],
    [{ params: '{port:1}' }, 'INVALID_JSON', /not JSON/],
    [{ params: '[]' }, 'INVALID_PARAMS', /must be object/],
    [{ params: '{"port":99,"oops":1}' }, 'INVALID_PARAMS', /need orderNo/],
    [{ params: '{"port":99,"oops":1}' }, 'INVALID_PARAMS', /unknown oops.*port, orderNo/],
    [{ params: '{"port":99,"oops":1}' }, 'INVALID_PARAMS', /port must be <= 15/],
    [
      { command: 'charge.start', params: '{"port":"x","mode":"time","orderNo":"a"}' },
      'INVALID_PARAMS',
      /port must be integer or must be "auto"/,
    ],
    [
      { command: 'charge.start', params: '{"port":1,"mode":"time","orderNo":"a"}' },
      'INVALID_PARAMS',
      /needs seconds or minutes/,
    ],
    [{ msgId: 0 }, 'INVALID_PARAMS', /from 1 to 65535/],
    [{ msgId: 65_536 }, 'INVALID_PARAMS', /from 1 to 65535/],
    [{ msgId: Number.NaN }, 'INVALID_PARAMS', /from 1 to 65535/],
  ])('refuses %o with %s', (change, code, sentence) => {
    const failed = failure(() => encodeFrame({ ...request, ...change }));
    expect(failed.code).toBe(code);
    expect(failed.message).toMatch(sentence);
  });
});
