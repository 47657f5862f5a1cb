/**
 * The simulated fleet of a benchmark, in a process of its own. Its parent sends `{start: FleetOptions}` (without
 * functions) and hears `{"started":n}` once every device is logged in. It ends with its parent.
 */
import { createFleet, type FleetOptions } from '../../src/simulator/fleet.ts';

process.once('message', async ({ start }: { start: FleetOptions }) => {
  const fleet = createFleet(start);
  await fleet.start();
  process.send?.({ started: fleet.deviceIds.length });
});
process.on('disconnect', () => process.exit(0));
