import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Config, type ConfigSources, loadConfig } from '../../src/config/config.ts';
import { DownlinkError } from '../../src/errors.ts';

let cwd: string;
beforeEach(() => {
  cwd = mkdtempSync(join(tmpdir(), 'downlink-config-'));
});
afterEach(() => rmSync(cwd, { recursive: true, force: true }));

function load(sources: ConfigSources = {}): Config {
  return loadConfig({ env: {}, cwd, ...sources });
}

function faultsOf(sources: ConfigSources): string[] {
  try {
    load(sources);
  } catch (error) {
    expect(error).toBeInstanceOf(DownlinkError);
    expect(error).toMatchObject({ code: 'CONFIG_INVALID' });
    return (error as DownlinkError).details['faults'] as string[];
  }
  throw new Error('the configuration was accepted');
}

describe('defaults', () => {
  test('an empty environment gives the conventional addresses and no stores', () => {
    expect(load()).toMatchObject({
      redis: { url: undefined, prefix: 'dl' },
      database: { url: undefined, poolMax: 20, poolMin: 5 },
      http: { addr: ':8080' },
      tcp: { addr: ':9999', loginTimeoutMs: 10_000, idleFactor: 2.5, maxUnsentBytes: 65_536 },
      gateway: { leaseMs: 10_000, drainMs: 15_000, adminAddr: ':9101' },
      worker: { drainMs: 20_000, adminAddr: ':9102' },
      outbound: { shards: 4, concurrency: 2000 },
      log: { level: 'info' },
      api: { keys: [] },
      board: { users: [] },
    });
  });

  test('every process gets a gateway id of its own', () => {
    expect(load().gateway.id).toMatch(/^gw-[0-9a-f]{6}$/);
    expect(load().gateway.id).not.toBe(load().gateway.id);
  });
});

describe('precedence', () => {
  test('the environment wins over the file', () => {
    writeFileSync(
      join(cwd, 'downlink.yaml'),
      'tcp: { addr: ":1" }\nhttp: { addr: ":2" }\ngateway:\n  admin_addr: ":3"\n',
    );
    const config = load({ env: { HTTP_ADDR: ':20' } });
    expect(config.tcp.addr).toBe(':1');
    expect(config.http.addr).toBe(':20');
    expect(config.gateway.adminAddr).toBe(':3');
  });

  test('DOWNLINK_CONFIG names another file', () => {
    writeFileSync(join(cwd, 'other.yaml'), 'outbound: { shards: 7 }');
    expect(load({ env: { DOWNLINK_CONFIG: 'other.yaml' } }).outbound.shards).toBe(7);
  });

  test('a variable that is set to nothing and an empty key count as not set', () => {
    writeFileSync(join(cwd, 'downlink.yaml'), 'redis:\n  url:\n');
    const config = load({ env: { HTTP_ADDR: '' } });
    expect(config.http.addr).toBe(':8080');
    expect(config.redis.url).toBeUndefined();
  });

  test('an empty file is no fault', () => {
    writeFileSync(join(cwd, 'downlink.yaml'), '# nothing yet\n');
    expect(load().http.addr).toBe(':8080');
  });
});

describe('faults', () => {
  test('all faults of all sources are told at once, unknown keys with the nearest valid one', () => {
    writeFileSync(
      join(cwd, 'downlink.yaml'),
      'gateway: { lease_mss: 5 }\noutbound: { shards: 0 }\n',
    );
    const faults = faultsOf({
      env: { HTTP_ADDR: 'nowhere', DOWNLINK_OUTBOUND_SHARD: '2', PATH: '/bin', HOME: '/root' },
    });
    expect(faults).toHaveLength(4);
    expect(faults).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/gateway\.lease_mss is no setting; .*gateway\.lease_ms$/),
        expect.stringMatching(/outbound\.shards: "0" is no whole number from 1 to 256/),
        expect.stringMatching(/^HTTP_ADDR: "nowhere" is no address/),
        expect.stringMatching(
          /^DOWNLINK_OUTBOUND_SHARD is no setting; .*DOWNLINK_OUTBOUND_SHARDS$/,
        ),
      ]),
    );
  });

  test('half a name is completed, though another one is nearer by its letters', () => {
    expect(faultsOf({ env: { DOWNLINK_TCP_IDLE: '2' } })).toEqual([
      'DOWNLINK_TCP_IDLE is no setting; the nearest is DOWNLINK_TCP_IDLE_FACTOR',
    ]);
  });

  test('our prefix before a conventional name is a fault that names the conventional one', () => {
    expect(faultsOf({ env: { DOWNLINK_REDIS_URL: 'redis://x' } })).toEqual([
      'DOWNLINK_REDIS_URL is no setting; the nearest is REDIS_URL',
    ]);
  });

  test('a file that is named but missing, or is no YAML, is a fault with its path', () => {
    expect(faultsOf({ env: { DOWNLINK_CONFIG: 'gone.yaml' } })[0]).toMatch(/^gone\.yaml: .*ENOENT/);
    writeFileSync(join(cwd, 'downlink.yaml'), 'a: [1');
    expect(faultsOf({})[0]).toMatch(/^downlink\.yaml: /);
    writeFileSync(join(cwd, 'downlink.yaml'), '- a\n- b\n');
    expect(faultsOf({})[0]).toMatch(/is no mapping/);
    writeFileSync(join(cwd, 'downlink.yaml'), 'redis: { url: { host: x } }');
    expect(faultsOf({})[0]).toMatch(/redis\.url is a mapping where one value is expected/);
  });

  test('a section that was given one value is a fault', () => {
    writeFileSync(join(cwd, 'downlink.yaml'), 'redis: redis://127.0.0.1');
    expect(faultsOf({})[0]).toMatch(/redis is no setting; the nearest is redis\.url/);
  });

  test('a store URL of another kind is refused without repeating its password', () => {
    const [fault] = faultsOf({ env: { REDIS_URL: 'http://user:hunter2@host' } });
    expect(fault).toMatch(/^REDIS_URL: is no URL that begins with redis:\/\//);
    expect(fault).not.toContain('hunter2');
  });

  test('a pool cannot keep more connections than it may open', () => {
    const env = { DOWNLINK_DATABASE_POOL_MAX: '3', DOWNLINK_DATABASE_POOL_MIN: '4' };
    expect(faultsOf({ env })[0]).toMatch(/pool_min \(4\) is more than database\.pool_max \(3\)/);
  });

  test.each(['1.5', '-1', 'many', '1e3', ' 4', '0x10', '99999999999'])(
    '%j is no whole number of shards',
    (text) => {
      expect(faultsOf({ env: { DOWNLINK_OUTBOUND_SHARDS: text } })).toHaveLength(1);
    },
  );
});

