/** Does things at a steady rate, whether earlier ones have ended or not: a queue that builds up is not hidden. */
export async function atRate<T>(
  perSecond: number,
  items: readonly T[],
  doIt: (item: T) => Promise<void>,
): Promise<void> {
  const startedAt = performance.now();
  const running: Promise<void>[] = [];
  for (let next = 0; next < items.length; ) {
    const due = Math.min(
      items.length,
      Math.floor(((performance.now() - startedAt) / 1000) * perSecond) + 1,
    );
    for (; next < due; next += 1) running.push(doIt(items[next]!));
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await Promise.all(running);
}
