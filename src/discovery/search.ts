/** What is searched for, and what was found. */
import type { Env } from './machine.ts';
import type { PrivateServer } from './private-server.ts';

/** url: told by configuration · system: a program on this machine · packages: unpacked into a cache. */
export const sources = ['url', 'system', 'packages'] as const;
export type Source = (typeof sources)[number];

export type Found = {
  url: string;
  source: Source;
  /** Which program, or which setting. */
  detail: string;
  /** The process, when it is ours. */
  server: PrivateServer | null;
  /** Ends what was started; nothing for a server that was only named. */
  stop(): Promise<void>;
};

export type Search = {
  env: Env;
  redisUrl: string | undefined;
  databaseUrl: string | undefined;
  dataDir: string | undefined;
  allow: readonly Source[];
  durable: boolean;
  announce: (sentence: string) => void;
};
