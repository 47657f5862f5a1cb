/** Says that the circuit breaker opened: always to the log, and to a web hook no more often than a human can bear. */
import { DownlinkError, messageOf } from '../../errors.ts';
import type { Log } from '../../log/log.ts';
import type { Clock } from '../clock.ts';
import type { BreakerChange } from './breaker.ts';

export type BreakerAlert = {
  /** Every change of state of the breaker. Never throws. */
  changed(change: BreakerChange): void;
  /** Tells what is still untold, in one try, and ends. */
  close(): Promise<void>;
};

/** Sends one message; resolves to the status of the answer. */
export type Post = (url: string, body: string, signal: AbortSignal) => Promise<number>;

export type BreakerAlertDeps = {
  /** Unset: the log alone. */
  webhookUrl?: string | undefined;
  /** How long after a message further openings are counted, to be told in one. */
  coalesceMs: number;
  gatewayId: string;
  log: Log;
  clock: Clock;
  post?: Post;
  timeoutMs?: number;
  backoffMs?: number;
};

const TIMEOUT_MS = 5_000;
const BACKOFF_MS = 1_000;
const MAX_TRIES = 3;

export function createBreakerAlert({
  webhookUrl,
  coalesceMs,
  gatewayId,
  log,
  clock,
  post = postJson,
  timeoutMs = TIMEOUT_MS,
  backoffMs = BACKOFF_MS,
}: BreakerAlertDeps): BreakerAlert {
  let openings = 0;
  let untold = 0;
  let last: BreakerChange | null = null;
  let quietUntil = Number.NEGATIVE_INFINITY;
  let cancelQuiet: (() => void) | null = null;
  /** The message on its way: never more than one, so a slow hook piles up nothing. */
  let sending: Promise<void> | null = null;
  let endBackoff: (() => void) | null = null;
  let closed = false;

  function changed(change: BreakerChange): void {
    const { from, failures } = change;
    if (change.to !== 'open') {
      log.info({ gatewayId, from, failures }, `circuit breaker ${change.to}`);
      return;
    }
    openings += 1;
    log.error({ gatewayId, from, failures, openings }, 'circuit breaker opened');
    if (webhookUrl === undefined || closed) return;
    untold += 1;
    last = change;
    tellWhenDue(webhookUrl);
  }

  function tellWhenDue(url: string): void {
    if (untold === 0 || sending || closed) return;
    const waitMs = quietUntil - clock.ticks();
    if (waitMs > 0) {
      cancelQuiet ??= clock.after(waitMs, () => {
        cancelQuiet = null;
        tellWhenDue(url);
      });
      return;
    }
    quietUntil = clock.ticks() + coalesceMs;
    sending = send(url, takeMessage()).finally(() => {
      sending = null;
      tellWhenDue(url);
    });
  }

  function takeMessage(): string {
    const { failures, at } = last!;
    const told = untold;
    untold = 0;
    return JSON.stringify({
      event: 'breaker.opened',
      gatewayId,
      at: new Date(at).toISOString(),
      failures,
      openings: told,
      sentence: sentenceOf(gatewayId, told, failures),
    });
  }

  async function send(url: string, body: string): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      const problem = await attempt(url, body);
      if (!problem) return;
      if (tries >= MAX_TRIES || closed || !problem.isPassing) {
        const { host } = new URL(url);
        // The path of a web hook is often its secret.
        log.warn({ host, tries, error: problem.message }, 'breaker alert was not delivered');
        return;
      }
      await backoff(backoffMs * 2 ** (tries - 1));
    }
  }

  async function attempt(url: string, body: string): Promise<Problem | null> {
    try {
      const status = await post(url, body, AbortSignal.timeout(timeoutMs));
      if (status >= 200 && status < 300) return null;
      const isPassing = status >= 500 || status === 408 || status === 429;
      return { message: `the web hook answered ${status}`, isPassing };
    } catch (error) {
      return { message: messageOf(error), isPassing: true };
    }
  }

  async function backoff(delayMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const cancel = clock.after(delayMs, resolve);
      endBackoff = () => {
        cancel();
        resolve();
      };
    });
    endBackoff = null;
  }

  return {
    changed,
    async close() {
      closed = true;
      cancelQuiet?.();
      cancelQuiet = null;
      endBackoff?.();
      await sending;
      if (webhookUrl !== undefined && untold > 0) await send(webhookUrl, takeMessage());
    },
  };
}

/** Why a message did not arrive, and whether that may pass. */
type Problem = { message: string; isPassing: boolean };

function sentenceOf(gatewayId: string, openings: number, failures: number): string {
  const times = openings === 1 ? '' : ` ${openings} times`;
  const last = openings === 1 ? '' : ' the last time';
  const count = failures === 1 ? '1 failure' : `${failures} failures`;
  return `gateway ${gatewayId} opened its circuit breaker${times},${last} after ${count} of its own, and refused new connections`;
}

async function postJson(url: string, body: string, signal: AbortSignal): Promise<number> {
  try {
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
      signal,
      // A hook that moved would get a GET without the body, and call it a success.
      redirect: 'manual',
    });
    await response.body?.cancel();
    return response.status;
  } catch (cause) {
    const why = cause instanceof Error && cause.cause ? messageOf(cause.cause) : messageOf(cause);
    throw new DownlinkError('TIMEOUT', `the web hook did not answer: ${why}`, { cause });
  }
}
