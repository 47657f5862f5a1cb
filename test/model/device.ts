/** A device that does as it is told: it answers, refuses, keeps silent, answers late, drops its connection. */
import { connect, type Socket } from 'node:net';
import type { Decoder, Message } from '../../src/protocols/protocol.ts';
import { eventually } from '../support/eventually.ts';
import { type Reply, unheard } from './obedience.ts';
import { createAp3000 } from './obedience-ap3000.ts';
import { createBkv } from './obedience-bkv.ts';
import type { Closed, Frame } from './story.ts';
import type { ProtocolName } from './wishes.ts';

/** What becomes of one frame. */
export type Fate = {
  /** It reaches the device's logic. */
  heard: boolean;
  answers: boolean;
  refuses: boolean;
  /** Before the answer. */
  delayMs: number;
  /** The device drops its connection, without a look at the frame or behind its answer, and is back after `backMs`. */
  drops: 'no' | 'before' | 'after';
  backMs: number;
};

export type ModelDevice = {
  readonly deviceId: string;
  readonly protocol: ProtocolName;
  readonly frames: readonly Frame[];
  readonly closes: readonly Closed[];
  /** Connects, and again whenever the connection is lost, until it leaves. */
  connect(): void;
  leave(how: 'device' | 'reset'): void;
  /** Resolves when it is logged in. */
  loggedIn(): Promise<void>;
  /** What becomes of the next frames; of those after them: obeyed and answered at once. */
  meet(fates: readonly Fate[]): void;
  /** Forgets what was to become of frames to come. */
  calm(): void;
  /** All its charges end by themselves. */
  finish(): void;
  /** For good. */
  stop(): void;
};

export type ModelDeviceOptions = {
  host: string;
  port: number;
  deviceId: string;
  protocol: ProtocolName;
  /** How it answers a start that it knows already: as before, or "same state". */
  repeats: 'same' | 'state';
};

const calmFate: Fate = {
  heard: true,
  answers: true,
  refuses: false,
  delayMs: 0,
  drops: 'no',
  backMs: 0,
};
const reconnectMs = 60;
const loginRepeatMs = 1_500;
const lingerMs = 500;
/** From a change of a port to its report. */
const reportMs = 40;

export function createModelDevice(options: ModelDeviceOptions): ModelDevice {
  const { host, port, deviceId, protocol, repeats } = options;
  const obedience = protocol === 'bkv' ? createBkv(deviceId) : createAp3000(deviceId, repeats);
  const frames: Frame[] = [];
  const closes: Closed[] = [];
  const seen = new Map<number, Reply>();
  let fates: Fate[] = [];
  let wanted = false;
  let stopped = false;
  let socket: Socket | null = null;
  let loggedIn = false;
  let connection = 0;
  let reopen: NodeJS.Timeout | undefined;

  function open(): void {
    clearTimeout(reopen);
    if (socket || !wanted || stopped) return;
    const mine = connect({ host, port, noDelay: true });
    const decoder = obedience.protocol.decoder('down');
    let number = 0;
    let repeatLogin: NodeJS.Timeout | undefined;
    const login = () => {
      mine.write(Buffer.concat(obedience.login()));
      repeatLogin = setTimeout(login, loginRepeatMs);
    };
    socket = mine;
    mine.on('connect', () => {
      connection += 1;
      number = connection;
      login();
    });
    mine.on('data', (chunk) => {
      if (socket !== mine) return;
      hear(decoder, chunk, () => clearTimeout(repeatLogin));
    });
    mine.on('error', () => undefined);
    mine.on('close', () => {
      clearTimeout(repeatLogin);
      if (socket !== mine) return;
      if (number > 0) closes.push({ at: Date.now(), deviceId, connection: number, by: 'server' });
      socket = null;
      loggedIn = false;
      openIn(reconnectMs);
    });
  }

  function openIn(ms: number): void {
    clearTimeout(reopen);
    if (wanted && !stopped) reopen = setTimeout(open, ms);
  }

  /** Nothing that arrives afterwards is looked at. */
  function drop(by: 'device' | 'reset'): void {
    const mine = socket;
    if (!mine) return;
    socket = null;
    loggedIn = false;
    if (!mine.connecting) closes.push({ at: Date.now(), deviceId, connection, by });
    if (by === 'reset' || mine.connecting) {
      mine.destroy();
      return;
    }
    mine.end();
    mine.resume();
    setTimeout(() => mine.destroy(), lingerMs);
  }

  function hear(decoder: Decoder, chunk: Uint8Array, onLogin: () => void): void {
    const mine = socket;
    for (const decoded of decoder.push(chunk)) {
      // A frame before this one may have made it hang up.
      if (socket !== mine || decoded.kind !== 'message') continue;
      const { message } = decoded;
      if (obedience.isLoginReply(message)) {
        loggedIn = true;
        onLogin();
      } else if (!obedience.isAnswer(message)) take(message);
    }
  }

  function take(message: Message): void {
    const fate = fates.shift() ?? calmFate;
    const first = seen.get(message.msgId);
    const frame: Frame = {
      at: Date.now(),
      deviceId,
      connection,
      wireId: message.msgId,
      orders: obedience.ordersOf(message),
      hex: Buffer.from(message.frame).toString('hex'),
      says: 'nothing',
      executed: first?.executed ?? false,
      repeated: frames.some(({ wireId }) => wireId === message.msgId),
      answeredAt: null,
      answeredOn: null,
    };
    frames.push(frame);
    if (fate.drops === 'before') {
      drop('reset');
      openIn(fate.backMs);
      return;
    }
    const reply = fate.heard ? replyTo(message, first, fate.refuses) : unheard;
    frame.says = reply.says;
    frame.executed ||= reply.executed;
    const after = () => {
      if (fate.drops !== 'after') return;
      drop('device');
      openIn(fate.backMs);
    };
    if (!fate.answers || reply.frames.length === 0) after();
    else if (fate.delayMs === 0) answer(frame, reply, after);
    else setTimeout(() => answer(frame, reply, after), fate.delayMs);
  }

  function replyTo(message: Message, first: Reply | undefined, refuses: boolean): Reply {
    if (first) return obedience.repeat(message, first);
    const reply = obedience.obey(message, refuses);
    seen.set(message.msgId, reply);
    if (reply.reports.length > 0) setTimeout(() => report(reply.reports), reportMs);
    return reply;
  }

  function report(reports: readonly Uint8Array[]): void {
    if (!stopped && loggedIn && socket?.writable) socket.write(Buffer.concat(reports));
  }

  /** Over the connection that there is by then, be it another than the frame's. */
  function answer(frame: Frame, reply: Reply, after: () => void): void {
    if (stopped || !socket || !loggedIn || !socket.writable) return;
    // Before the bytes are out, since they may be read before this process gets its next turn.
    frame.answeredAt = Date.now();
    frame.answeredOn = connection;
    socket.write(Buffer.concat(reply.frames));
    after();
  }

  return {
    deviceId,
    protocol,
    frames,
    closes,
    connect() {
      wanted = true;
      open();
    },
    leave(how) {
      wanted = false;
      clearTimeout(reopen);
      drop(how);
    },
    loggedIn: () =>
      eventually(
        () => {
          if (!loggedIn) throw new Error(`device ${deviceId} is not logged in`);
        },
        { withinMs: 20_000 },
      ),
    meet(more) {
      fates = [...fates, ...more];
    },
    calm() {
      fates = [];
    },
    finish: () => obedience.finish(),
    stop() {
      stopped = true;
      clearTimeout(reopen);
      drop('reset');
    },
  };
}
