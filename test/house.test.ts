/** The lines of ownership and the arrows between the folders, held by reading the sources. */
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, test } from 'vitest';

const root = join(import.meta.dirname, '..');
const files = globSync('{src,queues,workers,dashboard}/**/*.ts', { cwd: root }).sort();
const sources = new Map(files.map((file) => [file, readFileSync(join(root, file), 'utf8')]));

/** What may stand only in these places. */
const owners: { what: string; sample: string; pattern: RegExp; allowed: RegExp }[] = [
  {
    what: 'process.env',
    sample: 'const { PATH } = process.env;',
    pattern: /\bprocess\.env\b/,
    allowed: /^src\/config\//,
  },
  {
    what: 'new Redis, new Cluster, new Pool',
    sample: 'const pool = new pg.Pool({});',
    pattern: /\bnew (\w+\.)?(Redis|Cluster|Pool)\b/,
    allowed: /^src\/connections\//,
  },
  { what: 'new Queue', sample: "new Queue('a')", pattern: /\bnew Queue\b/, allowed: /^queues\// },
  {
    what: 'new Worker',
    sample: "new Worker('a', work)",
    pattern: /\bnew Worker\b/,
    allowed: /^workers\//,
  },
  {
    what: 'node:net and node:tls',
    sample: "import { connect } from 'node:net';",
    pattern: /^import (?!type)[^;]*from 'node:(net|tls)'/m,
    allowed: /^src\/(gateway|simulator|discovery)\//,
  },
  {
    what: 'socket.write',
    sample: 'this.socket.write(bytes);',
    pattern: /\bsocket\.write\(/,
    allowed: /^src\/(gateway\/connection\.ts|simulator\/)/,
  },
  {
    what: 'metrics instruments',
    sample: 'new Counter({})',
    pattern: /\bnew (\w+\.)?(Counter|Gauge|Histogram|Summary)\b/,
    allowed: /^src\/metrics\//,
  },
  {
    what: 'extends Error',
    sample: 'class Lost extends TypeError {',
    pattern: /\bclass \w+ extends \w*Error\b/,
    allowed: /^src\/errors\.ts$/,
  },
  {
    what: 'SQL text',
    sample: "query('SELECT 1')",
    pattern:
      /['"`]\s*(SELECT\s|INSERT INTO\s|UPDATE \w+\s+SET|DELETE FROM\s|WITH \w+ AS|(CREATE|ALTER|DROP) (TABLE|INDEX|DATABASE))/,
    allowed: /^src\/store\//,
  },
  {
    what: 'verdicts of a job',
    sample: 'throw new DelayedError();',
    pattern: /\b(DelayedError|UnrecoverableError|WaitingError)\b/,
    allowed: /^workers\/settle\.ts$/,
  },
  {
    what: 'process.exit',
    sample: 'process.exit(1);',
    pattern: /\bprocess\.exit\(/,
    allowed: /(^|\/)main\.ts$/,
  },
  {
    what: 'process.on',
    sample: "process.once('exit', end)",
    pattern: /\bprocess\.(on|once|addListener)\(/,
    allowed: /^src\/lifecycle\//,
  },
];

describe('ownership', () => {
  test.each(owners)('$what: only where it belongs', ({ pattern, allowed, sample }) => {
    expect(sample, 'the pattern has gone blind').toMatch(pattern);
    const strays = files.filter((file) => pattern.test(codeOf(file)) && !allowed.test(file));
    expect(strays).toEqual([]);
  });
});

type Layer = 'core' | 'adapter' | 'process' | 'entry' | 'cli';

/** From the top; the first that matches. */
const layers: { layer: Layer; folder: RegExp }[] = [
  { layer: 'cli', folder: /^src\/cli\// },
  { layer: 'entry', folder: /(^|\/)main\.ts$/ },
  { layer: 'process', folder: /^(src\/(gateway|api|simulator)|workers|dashboard)\// },
  { layer: 'core', folder: /^src\/(command|outcome|errors|pacer)\.ts$|^src\/protocols\// },
  { layer: 'adapter', folder: /^(src\/\w+|queues)\// },
];

const reachable: Record<Layer, readonly Layer[]> = {
  core: ['core'],
  adapter: ['core', 'adapter'],
  process: ['core', 'adapter', 'process'],
  entry: ['core', 'adapter', 'process'],
  cli: ['core', 'adapter', 'process', 'entry', 'cli'],
};

describe('imports', () => {
  test('every file is looked at', () => {
    const elsewhere = /^(test|dist|node_modules|coverage)$|^\./;
    const all = globSync('**/*.{ts,mts,cts,js,mjs,cjs,tsx,jsx}', {
      cwd: root,
      exclude: (name) => elsewhere.test(name),
    });
    const unseen = all.filter((file) => !sources.has(file) && !/^\w+\.config\.ts$/.test(file));
    expect(unseen).toEqual([]);
    for (const folder of ['workers/', 'queues/', 'dashboard/', 'src/gateway/', 'src/cli/']) {
      expect(files.some((file) => file.startsWith(folder))).toBe(true);
    }
  });

  test('every file has its layer', () => {
    expect(files.filter((file) => layerOf(file) === undefined)).toEqual([]);
    expect(files.length).toBeGreaterThan(20);
  });

  test('they point down', () => {
    const upward = edges().filter(([from, to]) => {
      return !reachable[layerOf(from) ?? 'core'].includes(layerOf(to) ?? 'cli');
    });
    expect(upward.map(([from, to]) => `${from} → ${to}`)).toEqual([]);
  });

  test('a process never imports another', () => {
    const across = edges().filter(([from, to]) => {
      const isProcess = layerOf(from) === 'process' || layerOf(from) === 'entry';
      return isProcess && layerOf(to) === 'process' && processOf(from) !== processOf(to);
    });
    expect(across.map(([from, to]) => `${from} → ${to}`)).toEqual([]);
  });

  test('the core knows no store, no socket, no logger and no clock', () => {
    const core = files.filter((file) => layerOf(file) === 'core');
    const foreign = /from '(bullmq|ioredis|pg|pino|fastify|prom-client|node:(net|tls|fs|timers))\b/;
    const clock = /\b(Date\.now|setTimeout|setInterval|performance\.now)\(/;
    const impure = core.filter((file) => foreign.test(codeOf(file)) || clock.test(codeOf(file)));
    expect(impure).toEqual([]);
  });

  test('there is no cycle', () => {
    expect(findCycle()).toBeUndefined();
  });

  test('there is no default export', () => {
    expect(files.filter((file) => /^export default\b/m.test(codeOf(file)))).toEqual([]);
  });
});

/** The file without its comments: they may speak of what the code must not do. */
function codeOf(file: string): string {
  const text = sources.get(file) ?? '';
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/(^|\s)\/\/.*$/gm, '$1');
}

function layerOf(file: string): Layer | undefined {
  return layers.find(({ folder }) => folder.test(file))?.layer;
}

/** The API and its dashboard are one process. */
function processOf(file: string): string {
  const name = /^(?:src\/)?(\w+)\//.exec(file)?.[1] ?? file;
  return name === 'dashboard' ? 'api' : name;
}

function importsOf(file: string): string[] {
  const specifiers = codeOf(file).matchAll(/(?:\bfrom|\bimport\(|^import)\s*'(\.[^']+)'/gm);
  return [...specifiers].map(([, path]) => normalize(join(dirname(file), path ?? '')));
}

function edges(): [from: string, to: string][] {
  return files.flatMap((from) => importsOf(from).map((to): [string, string] => [from, to]));
}

/** The files of the first cycle, in order; undefined when there is none. */
function findCycle(): string[] | undefined {
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): string[] | undefined => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (done.has(file)) return undefined;
    for (const next of importsOf(file)) {
      const cycle = visit(next, [...path, file]);
      if (cycle) return cycle;
    }
    done.add(file);
    return undefined;
  };
  for (const file of files) {
    const cycle = visit(file, []);
    if (cycle) return cycle;
  }
  return undefined;
}
