/** Every protocol there is: one line each. */
import { ap3000 } from './ap3000/index.ts';
import { bkv } from './bkv/index.ts';
import type { Protocol } from './protocol.ts';

export const protocols: readonly Protocol[] = [bkv, ap3000];

/** The protocol of that name, or undefined. */
export function protocolNamed(name: string): Protocol | undefined {
  return protocols.find((protocol) => protocol.name === name);
}
