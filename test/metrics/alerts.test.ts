/** The alert rules and the operator's guide name what there is: metrics, reasons, settings. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { settings } from '../../src/config/settings.ts';
import { closeReasons, createCounts, loginFailures } from '../../src/gateway/counts.ts';
import { createMetrics } from '../../src/metrics/metrics.ts';

type Rule = {
  alert: string;
  expr: string;
  for?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
};

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const { groups } = parse(read('dashboard/alerts.yml')) as {
  groups: { name: string; rules: Rule[] }[];
};
const rules = groups.flatMap((group) => group.rules);
const refusals = Object.keys(createCounts([]).refused);

/** Label values a `reason` of these metrics may have. */
const reasonsOf: Record<string, readonly string[]> = {
  tcp_connections_rejected: refusals,
  tcp_connections_closed_total: closeReasons,
  gateway_login_failures_total: loginFailures,
};

/** Every metric that any process exposes, with its labels. */
function exposed(): Map<string, readonly string[]> {
  const metrics = createMetrics('all');
  metrics.observeQueue(async () => ({ waiting: 0, pending: 0, dead: 0 }));
  metrics.observeTcp(() => ({
    connections: 0,
    maxConnections: 1,
    waiting: 0,
    breakerState: 0,
    breakerFailures: 0,
    banned: 0,
  }));
  metrics.observeCertificate(() => null);
  metrics.observeFlushBacklog(() => 0);
  metrics.observePool({ totalCount: 0, idleCount: 0, waitingCount: 0 });
  const found = new Map<string, readonly string[]>();
  for (const metric of metrics.registry.getMetricsAsArray()) {
    // prom-client keeps them, and its types do not say so
    const { labelNames = [] } = metric as unknown as { labelNames?: readonly string[] };
    found.set(metric.name, labelNames);
  }
  return found;
}

const words = new Set(['and', 'or', 'unless', 'on', 'ignoring', 'bool', 'by', 'without']);

/** The metrics of an expression: names that are no function, keyword, label or duration. */
function metricsIn(expr: string): string[] {
  const bare = expr
    .replace(/\{[^}]*\}/g, ' ')
    .replace(/\[[^\]]*\]/g, ' ')
    .replace(/\b(by|without|on|ignoring)\s*\([^)]*\)/g, ' ');
  const names = bare.match(/[a-zA-Z_:][\w:]*(?!\w|\s*\()/g) ?? [];
  return names.filter((name) => !words.has(name));
}

describe('every alert rule', () => {
  const metrics = exposed();

  test('is one of several, each with a name of its own', () => {
    expect(rules.length).toBeGreaterThan(10);
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
    for (const { alert } of rules) expect(alert).toMatch(/^Downlink[A-Z]\w+$/);
  });

  test('would be found out if it named a metric that is not there', () => {
    expect(
      metricsIn('sum by (instance) (increase(a_total{b="c"}[5m])) / d > 0.9 and e < 1'),
    ).toEqual(['a_total', 'd', 'e']);
    expect(metricsIn('f - time() < 14 * 86400')).toEqual(['f']);
  });

  test.each(rules)('$alert: names metrics that are exposed', ({ expr }) => {
    const names = metricsIn(expr);
    expect(names).not.toEqual([]);
    expect(names.filter((name) => !metrics.has(name))).toEqual([]);
  });

  test.each(rules)('$alert: selects and groups by labels and reasons that exist', ({ expr }) => {
    // what Prometheus adds itself
    const known = new Set(['instance', 'job', ...metricsIn(expr).flatMap((n) => metrics.get(n)!)]);
    const grouped = [...expr.matchAll(/\bby\s*\(([^)]*)\)/g)].flatMap(([, list]) =>
      list!.split(',').map((label) => label.trim()),
    );
    expect(grouped.filter((label) => !known.has(label))).toEqual([]);
    for (const [, name, selector] of expr.matchAll(/(\w+)\{([^}]*)\}/g)) {
      const [, label, values] = /^(\w+)=~?"([^"]*)"$/.exec(selector!) ?? [];
      expect(label, `${selector} is a selector of one label`).toBe('reason');
      expect(values!.split('|').filter((value) => !reasonsOf[name!]!.includes(value))).toEqual([]);
    }
  });

  test.each(rules)('$alert: says what happens, what to do, and how urgent it is', (rule) => {
    const { labels = {}, annotations = {} } = rule;
    const { summary = '', description = '' } = annotations;
    expect(Object.keys(rule).filter((key) => !ruleKeys.has(key))).toEqual([]);
    expect(['critical', 'warning']).toContain(labels['severity']);
    expect(summary).toMatch(/\S/);
    expect(summary.length).toBeLessThan(120);
    expect(description.length).toBeGreaterThan(80);
    expect(rule.for ?? '0m').toMatch(/^\d+m$/);
  });

  const ruleKeys = new Set(['alert', 'expr', 'for', 'labels', 'annotations']);

  test.each(rules)('$alert: fills in labels that its expression leaves', (rule) => {
    const text = JSON.stringify(rule.annotations);
    const used = [...text.matchAll(/\$labels\.(\w+)/g)].map(([, label]) => label!);
    const aggregated = /\b(sum|max|min|avg)\b/.test(rule.expr);
    const kept = /\bby\s*\(([^)]*)\)/.exec(rule.expr)?.[1]?.split(/\s*,\s*/) ?? [];
    expect(
      used.filter((label) => (aggregated ? !kept.includes(label) : label !== 'instance')),
    ).toEqual([]);
  });

  test('speaks of settings that exist', () => {
    const texts = [JSON.stringify(rules), read('docs/gateway.md')].join('\n');
    const named = texts.match(/\b(tcp|tls|gateway|alerts|devices)\.[a-z_]+(\.[a-z_]+)?\b/g) ?? [];
    expect(named.length).toBeGreaterThan(20);
    const groupsOfKeys = new Set(Object.keys(settings).map((key) => key.replace(/\.\w+$/, '')));
    const strays = named.filter(
      (key) => !(key in settings) && !groupsOfKeys.has(key) && !isFile(key),
    );
    expect([...new Set(strays)]).toEqual([]);
  });

  const isFile = (name: string) => /\.(ts|md|yml|pem|key|csr|ext)$/.test(name);
});

describe('the operator’s guide', () => {
  const guide = read('docs/gateway.md');

  test.each([...new Set([...refusals, ...closeReasons, ...loginFailures])])(
    'says what %s means',
    (reason) => {
      expect(guide).toMatch(new RegExp(`^\\|.*\`${reason}\``, 'm'));
    },
  );

  test('names metrics that are exposed', () => {
    const metrics = exposed();
    const named = guide.match(/`(tcp|circuit|rate|gateway|process|nodejs)_\w+/g) ?? [];
    expect(named.length).toBeGreaterThan(12);
    expect(named.map((name) => name.slice(1)).filter((name) => !metrics.has(name))).toEqual([]);
  });
});
