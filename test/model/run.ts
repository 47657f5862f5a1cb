/**
 * The model-based test by command: `npm run test:model -- --runs 10000 --seed 5`. Each option stands for one of
 * the variables that `model.test.ts` names.
 */
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    runs: { type: 'string' },
    seed: { type: 'string' },
    path: { type: 'string' },
    batch: { type: 'string' },
    replay: { type: 'string' },
    report: { type: 'string' },
    without: { type: 'string' },
    'keep-going': { type: 'boolean' },
    reduce: { type: 'boolean' },
  },
});

const env = Object.entries(values).map(([name, value]) => [
  `MODEL_${name.toUpperCase().replaceAll('-', '_')}`,
  value === true ? '1' : String(value),
]);
const vitest = ['node_modules/vitest/vitest.mjs', 'run', 'test/model'];
const { status } = spawnSync(process.execPath, vitest, {
  stdio: 'inherit',
  env: { ...process.env, ...Object.fromEntries(env) },
});
process.exitCode = status ?? 1;
