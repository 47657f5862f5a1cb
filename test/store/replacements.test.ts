import { describe, expect, it } from 'vitest';
import type { CommandRecord } from '../../src/command.ts';
import { replacedBySql } from '../../src/store/replacements.ts';
import { freshLedger } from './fixture.ts';
import { newRecord } from './records.ts';
import { explain, manyCommands } from './rows.ts';

const names = ['charge.stop'];
const asked = (record: CommandRecord) => ({
  id: record.id,
  deviceId: record.deviceId,
  orderKey: record.orderKey ?? '',
  names,
});
const at = (acceptedAt: number, wanted: Partial<CommandRecord> = {}) =>
  newRecord({ acceptedAt, notBefore: acceptedAt, ...wanted });
const stop = (acceptedAt: number, wanted: Partial<CommandRecord> = {}) =>
  at(acceptedAt, { command: 'charge.stop', ...wanted });

describe('what has replaced a command', () => {
  it('is the newest of these names that came after it in its line', async () => {
    const { ledger } = await freshLedger();
    const start = at(1_000);
    const lone = at(1_000, { deviceId: 'another' });
    const stops = [
      stop(999),
      stop(1_001, { status: 'succeeded', settledAt: 1_500 }),
      stop(1_002, { status: 'unknown', settledAt: 1_600 }),
    ];
    const others = [
      at(1_003),
      stop(1_003, { orderKey: 'port:2:0' }),
      stop(1_003, { deviceId: 'a third' }),
      stop(1_003, { orderKey: null }),
    ];
    await Promise.all([start, lone, ...stops, ...others].map((row) => ledger.write(row)));
    expect(await ledger.replacedBy([asked(start), asked(lone)])).toEqual(
      new Map([[start.id, stops[2]?.id]]),
    );
    expect(await ledger.replacedBy([{ ...asked(start), names: [] }])).toEqual(new Map());
    expect(await ledger.replacedBy([])).toEqual(new Map());
  });

  it('was accepted later, by its id where the moment is the same', async () => {
    const { ledger } = await freshLedger();
    const early = stop(1_000);
    const start = at(1_000);
    await Promise.all([early, start].map((row) => ledger.write(row)));
    expect(await ledger.replacedBy([asked(start)])).toEqual(new Map());
    const late = stop(1_000);
    await ledger.write(late);
    expect(await ledger.replacedBy([asked(start)])).toEqual(new Map([[start.id, late.id]]));
  });

  it('is no command whose time has not come, nor one that ended before it', async () => {
    const { ledger } = await freshLedger();
    const start = at(1_000);
    const waiting = stop(1_100, { notBefore: 9_000, status: 'scheduled' });
    const cancelled = stop(1_200, { notBefore: 9_000, status: 'cancelled', settledAt: 8_999 });
    await Promise.all([start, waiting, cancelled].map((row) => ledger.write(row)));
    expect(await ledger.replacedBy([asked(start)])).toEqual(new Map());
    const due = stop(1_050, { notBefore: 2_000, status: 'sent' });
    await ledger.write(due);
    expect(await ledger.replacedBy([asked(start)])).toEqual(new Map([[start.id, due.id]]));
  });

  it('was due no sooner than the command itself', async () => {
    const { ledger } = await freshLedger();
    const scheduled = at(1_000, { notBefore: 5_000 });
    await Promise.all([scheduled, stop(4_999)].map((row) => ledger.write(row)));
    expect(await ledger.replacedBy([asked(scheduled)])).toEqual(new Map());
    const after = stop(5_000);
    await ledger.write(after);
    expect(await ledger.replacedBy([asked(scheduled)])).toEqual(
      new Map([[scheduled.id, after.id]]),
    );
  });

  it('is found by the index of devices', async () => {
    const { url } = await manyCommands();
    const rows = [{ id: '000000000007', deviceId: 'device-7', orderKey: 'port:1:0', names }];
    const plan = await explain(url, replacedBySql, [JSON.stringify(rows)]);
    expect(plan).toContain('commands_device');
    expect(plan).not.toContain('Seq Scan on commands');
  });
});
