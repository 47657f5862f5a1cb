/** `downlink db seed`: fills a database for benchmarks and tells how far it is. */
import { SingleBar } from 'cli-progress';
import { type SeedProgress, type SeedTable, type SeedWanted, seed } from '../store/seed.ts';

export type SeedOptions = Pick<
  SeedWanted,
  'url' | 'devices' | 'orders' | 'log' | 'besideForeign'
> & { stream: NodeJS.WriteStream };

/** Resolves with how long it took. */
export async function runSeed({ stream, ...wanted }: SeedOptions): Promise<{ ms: number }> {
  const startedAt = performance.now();
  // Ports are counted by their devices.
  const progress = createSeedProgress(wanted.devices * 2 + wanted.orders + wanted.log, stream);
  try {
    await seed({ ...wanted, now: Date.now(), onProgress: progress.update });
  } finally {
    progress.end();
  }
  return { ms: performance.now() - startedAt };
}

const lineEveryMs = 1_000;

/** A bar on a terminal, a line for each table now and then elsewhere. */
function createSeedProgress(total: number, stream: NodeJS.WriteStream) {
  const done = new Map<SeedTable, number>();
  const sum = () => [...done.values()].reduce((a, b) => a + b, 0);
  if (stream.isTTY) {
    const bar = new SingleBar({
      stream,
      format: '{bar} {percentage}% · {table} · {eta_formatted} left',
      barsize: 22,
      barCompleteChar: '█',
      barIncompleteChar: '░',
      hideCursor: true,
    });
    bar.start(total, 0, { table: 'log' });
    return {
      update({ table, ...step }: SeedProgress) {
        done.set(table, step.done);
        bar.update(sum(), { table });
      },
      end: () => bar.stop(),
    };
  }
  const saidAt = new Map<SeedTable, number>();
  return {
    update({ table, of, ...step }: SeedProgress) {
      const since = performance.now() - (saidAt.get(table) ?? Number.NEGATIVE_INFINITY);
      if (step.done < of && since < lineEveryMs) return;
      saidAt.set(table, performance.now());
      stream.write(`${table} ${step.done} of ${of}\n`);
    },
    end: () => undefined,
  };
}
