/** Commands to the well-behaved devices, and how long each took. */
import type { ApiClient } from '../../support/api-client.ts';

export type Commands = {
  /** Sends them evenly until it is told to end; then waits for the last. */
  end(): Promise<{ ms: number[]; failed: string[] }>;
};

const waitMs = 10_000;

/** From accepted to the device's own answer, by the clocks of API and gateway: they are on one machine. */
export function sendCommands(api: ApiClient, ids: readonly string[], perSecond: number): Commands {
  const ms: number[] = [];
  const failed: string[] = [];
  const sending: Promise<void>[] = [];

  async function send(deviceId: string): Promise<void> {
    const body = { deviceId, command: 'port.query', params: { socket: 1 } };
    try {
      const { id, status, acceptedAt, attempts } = await api.send(body, waitMs);
      const last = attempts.at(-1);
      if (status !== 'succeeded' || !last?.writtenAt || last.ms === null)
        failed.push(`${id} of ${deviceId}: ${status}`);
      else ms.push(Date.parse(last.writtenAt) + last.ms - Date.parse(acceptedAt));
    } catch (error) {
      failed.push(`${deviceId}: ${String(error)}`);
    }
  }

  const timer = setInterval(() => {
    const deviceId = ids[Math.floor(Math.random() * ids.length)]!;
    sending.push(send(deviceId));
  }, 1_000 / perSecond);

  return {
    async end() {
      clearInterval(timer);
      await Promise.all(sending);
      return { ms, failed };
    },
  };
}
