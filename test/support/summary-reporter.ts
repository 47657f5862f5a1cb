import type { Reporter, TestModule } from 'vitest/node';

/** Ends the output with `N passed, N failed`; whatever broke a run counts as a failure. */
export function summaryReporter(): Reporter {
  return {
    onTestRunEnd(modules, unhandledErrors, reason) {
      const states = modules.flatMap(statesOf);
      const count = (state: string) => states.filter((each) => each === state).length;
      const counted = count('failed') + unhandledErrors.length;
      // A run that broke before its first test is no success either.
      const failed = reason === 'passed' ? counted : Math.max(counted, 1);
      process.stdout.write(`\n${count('passed')} passed, ${failed} failed\n`);
    },
  };
}

/** A module that broke outside its tests counts as one failed test. */
function statesOf(module: TestModule): string[] {
  const states: string[] = [...module.children.allTests()].map((test) => test.result().state);
  const broken = module.state() === 'failed' && !states.includes('failed');
  return broken ? [...states, 'failed'] : states;
}
