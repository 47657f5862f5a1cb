/** The HTTP API as the demo uses it. */
import { DownlinkError } from '../errors.ts';

export type CommandBody = {
  deviceId: string;
  command: string;
  params: Record<string, unknown>;
  ackTimeoutMs?: number;
  attempts?: number;
  backoffMs?: number;
};

/** A command as the API shows it; times are ISO 8601. */
export type ShownCommand = {
  id: string;
  status: string;
  final: boolean;
  deviceId: string;
  command: string;
  inferred: boolean;
  acceptedAt: string;
  settledAt: string | null;
  maxAttempts: number;
  attempts: {
    wireId: number;
    frameOut: string;
    writtenAt: string | null;
    ms: number | null;
  }[];
};

export type ApiClient = {
  send(body: CommandBody): Promise<ShownCommand>;
  get(id: string): Promise<ShownCommand>;
  /** All commands accepted from this moment on, or those with one of these statuses. */
  list(query: { from: string; status?: string }): Promise<ShownCommand[]>;
  online(): Promise<string[]>;
};

const requestTimeoutMs = 30_000;
const pageSize = 200;

export function createApiClient({ url, key }: { url: string; key: string }): ApiClient {
  async function request<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(url + path, {
      method,
      headers: {
        authorization: `Bearer ${key}`,
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(requestTimeoutMs),
    });
    const answer = (await response.json()) as T & { code?: string; detail?: string };
    if (response.ok) return answer;
    const { code = '', detail = '' } = answer;
    const text = `${method} ${path.split('?')[0]} was answered ${response.status} ${code}: ${detail}`;
    throw new DownlinkError('BAD_REQUEST', text, { details: { status: response.status, code } });
  }

  async function all<T>(path: string, query: Record<string, string>): Promise<T[]> {
    const items: T[] = [];
    let cursor: string | null = null;
    do {
      const search = new URLSearchParams({ ...query, limit: String(pageSize) });
      if (cursor !== null) search.set('cursor', cursor);
      const page: { items: T[]; nextCursor: string | null } = await request(
        'GET',
        `${path}?${search}`,
      );
      items.push(...page.items);
      cursor = page.nextCursor;
    } while (cursor !== null);
    return items;
  }

  return {
    send: (body) => request('POST', '/v1/commands', body),
    get: (id) => request('GET', `/v1/commands/${id}`),
    list: (query) => all('/v1/commands', query),
    online: async () => {
      const devices = await all<{ deviceId: string }>('/v1/devices', { online: 'true' });
      return devices.map(({ deviceId }) => deviceId);
    },
  };
}
