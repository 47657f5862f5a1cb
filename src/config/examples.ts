/** The two example files, written from the settings so that they cannot drift from them. */
import { stringify } from 'yaml';
import { type Key, keys, otherVariables, settings } from './settings.ts';

/** `.env.example`. */
export function envExample(): string {
  const lines = [
    '# Every variable, with its default. Copy to .env what differs, and name that file at the start:',
    '# node --env-file=.env src/cli/main.ts start (installed: node_modules/downlink/dist/src/cli/main.js).',
    '# Docker Compose reads .env by itself, but hands on only API_KEYS, BOARD_USERS and LOG_LEVEL of these.',
  ];
  for (const key of keys) {
    const { env, about, initial } = settings[key];
    lines.push('', `# ${about} (${key})`, `#${env}=${initial ?? ''}`);
  }
  for (const [env, about] of Object.entries(otherVariables))
    lines.push('', `# ${about}`, `#${env}=`);
  return `${lines.join('\n')}\n`;
}

/** `downlink.example.yaml`. */
export function yamlExample(): string {
  const lines = [
    '# Every setting, with its default. Copy to downlink.yaml what differs.',
    '# The environment wins over this file.',
  ];
  let open: string[] = [];
  for (const key of sorted(keys)) {
    const path = key.split('.');
    const name = path.pop() ?? '';
    const { env, about, initial } = settings[key];
    for (const [depth, section] of path.entries()) {
      if (open[depth] === section) continue;
      open = path.slice(0, depth + 1);
      if (depth === 0) lines.push('');
      lines.push(`${'  '.repeat(depth)}${section}:`);
    }
    open = path;
    const indent = '  '.repeat(path.length);
    lines.push(
      `${indent}# ${about} (${env})`,
      `${indent}${name}: ${initial === null ? '' : plain(initial)}`.trimEnd(),
    );
  }
  return `${lines.join('\n')}\n`;
}

/** Sections in the order of their first key, each in one piece, what they hold themselves first. */
function sorted(all: readonly Key[]): Key[] {
  const sections = [...new Set(all.map((key) => key.split('.')[0]))];
  return sections.flatMap((section) => {
    const own = all.filter((key) => key.split('.')[0] === section);
    return own.toSorted(
      (a, b) => Number(a.split('.').length > 2) - Number(b.split('.').length > 2),
    );
  });
}

function plain(initial: string): string {
  if (initial === 'true' || initial === 'false') return initial;
  const number = Number(initial);
  return stringify(initial !== '' && Number.isFinite(number) ? number : initial).trim();
}
