/** How a device of the model obeys: its ports, its charges, and the answers in its protocol's bytes. */
import type { Message, Protocol } from '../../src/protocols/protocol.ts';

export type Reply = {
  says: 'ack' | 'nack' | 'nothing';
  executed: boolean;
  frames: readonly Uint8Array[];
  /** What the device reports by itself a moment later, whatever became of the answer. */
  reports: readonly Uint8Array[];
};

export type Obedience = {
  protocol: Protocol;
  /** The frames that log the device in. */
  login(): Uint8Array[];
  isLoginReply(message: Message): boolean;
  /** True for answers to the device's own reports. */
  isAnswer(message: Message): boolean;
  /** What a frame orders, in the words of `word`. */
  ordersOf(message: Message): string;
  obey(message: Message, refuses: boolean): Reply;
  /** Answers a wire id that was seen before, without obeying again. */
  repeat(message: Message, first: Reply): Reply;
  /** All charges end by themselves. */
  finish(): void;
};

type Port = { charging: boolean; businessNo: number; orderNo: string };

export function createPorts() {
  const ports: [Port, Port] = [idlePort(), idlePort()];
  return { of: (number: unknown) => ports[number === 1 ? 1 : 0], all: ports };
}

function idlePort(): Port {
  return { charging: false, businessNo: 0, orderNo: '' };
}

export const unheard: Reply = { says: 'nothing', executed: false, frames: [], reports: [] };

export function replied(yes: boolean, frame: Uint8Array): Reply {
  return { says: yes ? 'ack' : 'nack', executed: yes, frames: [frame], reports: [] };
}
