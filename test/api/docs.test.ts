import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildApi } from './build.ts';

type Operation = {
  operationId?: string;
  summary?: string;
  security?: unknown[];
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
      expect(statuses, name).toContain('200');
      if (path.startsWith('/v1')) expect(statuses).toEqual(expect.arrayContaining(['401', '403']));
      else expect(operation.security, name).toEqual([]);
      for (const [status, { description, content }] of Object.entries(operation.responses)) {
        expect(description, `${name} ${status}`).toBeTruthy();
        const [media] = Object.values(content ?? {});
        expect(JSON.stringify(media), `${name} ${status}`).toMatch(/"examples?":/);
      }
    }
    expect(ids.size).toBe(operations().length);
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
