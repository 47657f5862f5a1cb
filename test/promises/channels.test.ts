/** The channels of the bridge: who hears what, and how it is packed. */
import { expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { deaf, deliveryOf, logIn, startBridgeRig } from './bridge-rig.ts';
import { acked } from './worker-rig.ts';

test('each gateway has a channel, each worker has one, and events have one', async () => {
  const rig = await startBridgeRig();
  const batches = await rig.listen();
  const worker = await rig.worker('w1');
  await rig.worker('w2');
  const one = await rig.gateway('g1');
  const two = await rig.gateway('g2');
  await rig.routes.park('82200520004869', 'parked', 5, false);
  await logIn(one.bridge);
  const route = await rig.route('c1');
  const end = worker.deliver(deliveryOf('c1', route), route, deaf);
  await eventually(() => expect(one.heard).toHaveLength(1));
  one.bridge.lined('w1', 'c1', 1);
  one.bridge.ended(one.heard[0]!, acked());
  await end;
  worker.settled('g1', 'c1', 1);
  await logIn(two.bridge);
  const channelsOf = (type: string) => [
    ...new Set(batches.filter(({ types }) => types.includes(type)).map(({ channel }) => channel)),
  ];
  await eventually(() => expect(channelsOf('evict')).toEqual(['gateway:g1']));
  for (const type of ['deliver', 'settled']) expect(channelsOf(type)).toEqual(['gateway:g1']);
  for (const type of ['lined', 'ended']) expect(channelsOf(type)).toEqual(['worker:w1']);
  for (const type of ['gateway', 'wake']) expect(channelsOf(type)).toEqual(['events']);
});

test('messages are batched per turn of the event loop', async () => {
  const rig = await startBridgeRig();
  const batches = await rig.listen();
  const worker = await rig.worker('w1');
  const { bridge, heard } = await rig.gateway('g1');
  await logIn(bridge);
  const ids = ['c1', 'c2', 'c3', 'c4', 'c5'];
  const routes = await Promise.all(ids.map((id) => rig.route(id)));
  for (const [n, id] of ids.entries()) {
    void worker.deliver(deliveryOf(id, routes[n]!), routes[n]!, deaf);
  }
  await eventually(() => expect(heard).toHaveLength(5));
  const ofGateway = batches.filter(({ types }) => types.includes('deliver'));
  expect(ofGateway).toEqual([{ channel: 'gateway:g1', types: ids.map(() => 'deliver') }]);
});
