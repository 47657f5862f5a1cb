/** What BKV devices can be told: the names are the promise, the specs keep it. */
import type { CommandSpec } from '../protocol.ts';
import { cardCommands } from './commands/card.ts';
import { chargeCommands } from './commands/charge.ts';
import { deviceCommands } from './commands/device.ts';
import { networkCommands } from './commands/network.ts';
import { socketCommands } from './commands/socket.ts';

export const commands: Readonly<Record<string, CommandSpec>> = {
  ...chargeCommands,
  ...socketCommands,
  ...networkCommands,
  ...cardCommands,
  ...deviceCommands,
};
