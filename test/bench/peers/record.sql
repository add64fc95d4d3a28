-- The floor for reading: a plain table whose rows have the columns that a
-- claim returns, and where a reader wants to go on after a restart, the
-- position it has reached.
DROP SCHEMA IF EXISTS bench_record CASCADE;
CREATE SCHEMA bench_record;
CREATE TABLE bench_record.event (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	event_id uuid NOT NULL DEFAULT gen_random_uuid(),
	saga_id text NOT NULL,
	aggregate_type text NOT NULL DEFAULT 'saga',
	aggregate_id text NOT NULL,
	event_type text NOT NULL,
	payload jsonb NOT NULL,
	headers jsonb NOT NULL DEFAULT '{}',
	status text NOT NULL DEFAULT 'claimed',
	created_at timestamptz NOT NULL DEFAULT now(),
	claimed_at timestamptz DEFAULT now(),
	sent_at timestamptz,
	retry_count integer NOT NULL DEFAULT 0,
	last_error text,
	worker_id text DEFAULT 'worker-0',
	routing_key text,
	partition_key text,
	consumer_group text NOT NULL DEFAULT 'sagaz-workers'
);
CREATE TABLE bench_record.reader (last_id bigint NOT NULL);
INSERT INTO bench_record.reader VALUES (0);
