/** One-line breaks of promises, each with the test that must turn red. */
export type Mutation = {
  /** What is broken, in a few words. */
  name: string;
  file: string;
  /** Stands exactly once in the file. */
  find: string;
  replace: string;
  test: { file: string; name: string };
};

export const mutations: readonly Mutation[] = [
  {
    name: 'no epoch check',
    file: 'src/gateway/lane.ts',
    find: "if (delivery.epoch !== this.#outlet.epoch) return { kind: 'unwritten', reason: 'stale-epoch' };",
    replace: '',
    test: { file: 'test/gateway/lane.test.ts', name: 'a delivery of another epoch is not written' },
  },
];
