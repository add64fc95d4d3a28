-- The leanest outbox with SKIP LOCKED: a claim deletes, the commit finishes.
-- No lease, no retry count, no history.
DROP SCHEMA IF EXISTS bench_delete CASCADE;
CREATE SCHEMA bench_delete;
CREATE TABLE bench_delete.outbox (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	created_at timestamptz NOT NULL DEFAULT now(),
	saga_id text NOT NULL,
	aggregate_type text NOT NULL DEFAULT 'saga',
	aggregate_id text,
	event_type text NOT NULL,
	payload jsonb NOT NULL,
	headers jsonb NOT NULL DEFAULT '{}',
	routing_key text,
	partition_key text
);
