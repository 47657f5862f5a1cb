import { defineConfig } from 'vitest/config';
import { summaryReporter } from './test/support/summary-reporter.ts';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/bench/**', 'test/faults/full/**'],
    globalSetup: ['test/support/global-setup.ts'],
    reporters: ['default', summaryReporter()],
    // The tests share a machine with Redis, PostgreSQL and the processes they start.
    maxWorkers: 2,
    testTimeout: 20_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
  },
});
