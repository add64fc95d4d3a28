-- PgQ. A tick ends a batch, so ticks after each 100 events make batches of
-- the size that the others claim.
DROP EXTENSION IF EXISTS pgq CASCADE;
DROP SCHEMA IF EXISTS pgq CASCADE;
CREATE EXTENSION pgq;
SELECT pgq.create_queue('bench');
SELECT pgq.set_queue_config('bench', 'ticker_max_count', '100');
SELECT pgq.set_queue_config('bench', 'ticker_max_lag', '0.1 seconds');
SELECT pgq.register_consumer('bench', 'bench');
