/** The list of sockets behind a DTU, BKV V1.7 §"network". */
import { type Static, Type } from 'typebox';
import type { CommandSpec, Fields } from '../../protocol.ts';
import { ackOf, isReply } from '../acks.ts';
import { encodeMessage } from '../message-codec.ts';
import { closed, firstRepeated, hourMs, ListedSocket, Mac, priorities } from './params.ts';

const maxSockets = 250;

const Node = Type.Object({ socket: ListedSocket, mac: Mac }, closed);
type Node = Static<typeof Node>;

const RefreshParams = Type.Object(
  {
    channel: Type.Integer({ minimum: 1, maximum: 15, description: 'radio channel' }),
    nodes: Type.Array(Node, { minItems: 1, maxItems: maxSockets }),
  },
  closed,
);
type RefreshParams = Static<typeof RefreshParams>;

const DeleteParams = Type.Object({ socket: ListedSocket }, closed);
type DeleteParams = Static<typeof DeleteParams>;

export const networkCommands = {
  'network.refresh': networkCommand('network.refresh', {
    title: 'Replace the list of sockets',
    // Whatever still waits to be written would change a list that is gone then. Adding and deleting
    // replace nothing: a socket's number must be free before it is given anew.
    supersedes: ['network.refresh', 'network.add', 'network.delete'],
    params: RefreshParams,
    check: (params) => checkNodes((params as RefreshParams).nodes),
    fields(params) {
      const { channel, nodes } = params as RefreshParams;
      return { channel, nodes: nodes.map(nodeFields) };
    },
  }),
  'network.add': networkCommand('network.add', {
    title: 'Add one socket to the list',
    params: Node,
    fields: (params) => nodeFields(params as Node),
  }),
  'network.delete': networkCommand('network.delete', {
    title: 'Remove one socket from the list',
    params: DeleteParams,
    fields: (params) => ({ socketNo: (params as DeleteParams).socket }),
  }),
};

type Own = Pick<CommandSpec, 'title' | 'params' | 'check'> & {
  supersedes?: readonly string[];
  fields(params: Record<string, unknown>): Fields;
};

/**
 * All three change one list, so they share one line; the end state does not depend on how often
 * one arrives.
 */
function networkCommand(name: string, { fields, supersedes = [], ...own }: Own): CommandSpec {
  return {
    ...own,
    priority: priorities.settings,
    ttlMs: hourMs,
    ack: 'reply',
    repeatable: true,
    onAmbiguous: 'resend',
    supersedes,
    orderKey: () => 'network',
    encode: (params, deviceId, wireId) =>
      encodeMessage({ direction: 'down', name, deviceId, msgId: wireId, fields: fields(params) }),
    recognise: (_params, wireId, message) =>
      isReply(message, wireId, `${name}.reply`) ? ackOf(message) : null,
  };
}

function nodeFields({ socket, mac }: Node): Fields {
  return { socketNo: socket, mac };
}

function checkNodes(nodes: readonly Node[]): string | null {
  const socket = firstRepeated(nodes.map((node) => node.socket));
  if (socket !== undefined)
    return `nodes name socket ${socket} twice; give each socket its own number`;
  const mac = firstRepeated(nodes.map((node) => node.mac.toLowerCase()));
  if (mac !== undefined) return `nodes name mac ${mac} twice; list each socket once`;
  return null;
}
