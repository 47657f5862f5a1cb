/**
 * The attacks by command, with as many peers as wanted and one attack at a time:
 * `npm run test:faults -- --peers 5000 --case silent`. Each option stands for one of the variables that
 * `attacks.test.ts` names.
 */
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: { peers: { type: 'string', default: '2000' }, case: { type: 'string' } },
});

const vitest = ['node_modules/vitest/vitest.mjs', 'run', 'test/faults/attacks.test.ts'];
const { status } = spawnSync(process.execPath, vitest, {
  stdio: 'inherit',
  env: {
    ...process.env,
    ATTACKS_PEERS: values.peers,
    ...(values.case !== undefined && { ATTACKS_CASE: values.case }),
  },
});
process.exitCode = status ?? 1;
