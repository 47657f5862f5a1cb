import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { loadConfig } from '../../src/config/config.ts';
import { envExample, yamlExample } from '../../src/config/examples.ts';
import { keys, settings } from '../../src/config/settings.ts';

const root = new URL('../../', import.meta.url);
const envFile = readFileSync(new URL('.env.example', root), 'utf8');
const yamlFile = readFileSync(new URL('downlink.example.yaml', root), 'utf8');

test('.env.example and downlink.example.yaml say what the settings say', () => {
  expect(envFile).toBe(envExample());
  expect(yamlFile).toBe(yamlExample());
});

test('downlink.example.yaml holds every key once', () => {
  const leaves = (tree: object, prefix: string): string[] =>
    Object.entries(tree).flatMap(([name, value]: [string, unknown]) =>
      typeof value === 'object' && value !== null
        ? leaves(value, `${prefix}${name}.`)
        : [`${prefix}${name}`],
    );
  const found = leaves(parse(yamlFile) as object, '');
  expect(found.sort()).toEqual([...keys].sort());
});

test('both files, used as they are, give the defaults', () => {
  const env = Object.fromEntries(
    [...envFile.matchAll(/^#([A-Z_]+)=(.*)$/gm)].map(([, name, value]) => [name!, value!]),
  );
  const file = new URL('downlink.example.yaml', root).pathname;
  const own = { env: { DOWNLINK_GATEWAY_ID: 'gw' }, cwd: '/' };
  const defaults = loadConfig(own);
  expect(loadConfig({ env: { ...env, ...own.env }, cwd: '/' })).toEqual(defaults);
  expect(loadConfig({ ...own, env: { ...own.env, DOWNLINK_CONFIG: file } })).toEqual(defaults);
});

test('variables without a conventional name are called after their key', () => {
  const conventional = [
    ['REDIS_URL', 'DATABASE_URL', 'HTTP_ADDR', 'TCP_ADDR', 'GATEWAY_ADMIN_ADDR'],
    ['WORKER_ADMIN_ADDR', 'TLS_ADDR', 'LOG_LEVEL', 'API_KEYS', 'BOARD_USERS'],
  ].flat();
  for (const key of keys) {
    const name = key.replaceAll('.', '_').toUpperCase();
    expect(conventional.includes(name) ? name : `DOWNLINK_${name}`).toBe(settings[key].env);
  }
});
