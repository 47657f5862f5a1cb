/**
 * What a sequence may ask of its devices, with what the vendors' documents say of it: its line, whether it
 * starts or stops something, and what its frame must order. It shares nothing with the command tables.
 */
import type { Kind } from './story.ts';

export type ProtocolName = 'bkv' | 'ap3000';

/** A wish before it is given its own number, which makes its bytes unlike those of any other. */
export type Wish =
  | { what: 'query' }
  | { what: 'read' }
  | { what: 'start'; port: 0 | 1 }
  | { what: 'stop'; port: 0 | 1 }
  /** AP3000 only: more time for a running charge. */
  | { what: 'modify'; port: 0 | 1 }
  /** Sets one value, or two. */
  | { what: 'set'; both: boolean };

export type Worded = {
  kind: Kind;
  command: string;
  params: Record<string, unknown>;
  line: string | null;
  orders: string;
};

/** BKV: the socket that all of it is about. */
export const socket = 1;

/** `number` is below 900 and given once per device; `orderNo` is that of the port's last start. */
export function word(
  protocol: ProtocolName,
  wish: Wish,
  number: number,
  orderNo: string | null,
): Worded {
  return protocol === 'bkv' ? wordBkv(wish, number) : wordAp3000(wish, number, orderNo);
}

function wordBkv(wish: Wish, number: number): Worded {
  switch (wish.what) {
    case 'read':
      return plain('query', 'params.read', { socket }, null, 'read');
    case 'start': {
      const { port } = wish;
      const params = { socket, port, mode: 'time', minutes: number };
      return plain('start', 'charge.start', params, `port:${port}`, `start ${port} ${number}`);
    }
    case 'stop': {
      const { port } = wish;
      return plain('stop', 'charge.stop', { socket, port }, `port:${port}`, `stop ${port}`);
    }
    case 'set': {
      const params = {
        socket,
        maxMinutes: number,
        ...(wish.both && { fullChargeDelayS: 7_000 }),
      };
      return plain('set', 'params.set', params, 'set', `set ${number}`);
    }
    // there is no command for more time
    case 'modify':
    case 'query':
      return plain('query', 'port.query', { socket }, null, 'query');
  }
}

function wordAp3000(wish: Wish, number: number, orderNo: string | null): Worded {
  switch (wish.what) {
    case 'query':
    case 'read': {
      const group = wish.what === 'read' ? 'basic' : 'advanced';
      return plain('query', 'params.read', { group }, null, `read ${group}`);
    }
    case 'start': {
      const { port } = wish;
      const params = { port, mode: 'time', seconds: 1_000 + number, orderNo: orderOf(number) };
      return plain('start', 'charge.start', params, `port:${port}`, `start ${port} ${number}`);
    }
    case 'stop': {
      const { port } = wish;
      const params = { port, orderNo: orderNo ?? orderOf(number) };
      return plain('stop', 'charge.stop', params, `port:${port}`, `stop ${port}`);
    }
    case 'modify': {
      const { port } = wish;
      const params = { port, mode: 'time', seconds: 10_000 + number };
      return plain('modify', 'charge.modify', params, `port:${port}`, `modify ${port} ${number}`);
    }
    case 'set': {
      const params = {
        group: 'basic',
        floatTimeS: number,
        ...(wish.both && { floatDetectS: 1_700 }),
      };
      return plain('set', 'params.set', params, 'set', `set ${number}`);
    }
  }
}

/** The order number of a start, as clients give it. */
export function orderOf(number: number): string {
  return `ORDER${String(number).padStart(8, '0')}`;
}

function plain(
  kind: Kind,
  command: string,
  params: Record<string, unknown>,
  line: string | null,
  orders: string,
): Worded {
  return { kind, command, params, line, orders };
}
