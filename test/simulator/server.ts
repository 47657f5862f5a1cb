/** A server that knows the codecs and nothing else: it answers reports at once and sends what a test asks for. */
import { createServer, type Socket } from 'node:net';
import type { Ack } from '../../src/outcome.ts';
import { protocols } from '../../src/protocols/index.ts';
import type { Decoder, Message, Protocol } from '../../src/protocols/protocol.ts';

type Session = { socket: Socket; protocol: Protocol };

export type CodecServer = {
  readonly port: number;
  readonly heard: Message[];
  readonly garbageBytes: number;
  readonly sockets: ReadonlySet<Socket>;
  /** Device ids that are on an open connection. */
  sessions(): string[];
  /** The device's answer, or null when it has none within the time. */
  send(
    deviceId: string,
    command: string,
    params: Record<string, unknown>,
    wireId: number,
    timeoutMs?: number,
  ): Promise<Ack | null>;
  /** Reports of these names get no answer from now on. */
  ignore(...names: string[]): void;
  heed(): void;
  /** Writes without waiting for anything. */
  write(deviceId: string, bytes: Uint8Array): void;
  close(): Promise<void>;
};

export async function startCodecServer(): Promise<CodecServer> {
  const sessions = new Map<string, Session>();
  const sockets = new Set<Socket>();
  const heard: Message[] = [];
  const waiters = new Set<(message: Message) => void>();
  const ignored = new Set<string>();
  let garbageBytes = 0;

  const server = createServer((socket) => {
    sockets.add(socket);
    let protocol: Protocol | undefined;
    let decoder: Decoder | undefined;
    socket.on('error', () => undefined);
    socket.on('close', () => {
      sockets.delete(socket);
      for (const [id, session] of sessions) if (session.socket === socket) sessions.delete(id);
    });
    socket.on('data', (chunk) => {
      protocol ??= protocols.find((one) => one.sniff(chunk) === 'match');
      if (!protocol) throw new Error(`no protocol begins with ${chunk.toString('hex')}`);
      decoder ??= protocol.decoder('up');
      for (const item of decoder.push(chunk)) {
        if (item.kind === 'garbage') {
          garbageBytes += item.bytes.length;
          continue;
        }
        const { message } = item;
        heard.push(message);
        if (message.deviceId !== '') sessions.set(message.deviceId, { socket, protocol });
        const answer = ignored.has(message.name) ? null : protocol.answer(message, Date.now());
        if (answer) socket.write(answer.frame);
        for (const waiter of [...waiters]) waiter(message);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');

  return {
    port: address.port,
    heard,
    sockets,
    get garbageBytes() {
      return garbageBytes;
    },
    sessions: () => [...sessions.keys()],
    ignore: (...names) => {
      for (const name of names) ignored.add(name);
    },
    heed: () => ignored.clear(),
    write: (deviceId, bytes) => sessions.get(deviceId)!.socket.write(bytes),
    send(deviceId, command, params, wireId, timeoutMs = 5000) {
      const session = sessions.get(deviceId);
      if (!session) throw new Error(`device ${deviceId} is not connected`);
      const spec = session.protocol.commands[command];
      if (!spec) throw new Error(`no command ${command}`);
      const fault = spec.check?.(params);
      if (fault) throw new Error(fault);
      return new Promise((resolve) => {
        const end = (ack: Ack | null) => {
          waiters.delete(listen);
          clearTimeout(timer);
          resolve(ack);
        };
        const listen = (message: Message) => {
          if (message.deviceId !== deviceId) return;
          const ack = spec.recognise(params, wireId, message);
          if (ack) end(ack);
        };
        const timer = setTimeout(() => end(null), timeoutMs);
        waiters.add(listen);
        session.socket.write(spec.encode(params, deviceId, wireId));
      });
    },
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy();
        server.close(() => resolve());
      }),
  };
}
