import type { AddressInfo } from 'node:net';

export type Addr = { host?: string; port: number };

const ADDR = /^(?:\[([0-9a-f:.]+)\]|([^:[\]\s]*)):(\d{1,5})$/i;
const PORT_MAX = 65_535;
/** What an address without a host listens on. `[::]:8080` asks for IPv6 as well. */
export const ALL_INTERFACES = '0.0.0.0';

/** `:8080`, `127.0.0.1:0`, `[::1]:8080`. Throws a sentence on anything else. */
export function parseAddr(text: string): Addr {
  const [, v6, name, digits] = ADDR.exec(text) ?? [];
  const port = Number(digits ?? Number.NaN);
  if (!(port <= PORT_MAX)) {
    throw new Error(`"${text}" is no address; write ":8080" or "127.0.0.1:8080", port 0 to 65535`);
  }
  const host = v6 ?? name;
  return host ? { host, port } : { port };
}

/** The text of an address somebody listens on, as a client on this machine would write it. */
export function formatAddr({ address, family, port }: AddressInfo): string {
  if (address === ALL_INTERFACES || address === '::') return `127.0.0.1:${port}`;
  return family === 'IPv6' ? `[${address}]:${port}` : `${address}:${port}`;
}