describe('API keys and board users', () => {
  test('entries are split at their first and last colon', () => {
    const env = {
      API_KEYS: 'app:s3cret:with:colons-1234:read+send, ops:0123456789abcdef:admin',
      BOARD_USERS: 'ann:pass:word:viewer,bob:other:admin',
    };
    const { api, board } = load({ env });
    expect(api.keys).toEqual([
      { name: 'app', secret: 's3cret:with:colons-1234', scopes: ['read', 'send'] },
      { name: 'ops', secret: '0123456789abcdef', scopes: ['admin'] },
    ]);
    expect(board.users).toEqual([
      { name: 'ann', password: 'pass:word', role: 'viewer' },
      { name: 'bob', password: 'other', role: 'admin' },
    ]);
  });

  test('the file may hold them as a list', () => {
    writeFileSync(
      join(cwd, 'downlink.yaml'),
      'api:\n  keys:\n    - a:0123456789abcdef:read\n    - b:fedcba9876543210:send\n',
    );
    expect(load().api.keys.map(({ name }) => name)).toEqual(['a', 'b']);
  });

  test.each([
    ['a short secret', 'a:short:read', /length 5; it needs at least 16/],
    ['an unknown scope', 'a:0123456789abcdef:write', /"write" is none of read, send, admin/],
    ['a missing part', 'a:0123456789abcdef', /entry 1 is not of the form/],
    ['a name twice', 'a:0123456789abcdef:read,a:fedcba9876543210:read', /"a" is given twice/],
    ['a secret twice', 'a:0123456789abcdef:read,b:0123456789abcdef:read', /same secret/],
  ])('%s is refused without repeating the secret', (_case, text, expected) => {
    const [fault] = faultsOf({ env: { API_KEYS: text } });
    expect(fault).toMatch(expected);
    expect(fault).not.toMatch(/0123456789abcdef|short:|fedcba/);
  });
});

describe('the gateway', () => {
  test('times carry their unit, and a bare number is seconds', () => {
    const { tcp, alerts } = load({
      env: {
        DOWNLINK_TCP_WAIT: '500ms',
        DOWNLINK_TCP_BREAKER_TIMEOUT: '45',
        DOWNLINK_ALERTS_COALESCE: '1.5m',
      },
    });
    expect([tcp.waitMs, tcp.breaker.timeoutMs, alerts.coalesceMs]).toEqual([500, 45_000, 90_000]);
    expect(faultsOf({ env: { DOWNLINK_TCP_WAIT: '5 parsecs' } })).toEqual([
      'DOWNLINK_TCP_WAIT: "5 parsecs" is no time from 0 ms to 86400000 ms, such as 500ms, 30s or 5m',
    ]);
  });

  test('limits stand in the file under the keys of their section', () => {
    writeFileSync(
      join(cwd, 'downlink.yaml'),
      'tcp:\n  max_connections: 7\n  reuse_port: true\n  breaker:\n    threshold: 3\n    timeout: 2s\n',
    );
    const { tcp } = load();
    expect(tcp).toMatchObject({ maxConnections: 7, reusePort: true });
    expect(tcp.breaker).toEqual({ threshold: 3, timeoutMs: 2_000, halfOpenMax: 5 });
  });

  test('a TLS port without certificates is refused with all that is missing', () => {
    const env = {
      TLS_ADDR: ':9443',
      DOWNLINK_TLS_CLIENT_CERT: 'required',
      DOWNLINK_TCP_REUSE_PORT: 'yes',
    };
    expect(faultsOf({ env })).toEqual([
      'DOWNLINK_TCP_REUSE_PORT: "yes" is neither true nor false',
      'tls.addr is set, so tls.cert and tls.key must name the files of the certificate',
      'tls.client_cert is required, so tls.ca must name who signs the certificates',
    ]);
    expect(faultsOf({ env: { DOWNLINK_TLS_SUBJECT_DEVICE_ID: 'true' } })).toEqual([
      'tls.subject_device_id needs tls.client_cert to be optional or required',
    ]);
  });
});
