-- Up Migration
-- no transaction
-- Without blocking writes, and over what a build that was cut off has left; see 0003.

-- Dead letters. Neither column of its key is set before the end, so an unfinished row never meets it.
DROP INDEX CONCURRENTLY IF EXISTS commands_dead;
CREATE INDEX CONCURRENTLY commands_dead ON commands (settled_at DESC, id DESC)
  WHERE ended IN ('failed', 'unknown') AND purged_at IS NULL;

-- A refused command takes its claim with it, and knows it by its own id alone.
DROP INDEX CONCURRENTLY IF EXISTS idempotency_command;
CREATE INDEX CONCURRENTLY idempotency_command ON idempotency (command_id);

-- Down Migration
-- no transaction

DROP INDEX CONCURRENTLY IF EXISTS idempotency_command;
DROP INDEX CONCURRENTLY IF EXISTS commands_dead;
