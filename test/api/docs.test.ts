import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { protocolNamed } from '../../src/protocols/index.ts';
import { buildApi } from './build.ts';

type Operation = {
  operationId?: string;
  summary?: string;
  security?: unknown[];
  requestBody?: {
    content: Record<string, { example?: unknown; examples?: Record<string, { value: unknown }> }>;
  };
  responses: Record<string, { description?: string; content?: Record<string, { schema: object }> }>;
};

let api: ReturnType<typeof buildApi>;
let document: { openapi: string; paths: Record<string, Record<string, Operation>> };

beforeAll(async () => {
  api = buildApi();
  document = (await api.call('nobody', 'GET', '/docs/json')).json;
});
afterAll(() => api.app.close());

const operations = () =>
  Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  );

describe('the OpenAPI document', () => {
  it('covers every route but the pages and the board', async () => {
    expect(document.openapi).toBe('3.1.0');
    const routed = routesOf(api.app.printRoutes({ commonPrefix: false }));
    const own = routed.filter((route) => !/ \/(docs|admin)/.test(route));
    expect(own.length).toBeGreaterThan(10);
    expect(
      operations()
        .map(({ path, method }) => `${method} ${path}`)
        .sort(),
    ).toEqual(own.sort());
  });

  it('describes every operation with a summary, its answers and examples', () => {
    const ids = new Set<string>();
    for (const { path, method, operation } of operations()) {
      const name = `${method} ${path}`;
      expect(operation.summary, name).toBeTruthy();
      expect(operation.operationId, name).toBeTruthy();
      ids.add(operation.operationId!);
      const statuses = Object.keys(operation.responses);
      expect(
        statuses.some((status) => status === '200' || status === '204'),
        name,
      ).toBe(true);
      if (path.startsWith('/v1')) expect(statuses).toEqual(expect.arrayContaining(['401', '403']));
      else expect(operation.security, name).toEqual([]);
      for (const [status, { description, content }] of Object.entries(operation.responses)) {
        expect(description, `${name} ${status}`).toBeTruthy();
        if (status === '204') continue;
        const [media] = Object.values(content ?? {});
        expect(JSON.stringify(media), `${name} ${status}`).toMatch(/"examples?":/);
      }
    }
    expect(ids.size).toBe(operations().length);
  });

  it('asks by examples that work, and shows commands that there are', async () => {
    const device = '82200520004869';
    await api.memory.devices.register(device, 'bkv');
    const asked: Record<string, number> = {};
    for (const { path, method, operation } of operations()) {
      const media = operation.requestBody?.content['application/json'];
      if (!media) continue;
      const several = Object.values(media.examples ?? {}).map(({ value }) => value);
      for (const example of [...several, ...(media.example ? [media.example] : [])]) {
        const url = path.replace('{id}', device).replace('{key}', 'nightly');
        const answer = await api.call('admin', method.toUpperCase(), url, example);
        asked[`${method} ${path}`] = answer.status;
      }
    }
    expect(asked).toEqual({
      'post /v1/commands': 202,
      'post /v1/commands/batch': 200,
      // The id is a device's here: no such command.
      'post /v1/commands/{id}/retry': 404,
      'delete /v1/dead': 200,
      'post /v1/dead/replay': 200,
      'put /v1/devices/{id}': 200,
      'post /v1/devices/{id}/pause': 202,
      'put /v1/schedules/{key}': 201,
    });
    const shown = [
      ...JSON.stringify(document).matchAll(/"protocol":"(\w+)","command":"([\w.]+)"/g),
    ];
    expect(shown.length).toBeGreaterThan(2);
    for (const [, protocol, command] of shown) {
      expect(Object.keys(protocolNamed(protocol!)?.commands ?? {})).toContain(command);
    }
  });

  it('is served as a page that the security headers let work', async () => {
    const page = await api.call('nobody', 'GET', '/docs/');
    expect(page.status).toBe(200);
    expect(page.headers['content-security-policy']).toContain("script-src 'self'");
    expect(page.headers['content-security-policy']).not.toContain('upgrade-insecure-requests');
    expect(page.headers['x-content-type-options']).toBe('nosniff');
  });
});

/** The printed tree as `method /path`. */
function routesOf(tree: string): string[] {
  const above: string[] = [];
  return tree.split('\n').flatMap((line) => {
    const [, indent, segment, methods] = /^(.*)[└├]── (\S*)(?: \(([A-Z, ]+)\))?/.exec(line) ?? [];
    if (indent === undefined) return [];
    above.length = indent.length / 4;
    above.push(segment ?? '');
    const path = above.join('').replaceAll(/:(\w+)/g, '{$1}');
    return (methods ?? '')
      .split(', ')
      .filter((method) => method !== '' && method !== 'HEAD')
      .map((method) => `${method.toLowerCase()} ${path}`);
  });
}
