import { expect, test } from 'vitest';
import { createTurns, type TurnTarget } from '../../src/gateway/turns.ts';

test('connections take turns, and the loop is given back within each round', async () => {
  const turns = createTurns({ budgetMs: 0.01 });
  const told: string[] = [];
  const flood = (name: string): TurnTarget => {
    let left = 50;
    const target: TurnTarget = {
      onTurn() {
        told.push(name);
        const until = performance.now() + 0.02;
        while (performance.now() < until);
        left -= 1;
        if (left > 0) turns.add(target);
      },
    };
    return target;
  };
  turns.add(flood('a'));
  turns.add(flood('b'));
  let looks = 0;
  while (told.length < 100) {
    await new Promise((resolve) => setImmediate(resolve));
    looks += 1;
  }
  expect(looks).toBeGreaterThan(20);
  for (let i = 0; i < 100; i += 2)
    expect(new Set(told.slice(i, i + 2))).toEqual(new Set(['a', 'b']));
});

test('a stopped queue calls nobody', async () => {
  const turns = createTurns();
  let called = 0;
  turns.add({
    onTurn() {
      called += 1;
    },
  });
  turns.stop();
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(called).toBe(0);
});
