/**
 * Loaded into a process with `--expose-gc --import`: SIGWINCH collects its garbage and gives back what it can.
 * No role listens for that signal.
 */
process.on('SIGWINCH', () => {
  // Not in Node's types: the last resort also drops what is only cached.
  const collect = globalThis.gc as unknown as (options: object) => void;
  collect({ type: 'major', execution: 'sync', flavor: 'last-resort' });
});
