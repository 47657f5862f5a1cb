/**
 * The reference for connections: a server that holds sockets and answers each BKV heartbeat with the bytes that a
 * gateway would answer, and does nothing else. It prints its address and ends with its standard input.
 */
import { type AddressInfo, createServer } from 'node:net';
import { bkv } from '../../src/protocols/bkv/index.ts';

const anyDevice = '82200000000000';
/** Of a BKV frame: head 2, length 2, command 2, message id 4, direction 1, device id 7; checksum 1, tail 2. */
const idAt = 11;
const idEnd = 18;
const checksumFromEnd = 3;
const summedFrom = 2;
const backlog = 4096;

const beat = bkv.encode({
  direction: 'up',
  name: 'heartbeat',
  deviceId: anyDevice,
  msgId: 0,
  fields: { iccid: '89860400000000000000', version: '200.1.17', csq: 25 },
});
const template = answerTo(beat);

const server = createServer({ noDelay: true, keepAlive: true }, (socket) => {
  socket.on('data', (chunk) => {
    const frame = Buffer.from(template);
    chunk.copy(frame, idAt, idAt, idEnd);
    const at = frame.length - checksumFromEnd;
    let sum = 0;
    for (let i = summedFrom; i < at; i += 1) sum += frame[i]!;
    frame[at] = sum & 0xff;
    socket.write(frame);
  });
  socket.on('error', () => undefined);
});
server.listen({ host: '127.0.0.1', port: 0, backlog }, () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
});
process.stdin.resume().on('end', () => process.exit(0));

function answerTo(frame: Uint8Array): Buffer {
  const [first] = bkv.decoder('up').push(frame);
  if (first?.kind !== 'message') throw new Error('the heartbeat is no frame');
  const answer = bkv.answer(first.message, Date.now());
  if (!answer) throw new Error('a heartbeat has no answer');
  return Buffer.from(answer.frame);
}
