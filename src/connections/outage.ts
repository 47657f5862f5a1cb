/** Tells an outage, which passes, from an answer, which does not. */

const transientReplies =
  /^(LOADING|READONLY|BUSY|TRYAGAIN|CLUSTERDOWN|MASTERDOWN|NOREPLICAS|MISCONF|OOM)/;
const connectionMessages =
  /connection is (closed|in closing)|isn't writeable|max retries per request|socket timeout|command timed out|connection (terminated|ended)/i;
const connectionCodes = /^E(CONN|PIPE|TIMEDOUT|HOSTUNREACH|NETUNREACH|AI_AGAIN)/;

/** True when Redis did not answer, or answered that it cannot now: trying again makes sense. */
export function isRedisOutage(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error.name === 'ReplyError') return transientReplies.test(error.message);
  if (error.name === 'MaxRetriesPerRequestError' || error.name === 'AbortError') return true;
  const { code } = error as { code?: unknown };
  if (typeof code === 'string' && connectionCodes.test(code)) return true;
  return connectionMessages.test(error.message);
}
