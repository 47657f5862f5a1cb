-- Up Migration

-- Nothing in here waits for anybody: the tables are new, and the copy only reads.
--
-- Last known state of each outlet: BKV socket and hole, AP3000 port. Null is unknown; of a number that the
-- device says it has not, the text is empty.
CREATE TABLE ports (
  device_id     text COLLATE "C" NOT NULL,
  socket        integer NOT NULL,
  port          integer NOT NULL,
  state         text    NOT NULL,
  code          integer,
  business_no   text,
  order_no      text,
  power_w       double precision,
  voltage_v     double precision,
  current_a     double precision,
  energy_wh     double precision,
  duration_s    double precision,
  temperature_c double precision,
  updated_at    bigint  NOT NULL,
  PRIMARY KEY (device_id, socket, port)
) WITH (
  fillfactor = 70,
  autovacuum_vacuum_scale_factor = 0.02
);

-- Charging sessions. `order_key` is what the protocol identifies one by; short numbers come round again,
-- and `era` tells which time round it is. created_at is when it was first heard of, on our clock.
CREATE TABLE orders (
  id            bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  device_id     text COLLATE "C" NOT NULL,
  order_key     text COLLATE "C" NOT NULL,
  era           integer NOT NULL,
  socket        integer NOT NULL,
  port          integer NOT NULL,
  business_no   text,
  order_no      text,
  status        text    NOT NULL CHECK (status IN ('started', 'charging', 'ended')),
  source        text,
  card          text,
  start_told_at bigint,
  ended_at      bigint,
  started_at    bigint  GENERATED ALWAYS AS (
    coalesce(start_told_at, ended_at - (duration_s * 1000)::bigint)
  ) STORED,
  created_at    bigint  NOT NULL,
  updated_at    bigint  NOT NULL,
  energy_wh     double precision,
  duration_s    double precision,
  power_w       double precision,
  max_power_w   double precision,
  amount_cents  integer,
  end_reason    text,
  end_code      integer,
  command_id    text COLLATE "C",
  settled       integer NOT NULL DEFAULT 0,
  sighted_at    bigint,
  UNIQUE (device_id, order_key, era)
) WITH (
  fillfactor = 75,
  autovacuum_vacuum_scale_factor = 0.02
);

COMMENT ON COLUMN orders.settled IS 'which values its end has told, a bit each: they stand for good';
COMMENT ON COLUMN orders.sighted_at IS 'of the latest sighting that was not its end';
COMMENT ON COLUMN orders.start_told_at IS 'null: nobody told it, and started_at is counted back from the end';

-- Every frame that matters, both directions, a partition for each day (UTC). One index is enough: it makes a
-- row unique, and read backwards it is a device's log, newest first.
CREATE TABLE command_log (
  at         bigint NOT NULL,
  entry_id   text COLLATE "C" NOT NULL,
  device_id  text COLLATE "C" NOT NULL,
  direction  text   NOT NULL,
  protocol   text   NOT NULL,
  name       text   NOT NULL,
  weight     text   NOT NULL,
  msg_id     bigint NOT NULL,
  command_id text COLLATE "C",
  fields     jsonb  NOT NULL,
  frame      text   NOT NULL,
  PRIMARY KEY (device_id, at, entry_id)
) PARTITION BY RANGE (at);

-- No row is ever refused for want of its day; the day takes over what lies here once it is made.
CREATE TABLE command_log_default PARTITION OF command_log DEFAULT;

-- Makes the partition of a day, counted from 1970-01-01; false when it is there, or somebody is in the way.
-- Attaching a finished table does not block those who write to other days.
CREATE FUNCTION make_command_log_day(day bigint) RETURNS boolean
LANGUAGE plpgsql SET lock_timeout = '500ms' AS $$
DECLARE
  from_ms constant bigint := day * 86400000;
  to_ms constant bigint := from_ms + 86400000;
  name constant text := 'command_log_' || to_char(date '1970-01-01' + day::integer, 'YYYYMMDD');
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('command_log'));
  IF to_regclass(name) IS NOT NULL THEN RETURN false; END IF;
  EXECUTE format('CREATE TABLE %I (LIKE command_log INCLUDING ALL)', name);
  LOCK TABLE command_log IN SHARE UPDATE EXCLUSIVE MODE;
  LOCK TABLE command_log_default IN ACCESS EXCLUSIVE MODE;
  EXECUTE format(
    'WITH early AS (DELETE FROM command_log_default WHERE at >= %s AND at < %s RETURNING *)
     INSERT INTO %I SELECT * FROM early', from_ms, to_ms, name);
  EXECUTE format('ALTER TABLE command_log ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
    name, from_ms, to_ms);
  RETURN true;
EXCEPTION WHEN lock_not_available THEN RETURN false;
END
$$;

-- Drops the oldest day that ended at or before that moment, and names it; null when there is none, or somebody
-- is in the way: a drop waits for all who read or write the log, and all who come wait for the drop.
CREATE FUNCTION drop_command_log_day(before bigint) RETURNS text
LANGUAGE plpgsql SET lock_timeout = '500ms' AS $$
DECLARE
  name text;
BEGIN
  SELECT relname INTO name FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
  WHERE inhparent = 'command_log'::regclass AND relname ~ '^command_log_\d{8}$'
    AND (to_date(right(relname, 8), 'YYYYMMDD') - date '1970-01-01' + 1)::bigint * 86400000 <= before
  ORDER BY relname LIMIT 1;
  IF name IS NOT NULL THEN EXECUTE format('DROP TABLE %I', name); END IF;
  RETURN name;
EXCEPTION WHEN lock_not_available OR undefined_table THEN RETURN NULL;
END
$$;

-- The days of the reports that are kept, and those around today.
SELECT make_command_log_day(day) FROM (
  SELECT DISTINCT at / 86400000 AS day FROM device_reports
  WHERE at >= (extract(epoch FROM now()) * 1000)::bigint - 31 * 86400000::bigint
    AND at < (extract(epoch FROM now()) * 1000)::bigint + 3 * 86400000::bigint
  UNION
  SELECT floor(extract(epoch FROM now()) / 86400)::bigint + ahead
  FROM generate_series(-2, 3) AS ahead
) AS days ORDER BY day;

-- command_log takes the place of device_reports. The old table stays, for processes of the version before that
-- are still running; retention empties it, and a later version drops it.
INSERT INTO command_log (at, entry_id, device_id, direction, protocol, name, weight, msg_id, fields, frame)
SELECT at, entry_id, device_id, 'up', protocol, name, weight, msg_id, fields, frame FROM device_reports;

COMMENT ON TABLE device_reports IS 'superseded by command_log; to be dropped by a later version';

-- Down Migration

-- What the version before knows how to read goes back to where it reads it.
INSERT INTO device_reports (entry_id, device_id, protocol, name, weight, at, msg_id, fields, frame)
SELECT entry_id, device_id, protocol, name, weight, at, msg_id, fields, frame FROM command_log
WHERE direction = 'up' AND command_id IS NULL
ON CONFLICT (entry_id) DO NOTHING;
DROP FUNCTION drop_command_log_day(bigint);
DROP FUNCTION make_command_log_day(bigint);
DROP TABLE command_log;
DROP TABLE orders;
DROP TABLE ports;
COMMENT ON TABLE device_reports IS NULL;
