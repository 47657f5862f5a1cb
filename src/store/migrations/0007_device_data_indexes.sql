-- Up Migration
-- no transaction
-- Without blocking writes, and over what a build that was cut off has left; see 0003. Ports and the command
-- log have their order in their primary keys.

DROP INDEX CONCURRENTLY IF EXISTS orders_device;
CREATE INDEX CONCURRENTLY orders_device ON orders (device_id, created_at DESC, id DESC);

-- Down Migration
-- no transaction

DROP INDEX CONCURRENTLY IF EXISTS orders_device;
