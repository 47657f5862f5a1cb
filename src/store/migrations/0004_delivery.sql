-- Up Migration

-- A reader of hours, such as a dump, would hold up this change, and everybody else behind it: better to fail
-- at once and be started again.
SET LOCAL lock_timeout = '3s';

ALTER TABLE commands ADD COLUMN replay_of text COLLATE "C", ADD COLUMN purged_at bigint;

COMMENT ON COLUMN commands.purged_at IS 'an operator took it off the list of dead letters; the row stays';

-- Devices whose commands are held back by order of an operator.
CREATE TABLE device_pauses (
  device_id text COLLATE "C" PRIMARY KEY,
  paused_at bigint NOT NULL,
  by        text   NOT NULL,
  reason    text
);

CREATE TABLE schedules (
  key             text COLLATE "C" PRIMARY KEY,
  cron            text,
  every_ms        bigint,
  time_zone       text   NOT NULL,
  body            jsonb  NOT NULL,
  api_key         text   NOT NULL,
  created_at      bigint NOT NULL,
  updated_at      bigint NOT NULL,
  last_tick_at    bigint,
  last_command_id text COLLATE "C",
  last_error      text,
  CHECK ((cron IS NULL) <> (every_ms IS NULL))
);

-- Down Migration

DROP TABLE schedules;
DROP TABLE device_pauses;
ALTER TABLE commands DROP COLUMN purged_at, DROP COLUMN replay_of;
