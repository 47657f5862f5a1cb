-- Up Migration

CREATE TABLE devices (
  device_id     text COLLATE "C" PRIMARY KEY,
  protocol      text  NOT NULL,
  first_seen_at bigint,
  last_seen_at  bigint,
  facts         jsonb NOT NULL DEFAULT '{}'
) WITH (
  fillfactor = 75,
  autovacuum_vacuum_scale_factor = 0.02
);

-- What devices said, as it came; the stream entry's id makes reading an entry twice harmless.
CREATE TABLE device_reports (
  entry_id  text COLLATE "C" PRIMARY KEY,
  device_id text COLLATE "C" NOT NULL,
  protocol  text   NOT NULL,
  name      text   NOT NULL,
  weight    text   NOT NULL,
  at        bigint NOT NULL,
  msg_id    bigint NOT NULL,
  fields    jsonb  NOT NULL,
  frame     text   NOT NULL
);

-- Down Migration

DROP TABLE device_reports;
DROP TABLE devices;
