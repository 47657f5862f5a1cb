/** A caller of the API that costs little: connections are kept, and an answer is text. */
import { Agent, request } from 'node:http';

export type Answer = { status: number; text: string; ms: number };
export type Caller = ReturnType<typeof createCaller>;

const sockets = 256;
const timeoutMs = 30_000;
const secret = 'bench-bench-bench-bench';

export function createCaller(addr: string) {
  const agent = new Agent({ keepAlive: true, maxSockets: sockets });
  const [host, port] = addr.split(/:(?=\d+$)/);
  return {
    post(path: string, body: object): Promise<Answer> {
      const text = JSON.stringify(body);
      const startedAt = performance.now();
      return new Promise((resolve, reject) => {
        const call = request(
          {
            agent,
            host,
            port,
            path,
            method: 'POST',
            timeout: timeoutMs,
            headers: {
              authorization: `Bearer ${secret}`,
              'content-type': 'application/json',
              'content-length': Buffer.byteLength(text),
            },
          },
          (response) => {
            const chunks: Buffer[] = [];
            response.on('data', (chunk: Buffer) => chunks.push(chunk));
            response.on('end', () => {
              resolve({
                status: response.statusCode ?? 0,
                text: Buffer.concat(chunks).toString(),
                ms: performance.now() - startedAt,
              });
            });
          },
        );
        call.on('timeout', () => {
          call.destroy(new Error(`POST ${path} was not answered within ${timeoutMs} ms`));
        });
        call.on('error', reject);
        call.end(text);
      });
    },
    close: () => agent.destroy(),
  };
}
