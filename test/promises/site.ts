/** BKV devices on plain sockets against a whole downlink: what they hear, what they say, what the API shows. */

import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import type { ShownCommand } from '../support/api-client.ts';
import { eventually } from '../support/eventually.ts';
import { bkvPatched, bkvSealed, bkvSize, connectPlain } from '../support/plain-device.ts';
import { type Stack, type StackOptions, startStack } from '../support/stack.ts';
import { vendor } from '../support/vendor-frames.ts';

/** The vendor's answer to a query of socket 1. */
const queryReply =
  'fcfe00350015001c91ee018600445945300500211c01513629150080000008ef00000001000000000180000008ef000000010000000077fcee';

type Site = ReturnType<typeof siteOf>;

/** One stack for the tests of a file. Devices leave at the end of each test. */
export function siteForFile<S extends Stack>(start: () => Promise<S>): Site & { stack: () => S } {
  let stack: S;
  const site = siteOf(() => stack);
  beforeAll(async () => {
    stack = await start();
  });
  afterEach(() => site.leave());
  afterAll(() => stack?.stop());
  return { ...site, stack: () => stack };
}

export function plainSite(options: StackOptions = {}) {
  return siteForFile(() => startStack(options));
}

let number = 0;

function siteOf(stack: () => Stack) {
  const closers: (() => Promise<void>)[] = [];

  async function logIn(deviceId: string) {
    const plain = await connectPlain(stack().tcp, bkvSize);
    closers.push(() => plain.close());
    plain.send(bkvPatched(vendor('heartbeat.up'), deviceId));
    expect((await plain.frame()).slice(0, 12)).toBe('fcff00180000');
    return {
      deviceId,
      frame: plain.frame,
      close: plain.close,
      /** Says yes to the frame. */
      accept: (frame: string) => plain.send(answerTo(frame, deviceId, true)),
      refuse: (frame: string) => plain.send(answerTo(frame, deviceId, false)),
      /** Everything that the server sent before has arrived then. */
      async heardAll() {
        plain.send(bkvPatched(vendor('heartbeat.up'), deviceId));
        const frames: string[] = [];
        for (;;) {
          const frame = await plain.frame();
          if (frame.startsWith('fcff00180000')) return frames;
          frames.push(frame);
        }
      },
    };
  }

  const post = (deviceId: string, command: string, params: object, more: object) =>
    stack().api.send({ deviceId, command, params, ...more });

  return {
    logIn,
    async leave() {
      await Promise.all(closers.splice(0).map((close) => close()));
    },
    /** A device that is known, and not connected. */
    async knownDevice(): Promise<string> {
      number += 1;
      const deviceId = `82200530${process.pid.toString().slice(-2).padStart(2, '0')}${String(number).padStart(4, '0')}`;
      expect((await stack().api.request('PUT', `/v1/devices/${deviceId}`, {})).status).toBe(201);
      return deviceId;
    },
    query: (deviceId: string, socket: number, more: object = {}) =>
      post(deviceId, 'port.query', { socket }, more),
    start: (deviceId: string, more: object = {}, port = 0) =>
      post(deviceId, 'charge.start', { socket: 1, port, mode: 'time', minutes: 60 }, more),
    stop: (deviceId: string, more: object = {}, port = 0) =>
      post(deviceId, 'charge.stop', { socket: 1, port }, more),
    set: (deviceId: string, values: object, more: object = {}) =>
      post(deviceId, 'params.set', { socket: 1, ...values }, more),
    post,
    withStatus(id: string, status: string, withinMs = 10_000): Promise<ShownCommand> {
      return eventually(
        async () => {
          const command = await stack().api.command(id);
          expect(command.status, command.reason ?? '').toBe(status);
          return command;
        },
        { withinMs },
      );
    },
    /** Why the command is not out yet. */
    because(id: string, because: string): Promise<unknown> {
      return eventually(async () => {
        const { body } = await stack().api.request('GET', `/v1/commands/${id}/explain`);
        expect(body['because'], body['sentence']).toBe(because);
      });
    },
    cancel: (id: string) => stack().api.request('DELETE', `/v1/commands/${id}`),
  };
}

export const wireIdOf = (frame: string) => Number.parseInt(frame.slice(12, 20), 16);
const innerOf = (frame: string) => frame.slice(40, 42);
/** The socket that a query asks about: 0003 … 1d <socket>. */
export const askedSocket = (frame: string) => Number.parseInt(frame.slice(42, 44), 16);
/** 0008 07 <socket> <hole> <1 on, 0 off> … */
export const isStart = (frame: string) => innerOf(frame) === '07' && frame.slice(46, 48) === '01';
export const isStop = (frame: string) => innerOf(frame) === '07' && frame.slice(46, 48) === '00';
export const isQuery = (frame: string) => innerOf(frame) === '1d';

function answerTo(frame: string, deviceId: string, yes: boolean): string {
  const wireId = frame.slice(12, 20);
  if (isQuery(frame)) {
    const answer = bkvPatched(queryReply, deviceId, wireId);
    return bkvSealed(`${answer.slice(0, 42)}${frame.slice(42, 44)}${answer.slice(44)}`);
  }
  // 0005 07 <result> <socket> <hole> <business number>
  const answer = bkvPatched(vendor('control_07.reply'), deviceId, wireId);
  return bkvSealed(
    `${answer.slice(0, 42)}${yes ? '01' : '00'}${frame.slice(42, 46)}${answer.slice(48)}`,
  );
}
