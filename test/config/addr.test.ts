import { expect, test } from 'vitest';
import { formatAddr, parseAddr } from '../../src/config/addr.ts';

test.each([
  [':8080', { port: 8080 }],
  ['127.0.0.1:0', { host: '127.0.0.1', port: 0 }],
  ['localhost:65535', { host: 'localhost', port: 65_535 }],
  ['[::1]:9999', { host: '::1', port: 9999 }],
])('%s is an address', (text, addr) => {
  expect(parseAddr(text)).toEqual(addr);
});

test.each(['8080', ':65536', ':', '', 'host', '::1:80', 'a b:80', ':80x', 'http://a:80'])(
  '%j is no address, and the sentence says what to write',
  (text) => {
    expect(() => parseAddr(text)).toThrow(/write ":8080"/);
  },
);

test('the text of a listening address is one that a client on this machine can use', () => {
  expect(formatAddr({ address: '0.0.0.0', family: 'IPv4', port: 1 })).toBe('127.0.0.1:1');
  expect(formatAddr({ address: '::', family: 'IPv6', port: 1 })).toBe('127.0.0.1:1');
  expect(formatAddr({ address: '::1', family: 'IPv6', port: 1 })).toBe('[::1]:1');
  expect(formatAddr({ address: '10.0.0.1', family: 'IPv4', port: 1 })).toBe('10.0.0.1:1');
});
