-- Up Migration

-- Times are Unix milliseconds, the very numbers of the Command type: exact, without a time zone, and
-- without a conversion on the way in or out. For people: to_timestamp(accepted_at / 1000.0).
--
-- `ended` is the status once it is final, else null. Indexes speak of `ended`, never of `status`, so
-- the moves of an unfinished command (queued, sent, queued again) touch no index and stay on their
-- page (HOT). The free space of fillfactor is for them.
CREATE TABLE commands (
  id             text COLLATE "C" PRIMARY KEY,
  device_id      text COLLATE "C" NOT NULL,
  protocol       text     NOT NULL,
  command        text     NOT NULL,
  params         jsonb    NOT NULL,
  priority       smallint NOT NULL,
  accepted_at    bigint   NOT NULL,
  not_before     bigint   NOT NULL,
  deadline       bigint   NOT NULL,
  ack_timeout_ms integer  NOT NULL,
  attempts       integer  NOT NULL,
  backoff_ms     integer  NOT NULL,
  order_key      text,
  on_ambiguous   text     NOT NULL,
  labels         jsonb    NOT NULL,
  api_key        text     NOT NULL,
  waiter         text,
  status         text     NOT NULL,
  version        integer  NOT NULL,
  reason         text,
  code           text,
  result         jsonb,
  late           boolean  NOT NULL,
  inferred       boolean  NOT NULL,
  settled_at     bigint,
  trail          jsonb    NOT NULL,
  ledger_only    boolean  NOT NULL DEFAULT false,
  ended          text GENERATED ALWAYS AS (
    CASE WHEN status NOT IN ('scheduled', 'queued', 'parked', 'sent') THEN status END
  ) STORED
) WITH (
  fillfactor = 75,
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_analyze_scale_factor = 0.02,
  autovacuum_vacuum_insert_scale_factor = 0.05
);

COMMENT ON COLUMN commands.trail IS 'attempts keyed by their number, so that two trails merge with ||';
COMMENT ON COLUMN commands.ledger_only IS 'the queue did not take it: the reaper shall';

-- One row for each Idempotency-Key; its primary key alone decides who won.
CREATE TABLE idempotency (
  api_key    text   NOT NULL,
  key        text   NOT NULL,
  command_id text COLLATE "C" NOT NULL,
  body_hash  text   NOT NULL,
  expires_at bigint NOT NULL,
  PRIMARY KEY (api_key, key)
);

-- Down Migration

DROP TABLE idempotency;
DROP TABLE commands;
