/** The HTTP API as a test calls it: what it is given goes out as it is, what comes back is shown as it came. */

export type Answer<T = Json> = { status: number; type: string; headers: Headers; body: T };

/** What a test looks at in JSON that it got; a wrong guess fails the assertion on it. */
// biome-ignore lint/suspicious/noExplicitAny: the shapes of answers are what the tests are about
export type Json = Record<string, any>;

/** A command as the API shows it. */
export type ShownCommand = {
  id: string;
  status: string;
  final: boolean;
  deviceId: string;
  command: string;
  reason: string | null;
  code: string | null;
  result: Json | null;
  late: boolean;
  inferred: boolean;
  acceptedAt: string;
  deadline: string;
  settledAt: string | null;
  maxAttempts: number;
  attempts: ShownAttempt[];
};

export type ShownAttempt = {
  attempt: number;
  gatewayId: string;
  wireId: number;
  frameOut: string;
  writtenAt: string | null;
  frameIn: string | null;
  ms: number | null;
  outcome: string | null;
};

export type ApiClient = {
  /** Any request; a body that is no text is sent as JSON. */
  request(
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<Answer>;
  /** Sends a command, which must be accepted. */
  send(body: object, waitMs?: number): Promise<ShownCommand>;
  command(id: string): Promise<ShownCommand>;
  /** All commands that fit, newest first. */
  list(query?: Record<string, string>): Promise<ShownCommand[]>;
  counts(): Promise<{ waiting: number; pending: number; dead: number }>;
};

const requestTimeoutMs = 40_000;
const pageSize = '200';

export function createApiClient(url: string, key: string | null): ApiClient {
  async function request(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    const response = await fetch(url + path, {
      method,
      headers: {
        ...(key !== null && { authorization: `Bearer ${key}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      body: body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body),
      signal: AbortSignal.timeout(requestTimeoutMs),
    });
    const text = await response.text();
    return {
      status: response.status,
      type: response.headers.get('content-type') ?? '',
      headers: response.headers,
      body: text === '' ? {} : (JSON.parse(text) as Json),
    };
  }

  async function must(method: string, path: string, body?: unknown): Promise<Json> {
    const answer = await request(method, path, body);
    if (answer.status < 300) return answer.body;
    throw new Error(`${method} ${path} → ${answer.status} ${JSON.stringify(answer.body)}`);
  }

  return {
    request,
    async send(body, waitMs) {
      const query = waitMs === undefined ? '' : `?wait=${waitMs}`;
      return (await must('POST', `/v1/commands${query}`, body)) as ShownCommand;
    },
    command: async (id) => (await must('GET', `/v1/commands/${id}`)) as ShownCommand,
    async list(query = {}) {
      const items: ShownCommand[] = [];
      for (let cursor: string | null = null; ; ) {
        const search = new URLSearchParams({
          limit: pageSize,
          ...query,
          ...(cursor && { cursor }),
        });
        const page = await must('GET', `/v1/commands?${search}`);
        items.push(...page['items']);
        cursor = page['nextCursor'];
        if (cursor === null) return items;
      }
    },
    async counts() {
      return (await must('GET', '/v1/stats'))['queue'];
    },
  };
}
