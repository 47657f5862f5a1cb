-- Up Migration
-- no transaction
-- Built without blocking writes. A build that was cut off leaves an invalid index of the same name
-- behind, hence the drop before each.

DROP INDEX CONCURRENTLY IF EXISTS commands_unfinished;
CREATE INDEX CONCURRENTLY commands_unfinished ON commands (id) WHERE ended IS NULL;

DROP INDEX CONCURRENTLY IF EXISTS commands_unfinished_deadline;
CREATE INDEX CONCURRENTLY commands_unfinished_deadline ON commands (deadline) WHERE ended IS NULL;

DROP INDEX CONCURRENTLY IF EXISTS commands_ledger_only;
CREATE INDEX CONCURRENTLY commands_ledger_only ON commands (id) WHERE ledger_only AND ended IS NULL;

DROP INDEX CONCURRENTLY IF EXISTS commands_accepted;
CREATE INDEX CONCURRENTLY commands_accepted ON commands (accepted_at DESC, id DESC);

DROP INDEX CONCURRENTLY IF EXISTS commands_device;
CREATE INDEX CONCURRENTLY commands_device ON commands (device_id, accepted_at DESC, id DESC);

-- Most commands succeed: whoever lists those finds them at once without an index of their own.
DROP INDEX CONCURRENTLY IF EXISTS commands_ended;
CREATE INDEX CONCURRENTLY commands_ended ON commands (ended, accepted_at DESC, id DESC)
  WHERE ended IS NOT NULL AND ended <> 'succeeded';

DROP INDEX CONCURRENTLY IF EXISTS idempotency_expires;
CREATE INDEX CONCURRENTLY idempotency_expires ON idempotency (expires_at);

DROP INDEX CONCURRENTLY IF EXISTS devices_last_seen;
CREATE INDEX CONCURRENTLY devices_last_seen ON devices (last_seen_at DESC)
  WHERE last_seen_at IS NOT NULL;

DROP INDEX CONCURRENTLY IF EXISTS device_reports_device;
CREATE INDEX CONCURRENTLY device_reports_device ON device_reports (device_id, at DESC, entry_id DESC);

-- For the removal of old reports, which lie together on the disk.
DROP INDEX CONCURRENTLY IF EXISTS device_reports_at;
CREATE INDEX CONCURRENTLY device_reports_at ON device_reports USING brin (at);

-- Down Migration
-- no transaction

DROP INDEX CONCURRENTLY IF EXISTS device_reports_at;
DROP INDEX CONCURRENTLY IF EXISTS device_reports_device;
DROP INDEX CONCURRENTLY IF EXISTS devices_last_seen;
DROP INDEX CONCURRENTLY IF EXISTS idempotency_expires;
DROP INDEX CONCURRENTLY IF EXISTS commands_ended;
DROP INDEX CONCURRENTLY IF EXISTS commands_device;
DROP INDEX CONCURRENTLY IF EXISTS commands_accepted;
DROP INDEX CONCURRENTLY IF EXISTS commands_ledger_only;
DROP INDEX CONCURRENTLY IF EXISTS commands_unfinished_deadline;
DROP INDEX CONCURRENTLY IF EXISTS commands_unfinished;
